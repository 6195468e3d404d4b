"""The fast way of scoring: packed batches, cached activations, a sliced LM head. Nobody but `scoring` imports it."""
