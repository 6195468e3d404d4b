"""Load a causal language model, make it ready to be steered, and compute its fingerprint."""

import contextlib
import hashlib
import os
import sys
import tempfile
import textwrap
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from steering.errors import LoadingCancelled, SteeringError
from steering.models import bundled
from steering.models.adapters import base_of, check_peft, is_adapter, merged
from steering.models.blocks import find_blocks
from steering.models.chat_template import PromptFormat
from steering.models.gguf_cache import cached_conversion
from steering.models.precision import input_device, let_gradients_through, loading_options, named_weights
from steering.models.quiet import quiet_transformers


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
        prompts: renders conversations to token ids, by the model's chat template.
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
        """Number of decoder blocks."""
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """The device of token ids and logits; the blocks of a model spread over several may lie elsewhere."""
        return input_device(self.network)

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Ids that end an answer: the chat template's end-of-turn token and those of the generation config."""
        named = getattr(self.network.generation_config, "eos_token_id", None)
        ids = named if isinstance(named, list | tuple) else [named]
        return frozenset(int(i) for i in (*ids, self.tokenizer.eos_token_id, self.prompts.end_of_turn) if i is not None)

    def check_layer(self, layer: int) -> int:
        """Return the layer; raise SteeringError if the model has no such decoder block."""
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
    on_progress: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> LanguageModel:
    """Load a model and make it ready to be steered.

    Args:
        source: by default the bundled model (fetched and converted on first use); else a Hub id
            (`Qwen/Qwen2.5-0.5B-Instruct`), a local folder, that of a LoRA adapter, or a GGUF file (converted once).
        device: `cpu`, `cuda`, ...; by default CUDA where there is one.
        dtype: of the weights, also as a word (`bfloat16`, `auto`: the checkpoint's own); by default float32 on the CPU,
            the checkpoint's own elsewhere.
        device_map: instead of a device, how a model too large for one is spread: `auto`, `balanced`, ..., or a
            dictionary from module names to devices; what is on `disk` is read again in every pass.
        quantization: `8bit` or `4bit` weights (bitsandbytes).
        on_progress: gets a sentence for each stage; should_stop: once True, loading ends before the next stage.

    Raises:
        SteeringError: not found, no network, not a decoder-only language model, or not steerable; it says which.

    Example:
        >>> model = load_model()
        >>> model.name, model.num_layers, model.hidden_size
        ('SmolLM2-135M-Instruct', 30, 576)
        >>> other = load_model("Qwen/Qwen2.5-0.5B-Instruct", dtype="bfloat16")
    """
    say = on_progress or (lambda text: print(text, file=sys.stderr, flush=True))
    found = _located(source)
    options = loading_options(
        device=device, dtype=dtype, device_map=device_map, quantization=quantization, gguf=found.gguf is not None
    )
    try:
        where: str | Path = found.where
        if found.gguf is not None:
            where = _unpacked(found.gguf, options, say, should_stop)
        if should_stop():
            raise LoadingCancelled("The loading was cancelled.")
        if on_progress:
            on_progress(f"Loading {found.name} ...")
        network, tokenizer = read_checkpoint(where, options, spread=bool(device_map))
        if found.adapter is not None:
            if on_progress:
                on_progress(f"Merging the adapter {found.name} ...")
            network, tokenizer = merged(found.adapter, network, tokenizer)
        if should_stop():
            raise LoadingCancelled("The loading was cancelled.")
        return wrap_model(network, tokenizer, name=found.name, source=found.source)
    except SteeringError:
        raise
    except Exception as error:  # whatever way the libraries have to fail on files that are not ours
        by_hand = ", and a device map has to name every part of the model once, tied weights in one place"
        raise SteeringError(
            f"Model {str(source or found.name)!r} cannot be loaded: {_loading_failure(found.where, error)}; --model "
            "takes the Hub id of a causal language model (with network, or already cached), a folder with one and its "
            f"tokenizer, a LoRA adapter's folder, or a GGUF file{by_hand if isinstance(device_map, Mapping) else ''}."
        ) from error


@dataclass(frozen=True)
class _Located:
    """Where a model's files are.

    Attributes:
        where: folder, Hub id or GGUF file that transformers reads; of an adapter, its base.
        name, source: of the model, see `LanguageModel`.
        gguf: the GGUF file, if it is one; `adapter`: the adapter's folder, if it is one.
    """

    where: str | Path
    name: str
    source: str
    gguf: Path | None = None
    adapter: Path | None = None


def _located(source: str | Path | None) -> _Located:
    """Find out what a source is; fetches the bundled model, and no other."""
    if source in (None, "", bundled.NAME):
        return _Located(bundled.bundled_checkpoint(), bundled.NAME, bundled.NAME)
    assert source is not None
    if str(source).lower().endswith(".gguf"):
        return _Located(Path(source), Path(source).stem, Path(source).stem, gguf=Path(source))
    name = Path(str(source).rstrip("/\\")).name or str(source)
    if is_adapter(source):
        adapter = Path(source)
        check_peft(adapter)
        return replace(_located(base_of(adapter)), name=name, source=name, adapter=adapter)
    # A folder's path stays on this machine: vector files carry the source, and they are shared.
    return _Located(source, name, name if os.path.exists(source) else str(source))


def _unpacked(
    gguf: Path, options: dict[str, Any], say: Callable[[str], None], should_stop: Callable[[], bool]
) -> str | Path:
    """Return the folder of a GGUF file's conversion, with options changed to read it; the file itself without one."""
    if not os.path.isfile(gguf):
        raise FileNotFoundError("there is no such file")
    folder = cached_conversion(gguf, say, should_stop)
    if folder is None:
        return gguf
    options.pop("quantization_config", None)
    if options["dtype"] == "auto":  # the conversion is in float32, four times what the file's weights need
        options["dtype"] = torch.bfloat16
    return folder


def wrap_model(
    network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str, source: str = ""
) -> LanguageModel:
    """Make a loaded transformers model ready to be steered: freeze it, find its decoder blocks and its prompt format.

    Runs two forward passes of five tokens. Raises SteeringError for anything but a decoder-only language model.
    """
    network.eval().requires_grad_(False)
    let_gradients_through(network)
    path, hidden_size = find_blocks(network, name)
    blocks = network.get_submodule(path)
    assert isinstance(blocks, nn.ModuleList)  # find_blocks looks at nothing else
    return LanguageModel(
        network=network,
        tokenizer=tokenizer,
        name=name,
        source=source or name,
        blocks=blocks,
        blocks_path=path,
        hidden_size=hidden_size,
        context_length=context_length(network),
        fingerprint=fingerprint(network),
        prompts=PromptFormat.of(tokenizer),
    )


def read_checkpoint(
    where: str | Path, options: dict[str, Any], spread: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Read network and tokenizer with transformers; raises whatever it raises.

    Args:
        where: Hub id, folder, or GGUF file.
        options: of `from_pretrained`, as `precision.loading_options` makes them.
        spread: whether a device map may put weights on disk; their folder lives as long as the network.
    """
    file = {}
    if isinstance(where, Path) and where.suffix.lower() == ".gguf":
        if not where.is_file():
            raise FileNotFoundError("there is no such file")
        where, file = where.parent, {"gguf_file": where.name}
    with quiet_transformers(), contextlib.ExitStack() as scratch:
        if spread:  # weights for the disk are left in the checkpoint, unless they have to be converted first
            folder = scratch.enter_context(tempfile.TemporaryDirectory(prefix="steering-offload-"))
            options = {**options, "offload_folder": folder}
        tokenizer = AutoTokenizer.from_pretrained(where, **file)
        network: PreTrainedModel
        info: dict[str, Any]
        network, info = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
            where, **file, **options, output_loading_info=True
        )
        if info["missing_keys"]:  # transformers would fill them with random numbers
            raise ValueError(f"the checkpoint lacks {sorted(info['missing_keys'])[0]}")
        weakref.finalize(network, scratch.pop_all().close)
    return network, tokenizer


def _loading_failure(where: str | Path, error: Exception) -> str:
    """Say in a few words why a model cannot be loaded."""
    path = Path(where)
    if not os.path.exists(path) and (path.is_absolute() or len(path.parts) > 2 or str(where).startswith((".", "~"))):
        return f"there is no such {'file' if path.suffix.lower() == '.gguf' else 'folder'}"
    text = " ".join(str(error).split()) or type(error).__name__
    return textwrap.shorten(text.split(". ")[0], 200, placeholder=" ...").rstrip(".")


def context_length(network: PreTrainedModel) -> int | None:
    """Return the most tokens the model can read, by its config; None where it names no limit."""
    config = network.config.get_text_config(decoder=True)
    for key in ("max_position_embeddings", "max_seq_len", "seq_length"):
        value = getattr(config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def fingerprint(network: PreTrainedModel) -> str:
    """Compute a digest of the architecture and every weight's name, shape and eight values: 16 hex digits.

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
