"""How a frozen model's weights are stored: number types, quantisation, GGUF, devices; and how exact they compute.

Whatever the form, the vector and its optimiser stay float32; the weights only have to pass gradients through.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import transformers
from accelerate.utils import align_module_device
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from steering.errors import SteeringError

DTYPES: dict[str, torch.dtype | str] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "auto": "auto",
}
"""Words for number types; `auto` is the checkpoint's own."""
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Words for ways to spread a model; a dictionary from module names to devices does too."""
QUANTIZATIONS = ("8bit", "4bit")


TOLERANCES = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 0.4}
"""Number type -> greatest difference between logits that are computed in two ways, over their standard deviation.

Measured with the bundled model on a CPU (random prompts of 6 to 40 tokens, eight each): one pass against decode steps
with a KV cache differ by up to 2e-5 (float32), 0.02 (float16), 0.23 (bfloat16). Where attention misses one token of 40,
the last position's logits differ by 0.75 to 1.3. Each limit lies between, nearer to the rounding.
"""


def tolerance(dtype: torch.dtype) -> float:
    """Return how far logits computed in two ways may lie apart by rounding, in standard deviations of the logits.

    Use it to decide whether a fast way of computing gives what the plain one gives; see `TOLERANCES`.

    Args:
        dtype: in which the network computes. Any other than float32, float16 and bfloat16 counts as float16, the
            tightest of the rounded ones; float64 as float32.
    """
    return TOLERANCES.get(torch.float32 if dtype == torch.float64 else dtype, TOLERANCES[torch.float16])


def logits_agree(got: Tensor, want: Tensor, dtype: torch.dtype) -> bool:
    """Tell whether logits of one shape differ by no more than the rounding of `dtype`; NaN never agrees."""
    got, want = got.float(), want.float()
    return got.shape == want.shape and bool((got - want).abs().max() <= tolerance(dtype) * want.std())


def loading_options(
    *,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    quantization: str | None = None,
    gguf: bool = False,
) -> dict[str, Any]:
    """Translate the arguments of `load_model` into those of transformers' `from_pretrained`.

    Raises SteeringError for an unknown word, arguments that exclude each other, or bitsandbytes not installed.
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
    number_type = DTYPES[dtype] if isinstance(dtype, str) else dtype
    if number_type is None:
        number_type = torch.float32 if device == "cpu" else "auto"
    options: dict[str, Any] = {"dtype": number_type, "device_map": device_map or {"": device}}
    if quantization:
        options["quantization_config"] = _bitsandbytes(quantization, number_type, gguf)
    elif gguf and hasattr(transformers, "GgufConfig"):
        # Later versions of transformers can keep the file's blocks packed, but their kernels pass no gradients.
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return options


def _bitsandbytes(quantization: str, dtype: torch.dtype | str, gguf: bool) -> BitsAndBytesConfig:
    if quantization not in QUANTIZATIONS:
        raise SteeringError(f"There is no quantization {quantization!r}; choose one of: {', '.join(QUANTIZATIONS)}.")
    if gguf:
        raise SteeringError("A GGUF file brings its own quantization; leave quantization out.")
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
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - bitsandbytes' own attribute
        elif type(module).__name__ == "Linear8bitLt":
            module.train()


def input_device(network: PreTrainedModel) -> torch.device:
    """Find the device of token ids and logits. The embedding's weights may lie elsewhere until it runs."""
    embedding = network.get_input_embeddings()
    place = getattr(getattr(embedding, "_hf_hook", None), "execution_device", None)  # accelerate's, of a spread model
    return embedding.get_parameter("weight").device if place is None else torch.device(place)


def named_weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, weight) as `named_parameters` does; weights that accelerate left on disk are read in turn."""
    names = {name for name, _ in network.named_parameters()}
    ties = getattr(network, "all_tied_weights_keys", {})  # on disk, one shared weight has become two
    names -= {copy for copy, original in ties.items() if original in names}
    for path, module in network.named_modules():
        with align_module_device(module):
            for name, parameter in module.named_parameters(prefix=path, recurse=False):
                if name in names:
                    yield name, parameter.detach()
