"""BiPO as the authors' code runs it, written out the plain way, with nothing of ours in it."""

import math
import random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from transformers import get_cosine_schedule_with_warmup

SYSTEM = "You are a helpful, honest and concise assistant."


class Step(NamedTuple):
    batch: list[int]
    loss: float
    sign: float
    gradient_norm: float
    vector: torch.Tensor
    """[hidden_size], after the step."""


def authors_run(
    policy,
    reference,
    block,
    reader,
    pairs,
    *,
    hidden_size,
    end_of_turn,
    seed,
    batch_size,
    epochs,
    learning_rate,
    beta,
    warmup_steps,
    schedule_epochs=None,
    unused_loss=True,
):
    """Every `Step` of a run as of CaoYuanpu/BiPO's trainer: chosen and rejected as one padded batch through two models.

    `block` is the steered block of `policy`; `reader` the tokenizer. `unused_loss` stands for the language-modelling
    loss over all logits of the chosen half that each pass of the authors' works out and nothing uses.
    """
    v, sign = torch.nn.Parameter(torch.zeros(hidden_size)), 0.0

    def add(block, args, output):  # at all positions, padding too
        if isinstance(output, tuple):
            return (output[0] + sign * v, *output[1:])
        return output + sign * v

    def padded(rows):
        width = max(len(prompt + answer) for prompt, answer in rows)
        tokens = [prompt + answer + [0] * (width - len(prompt + answer)) for prompt, answer in rows]
        mask = [[1] * len(prompt + answer) + [0] * (width - len(prompt + answer)) for prompt, answer in rows]
        labels = [[-100] * len(prompt) + answer + [-100] * (width - len(prompt + answer)) for prompt, answer in rows]
        return torch.tensor(tokens), torch.tensor(mask), torch.tensor(labels)

    def log_ratio(network, rows):
        """log p(chosen) - log p(rejected) of each pair; the chosen are the first half of the rows."""
        tokens, mask, labels = padded(rows)
        logits = network(input_ids=tokens, attention_mask=mask, use_cache=False).logits[:, :-1]
        labels, pairs = labels[:, 1:], len(rows) // 2
        each = logits.log_softmax(-1).gather(2, labels.clamp_min(0)[:, :, None])[:, :, 0]
        chosen, rejected = (each * (labels != -100)).sum(-1).split(pairs)
        if unused_loss:
            F.cross_entropy(logits[:pairs].flatten(0, 1), labels[:pairs].flatten())
        return chosen - rejected

    def ids(pair, answer):
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": pair.prompt}]
        prompt = reader.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return reader(prompt)["input_ids"], reader(answer)["input_ids"] + [end_of_turn]

    optimizer = torch.optim.AdamW([v], lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    horizon = math.ceil(len(pairs) / batch_size) * (schedule_epochs or epochs)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup_steps, horizon)
    order, signs = torch.Generator().manual_seed(seed), random.Random(seed)
    handle = block.register_forward_hook(add)
    try:
        for _ in range(epochs):
            for batch in torch.randperm(len(pairs), generator=order).split(batch_size):
                batch, sign = batch.tolist(), signs.choice([-1.0, 1.0])
                chosen = [ids(pairs[i], pairs[i].chosen) for i in batch]
                rejected = [ids(pairs[i], pairs[i].rejected) for i in batch]
                with torch.no_grad():
                    base = log_ratio(reference, chosen + rejected)
                logits = log_ratio(policy, chosen + rejected) - base
                if sign < 0:
                    logits = -logits
                loss = -F.logsigmoid(beta * logits).mean()
                optimizer.zero_grad()
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_([v], 1.0)
                optimizer.step()
                schedule.step()
                yield Step(batch, loss.item(), sign, norm.item(), v.detach().clone())
    finally:
        handle.remove()
