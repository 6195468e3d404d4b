"""LoRA adapters: a folder with the difference to a base model, merged into the base when it is loaded."""

import json
import os
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steering.errors import SteeringError
from steering.models import bundled

CONFIG = "adapter_config.json"
BUNDLED_NAMES = (bundled.NAME, f"HuggingFaceTB/{bundled.NAME}")
"""Bases that need no hub: the bundled model, by its name and by its Hub id."""
NEEDS_PEFT = "this is a LoRA adapter, which needs the package peft; install it with: pip install peft"


def is_adapter(source: str | Path | None) -> bool:
    """Whether a source is a folder with an adapter."""
    return source is not None and os.path.isfile(Path(source) / CONFIG)  # False for a name too long


def base_of(adapter: Path) -> str:
    """Return what an adapter was made for: a Hub id, a folder, or the name of the bundled model.

    A relative path is looked for beside the adapter, too, since it is that of the machine on which it was trained.

    Raises SteeringError for a config that names no base, or one that is an adapter itself.
    """
    try:
        named = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SteeringError(f"{adapter.name}: {CONFIG} is damaged; save the adapter again.") from error
    if not isinstance(named, str) or not named:
        raise SteeringError(f"{adapter.name}: {CONFIG} names no base_model_name_or_path; write it there.")
    if named in BUNDLED_NAMES:
        return bundled.NAME
    parts = Path(named).parts
    beside = [adapter.parent.joinpath(*parts[place:]) for place in range(len(parts))]
    found = next((str(path) for path in (Path(named), *beside) if os.path.isfile(path / "config.json")), named)
    if is_adapter(found):  # perhaps this very one
        raise SteeringError(f"{adapter.name}: {CONFIG} names an adapter as its base; write the model's own name there.")
    return found


def check_peft(adapter: Path) -> None:
    """Raise SteeringError, saying how to install it, where peft is missing."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise SteeringError(f"{adapter.name}: {NEEDS_PEFT}.") from error


def merged(
    adapter: Path, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Merge an adapter into its base; return the network and the adapter's own tokenizer, if it brings one."""
    from peft import PeftModel
    from transformers import AutoTokenizer

    both: Any = PeftModel.from_pretrained(network, adapter)
    whole = both.merge_and_unload(safe_merge=True)  # refuses weights that are no numbers
    if (adapter / "tokenizer_config.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(adapter)
    return whole, tokenizer
