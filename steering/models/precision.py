"""In what form a frozen model's weights are held, and where: number types, quantisation, GGUF, several devices.

Whatever the form, the vector and its optimiser stay float32; the weights only have to pass gradients through.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import transformers
from accelerate.utils import align_module_device
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from steering.errors import SteeringError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "auto": "auto"}
"""Words for number types; `auto` is the checkpoint's own."""
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Words for ways to spread a model; a dictionary from module names to devices does too."""
QUANTIZATIONS = ("8bit", "4bit")


def loading_options(
    *,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    quantization: str | None = None,
    gguf: bool = False,
) -> dict[str, Any]:
    """What transformers' `from_pretrained` is told; the arguments are those of `load_model`.

    Raises SteeringError for an unknown word, things that exclude each other, or bitsandbytes not installed.
    """
    if device and device_map:
        raise SteeringError("Both a device and a device map are given; give the one or the other.")
    if isinstance(device_map, str) and device_map not in DEVICE_MAPS:
        raise SteeringError(f"There is no device map {device_map!r}; choose one of: {', '.join(DEVICE_MAPS)}.")
    if not isinstance(dtype, torch.dtype | None) and dtype not in DTYPES:
        raise SteeringError(f"There is no dtype {dtype!r}; choose one of: {', '.join(DTYPES)}.")
    if (gguf or quantization) and isinstance(device_map, Mapping) and "disk" in device_map.values():
        raise SteeringError("Quantised weights cannot be kept on disk; give a device map without 'disk'.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = DTYPES.get(dtype, dtype) or (torch.float32 if device == "cpu" else "auto")
    options = {"dtype": dtype, "device_map": device_map or {"": device}}
    if quantization:
        options["quantization_config"] = _bitsandbytes(quantization, dtype, gguf)
    elif gguf and hasattr(transformers, "GgufConfig"):
        # Later versions of transformers can keep the file's blocks packed, but their kernels pass no gradients.
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return options


def _bitsandbytes(quantization: str, dtype: torch.dtype | str, gguf: bool) -> BitsAndBytesConfig:
    if quantization not in QUANTIZATIONS:
        raise SteeringError(f"There is no quantization {quantization!r}; choose one of: {', '.join(QUANTIZATIONS)}.")
    if gguf:
        raise SteeringError("A GGUF file brings its own quantization; leave quantization out.")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it would warn at every multiplication
    try:
        import bitsandbytes  # noqa: F401 - transformers' own message for its absence is three lines long
    except ImportError as error:
        raise SteeringError(
            f"{quantization} weights need the package bitsandbytes, which cannot be imported; install it with "
            "`pip install bitsandbytes`, or leave quantization out."
        ) from error
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = torch.bfloat16 if dtype == "auto" else dtype
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


def let_gradients_through(network: PreTrainedModel) -> None:
    """Keep bitsandbytes layers, before they first run, from two shortcuts it takes in evaluation mode on a CPU.

    With AVX-512 a 4-bit layer re-packs its weights for a kernel that passes no gradients back, without an error: a
    vector would be trained on the residual stream alone. An 8-bit layer rounds its inputs too, where in training mode
    (it has no dropout) it multiplies by the same weights exactly, so that packed and plain passes agree.
    """
    for module in network.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False
        elif type(module).__name__ == "Linear8bitLt":
            module.train()


def input_device(network: PreTrainedModel) -> torch.device:
    """Where token ids go in and logits come out. The embedding's weights may lie elsewhere until it runs."""
    embedding = network.get_input_embeddings()
    place = getattr(getattr(embedding, "_hf_hook", None), "execution_device", None)  # accelerate's, of a spread model
    return embedding.weight.device if place is None else torch.device(place)


def named_weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """`named_parameters`, also of a model that accelerate keeps partly on disk: fetched one module at a time."""
    names = {name for name, _ in network.named_parameters()}
    ties = getattr(network, "all_tied_weights_keys", {})  # on disk, one shared weight has become two
    names -= {copy for copy, original in ties.items() if original in names}
    for path, module in network.named_modules():
        with align_module_device(module):
            for name, parameter in module.named_parameters(prefix=path, recurse=False):
                if name in names:
                    yield name, parameter.detach()
