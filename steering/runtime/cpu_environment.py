"""Environment variables that make torch run better on a CPU. Imports nothing: they must be set before torch is."""

import os

CPU_ENVIRONMENT = {
    # Torch's OpenMP threads wait for each other by spinning. On a machine that does anything else besides, a thread
    # that lost its core for a moment then holds up all others: seconds became minutes. With this they sleep after some
    # 50 microseconds, longer than Python takes from one operation to the next. With a tenth of it a decode step on two
    # idle cores took 1.1 to 1.5 times as long, with two and a half times as much it was no faster.
    "GOMP_SPINCOUNT": "20000",
    # oneDNN keeps the kernels it generated, by default 1,024 of them, which can be a gigabyte. A training step meets
    # fewer than 64 shapes. The second variable is for PyTorch's cache in front of oneDNN's.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "LRU_CACHE_CAPACITY": "64",
}
"""Variable -> value where the user has set none."""


def configure_cpu() -> None:
    """Set `CPU_ENVIRONMENT` where the user has not; call it in an entry point, before anything imports torch.

    The libraries read the variables once: GOMP_SPINCOUNT when torch is loaded, the others at the first product.
    """
    for name, value in CPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
