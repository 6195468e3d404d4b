"""Load a causal language model, find its decoder blocks by structure, and tell one model from another."""

import contextlib
import hashlib
import tempfile
import textwrap
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import logging as hub_logging
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from steering.errors import SteeringError
from steering.models import bundled
from steering.models.blocks import find_blocks
from steering.models.chat_template import PromptFormat
from steering.models.precision import input_device, let_gradients_through, loading_options, named_weights


@dataclass(eq=False)
class LanguageModel:
    """A frozen causal language model, ready to be steered.

    Attributes:
        network: the transformers model, in evaluation mode, no parameter asking for gradients.
        tokenizer: its tokenizer.
        name: short name for people; `source`: what it was loaded from (Hub id, or name of the folder).
        blocks: the decoder blocks in order; layer k is the output of `blocks[k]`.
        blocks_path: dotted name of their list inside `network`.
        hidden_size: width of the residual stream.
        context_length: most tokens the model can read, or None where it has no such limit.
        fingerprint: hex digest of architecture and weights, the same wherever the model is loaded.
        prompts: how the model's conversations are written.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: str
    blocks: nn.ModuleList = field(repr=False)
    blocks_path: str
    hidden_size: int
    context_length: int | None
    fingerprint: str
    prompts: PromptFormat = field(repr=False)

    @property
    def num_layers(self) -> int:
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """Where token ids go in and logits come out; the blocks of a spread model may lie elsewhere."""
        return input_device(self.network)

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Ids that end an answer: the template's end of turn and whatever the model's own settings name."""
        named = getattr(self.network.generation_config, "eos_token_id", None)
        ids = named if isinstance(named, list | tuple) else [named]
        return frozenset(int(i) for i in (*ids, self.tokenizer.eos_token_id, self.prompts.end_of_turn) if i is not None)

    def check_layer(self, layer: int) -> int:
        if layer not in range(self.num_layers):
            raise SteeringError(
                f"Layer {layer} does not exist in {self.name}; give a layer from 0 to {self.num_layers - 1}."
            )
        return int(layer)


def load_model(
    source: str | Path | None = None,
    *,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    quantization: str | None = None,
) -> LanguageModel:
    """Load a model; without `source` the bundled default (fetched and converted on first use).

    Args:
        source: Hub id (`Qwen/Qwen2.5-0.5B-Instruct`), local folder, or local GGUF file (its weights are unpacked).
        device: `cpu`, `cuda`, ...; by default CUDA where there is one.
        dtype: of the weights, also as a word (`bfloat16`, `auto`: the checkpoint's own); by default float32 on the CPU,
            the checkpoint's own elsewhere.
        device_map: instead of a device, how a model too large for one is spread: `auto`, `balanced`, ..., or a
            dictionary from module names to devices; what is on `disk` is read anew in every pass.
        quantization: `8bit` or `4bit` holds the weights so (bitsandbytes).

    Raises:
        SteeringError: not found, no network, not a decoder-only language model, or not steerable; it says which.
    """
    gguf = Path(str(source)) if str(source).lower().endswith(".gguf") else None
    options = loading_options(
        device=device, dtype=dtype, device_map=device_map, quantization=quantization, gguf=gguf is not None
    )
    where = bundled.bundled_checkpoint() if source in (None, "", bundled.NAME) else source
    name = bundled.NAME if where is not source else Path(str(source).rstrip("/\\")).name or str(source)
    if gguf:
        where, name = gguf, gguf.stem
    # A folder's path stays on this machine: vector files carry the source, and they are shared.
    hub_id = where is source and not Path(str(source)).exists()
    try:
        network, tokenizer = _read(where, options, spread=bool(device_map))
        return wrap_model(network, tokenizer, name=name, source=str(source) if hub_id else name)
    except SteeringError:
        raise
    except Exception as error:  # whatever way the libraries have to fail on files that are not ours
        by_hand = ", and a device map has to name every part of the model once, tied weights in one place"
        raise SteeringError(
            f"Model {str(source or name)!r} cannot be loaded: {_reason(where, error)}; --model takes the Hub id of a "
            "causal language model (with network, or already cached), a folder with one and its tokenizer, or a GGUF "
            f"file{by_hand if isinstance(device_map, Mapping) else ''}."
        ) from error


def wrap_model(
    network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str, source: str = ""
) -> LanguageModel:
    """Make a loaded transformers model steerable: freeze it, find its blocks, read its prompt format."""
    network.eval().requires_grad_(False)
    let_gradients_through(network)
    path, hidden_size = find_blocks(network, name)
    return LanguageModel(
        network=network,
        tokenizer=tokenizer,
        name=name,
        source=source or name,
        blocks=network.get_submodule(path),
        blocks_path=path,
        hidden_size=hidden_size,
        context_length=_context_length(network),
        fingerprint=_fingerprint(network),
        prompts=PromptFormat.of(tokenizer),
    )


def _read(where: str | Path, options: dict[str, Any], spread: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Network and tokenizer, read by transformers; raises whatever it raises."""
    file = {}
    if isinstance(where, Path) and where.suffix.lower() == ".gguf":
        if not where.is_file():
            raise FileNotFoundError("there is no such file")
        where, file = where.parent, {"gguf_file": where.name}
    with _quiet_transformers(), contextlib.ExitStack() as scratch:
        if spread:  # weights for the disk are left in the checkpoint, unless they have to be converted first
            folder = scratch.enter_context(tempfile.TemporaryDirectory(prefix="steering-offload-"))
            options = {**options, "offload_folder": folder}
        tokenizer = AutoTokenizer.from_pretrained(where, **file)
        network, found = AutoModelForCausalLM.from_pretrained(where, **file, **options, output_loading_info=True)
        if found["missing_keys"]:  # transformers would fill them with random numbers
            raise ValueError(f"the checkpoint lacks {sorted(found['missing_keys'])[0]}")
        weakref.finalize(network, scratch.pop_all().close)
    return network, tokenizer


def _reason(where: str | Path, error: Exception) -> str:
    """Why a model cannot be loaded, in a few words."""
    path = Path(where)
    if not path.exists() and (path.is_absolute() or len(path.parts) > 2 or str(where).startswith((".", "~"))):
        return f"there is no such {'file' if path.suffix.lower() == '.gguf' else 'folder'}"
    text = " ".join(str(error).split()) or type(error).__name__
    return textwrap.shorten(text.split(". ")[0], 200, placeholder=" ...").rstrip(".")


def _context_length(network: PreTrainedModel) -> int | None:
    config = network.config.get_text_config(decoder=True)
    for key in ("max_position_embeddings", "max_seq_len", "seq_length"):
        value = getattr(config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _fingerprint(network: PreTrainedModel) -> str:
    """Digest of every weight's name, shape and eight values, wherever they lie.

    Values are taken in bfloat16, so that a bfloat16 copy agrees; a float16 or quantised one has a digest of its own.
    """
    digest = hashlib.sha256(type(network).__name__.encode())
    for name, weight in named_weights(network):
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        flat = weight.reshape(-1)
        if flat.numel():
            picks = torch.linspace(0, flat.numel() - 1, 8, dtype=torch.float64).long().to(flat.device)
            digest.update(flat[picks].to(torch.bfloat16).float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    hub_verbosity = hub_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
