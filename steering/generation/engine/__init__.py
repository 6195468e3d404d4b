"""How tokens are decoded: batches, KV caches, prefix cache. Nobody but `generation` imports it."""
