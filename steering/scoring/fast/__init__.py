"""The fast way of scoring: packed batches, kept activations, a sliced LM head. Nobody but `scoring` imports it."""
