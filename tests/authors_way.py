"""BiPO as the authors' code runs it, written out the plain way, with nothing of ours in it."""

import math
import random

import torch
from transformers import get_cosine_schedule_with_warmup

SYSTEM = "You are a helpful, honest and concise assistant."


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
):
    """Two copies of the model, four padded forward passes a step, as CaoYuanpu/BiPO runs them.

    `block` is the steered block of `policy`; `reader` the tokenizer. Returns the vector [hidden_size], and (loss, sign,
    gradient norm) of every step.
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

    def log_p(network, rows):
        tokens, mask, labels = padded(rows)
        logits = network(input_ids=tokens, attention_mask=mask).logits[:, :-1].log_softmax(-1)
        labels = labels[:, 1:]
        each = logits.gather(2, labels.clamp_min(0)[:, :, None])[:, :, 0]
        return (each * (labels != -100)).sum(-1)

    def ids(pair, answer):
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": pair.prompt}]
        prompt = reader.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return reader(prompt)["input_ids"], reader(answer)["input_ids"] + [end_of_turn]

    optimizer = torch.optim.AdamW([v], lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    horizon = math.ceil(len(pairs) / batch_size) * (schedule_epochs or epochs)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup_steps, horizon)
    order, signs, steps = torch.Generator().manual_seed(seed), random.Random(seed), []
    handle = block.register_forward_hook(add)
    try:
        for _ in range(epochs):
            for batch in torch.randperm(len(pairs), generator=order).split(batch_size):
                sign = signs.choice([-1.0, 1.0])
                chosen = [ids(pairs[i], pairs[i].chosen) for i in batch.tolist()]
                rejected = [ids(pairs[i], pairs[i].rejected) for i in batch.tolist()]
                with torch.no_grad():
                    reference_ratio = log_p(reference, chosen) - log_p(reference, rejected)
                logits = log_p(policy, chosen) - log_p(policy, rejected) - reference_ratio
                if sign < 0:
                    logits = -logits
                loss = -torch.nn.functional.logsigmoid(beta * logits).mean()
                optimizer.zero_grad()
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_([v], 1.0)
                optimizer.step()
                schedule.step()
                steps.append((loss.item(), sign, norm.item()))
    finally:
        handle.remove()
    return v.detach(), steps
