"""A copy of the model that LoRA has tuned on another behavior: what a vector is transferred to.

Hu et al., arXiv 2106.09685; rank, alpha, dropout, learning rate and epochs are those of the paper's own LoRA models
(Cao et al., arXiv 2406.00045, appendix). Tuned by plain supervised learning on the chosen answers.
"""

import copy
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch

from steering.errors import SteeringError
from steering.models.loading import LanguageModel, wrap_model
from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import encode_pairs

RANK, ALPHA, DROPOUT, LEARNING_RATE, EPOCHS, BATCH = 8, 16, 0.05, 2e-4, 2, 4


def lora_copies(
    model: LanguageModel,
    pairs: Pairs,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    learning_rate: float = LEARNING_RATE,
    file: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[LanguageModel, None, None]:
    """Tune a copy of the model on the chosen answers of pairs; yield it, merged, after each epoch.

    Args:
        file: where the adapters' weights of each epoch are kept and taken from, with `.{epoch}` added to its name.

    The model itself is not changed. Raises SteeringError if peft is not installed; ends early when stopped.
    """
    try:
        from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    except ImportError as error:
        raise SteeringError("This experiment tunes a copy with LoRA; install: pip install peft.") from error
    torch.manual_seed(seed)
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    network = get_peft_model(copy.deepcopy(model.network), config)
    _, encoded = encode_pairs(model, pairs)
    rows = [(list(pair.prompt), list(pair.chosen)) for pair in encoded]
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate)
    for epoch in range(1, epochs + 1):
        kept = file and file.with_name(f"{file.name}.{epoch}")
        if kept and kept.is_file():
            set_peft_model_state_dict(network, torch.load(kept, weights_only=True))
        else:
            network.train()
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed + epoch))
            for places in order.split(BATCH):
                if should_stop():
                    return
                loss = _loss(network, [rows[place] for place in places.tolist()], model.device)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                optimizer.zero_grad()
            if kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                torch.save(get_peft_model_state_dict(network), kept)
        merged: Any = copy.deepcopy(network).merge_and_unload()
        yield wrap_model(merged, model.tokenizer, name=f"{model.name} + LoRA, epoch {epoch}", source=model.source)


def _loss(network: torch.nn.Module, rows: list[tuple[list[int], list[int]]], device: torch.device) -> torch.Tensor:
    """Return the mean cross-entropy over the answers' tokens of prompts and answers (token ids)."""
    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    labels, attention = torch.full_like(tokens, -100), torch.zeros_like(tokens)
    for place, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        tokens[place, :end], attention[place, :end] = torch.tensor([*prompt, *answer]), 1
        labels[place, len(prompt) : end] = torch.tensor(answer)
    return network(input_ids=tokens.to(device), attention_mask=attention.to(device), labels=labels.to(device)).loss
