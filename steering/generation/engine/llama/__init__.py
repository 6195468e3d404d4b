"""Prefill and decode step written out for models built like Llama, with float16 weights on a CPU."""
