"""The variants of BiPO written out the plain way: one row at a time, one hook a layer, nothing of ours in it."""

import math
import random

import torch

from tests.authors_way import SYSTEM


def variant_run(
    network,
    blocks,
    reader,
    pairs,
    *,
    layers,
    norms,
    pair_norms,
    hidden_size,
    end_of_turn,
    signs="drawn",
    token_scope="all",
    length_weight=0.0,
    l2=0.0,
    seed=0,
    batch_size=3,
    epochs=2,
    learning_rate=0.03,
    beta=0.1,
):
    """Returns layer -> vector, and the loss of every step.

    `norms` are the residual norms at the layers, `pair_norms` the mean norms of a pair's difference there.

    Constant learning rates but for the cosine without warm-up; AdamW, written out.
    """
    v = {k: torch.zeros(hidden_size, requires_grad=True) for k in layers}
    first, second = ({k: torch.zeros(hidden_size) for k in layers} for _ in range(2))

    def log_p(prompt, answer, d):
        def hook(k):
            def add(block, args, output):
                hidden = output[0] if isinstance(output, tuple) else output
                steered = hidden.clone()
                start = 0 if token_scope == "all" else len(prompt) - 1
                stop = hidden.shape[1] if token_scope == "all" else hidden.shape[1] - 1
                steered[:, start:stop] = steered[:, start:stop] + d * v[k]
                return (steered, *output[1:]) if isinstance(output, tuple) else steered

            return add

        handles = [blocks[k].register_forward_hook(hook(k)) for k in layers] if d else []
        try:
            logits = network(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        finally:
            for handle in handles:
                handle.remove()
        total = sum(logits[len(prompt) - 1 + i, token] for i, token in enumerate(answer))
        return total / len(answer) ** length_weight

    def delta(pair, d):
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": pair.prompt}]
        prompt = reader(reader.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))["input_ids"]
        chosen, rejected = (reader(text)["input_ids"] + [end_of_turn] for text in (pair.chosen, pair.rejected))
        with torch.no_grad():
            untouched = log_p(prompt, chosen, 0) - log_p(prompt, rejected, 0)
        return log_p(prompt, chosen, d) - log_p(prompt, rejected, d) - untouched

    order, drawn, losses, step = torch.Generator().manual_seed(seed), random.Random(seed), [], 0
    total_steps = math.ceil(len(pairs) / batch_size) * epochs
    for _ in range(epochs):
        for batch in torch.randperm(len(pairs), generator=order).split(batch_size):
            directions = {"both": [1, -1], "plus": [1]}.get(signs) or [drawn.choice([-1, 1])]
            each = [-torch.sigmoid(d * beta * delta(pairs[i], d)).log() for d in directions for i in batch.tolist()]
            loss = sum(each) / len(each)
            loss = loss + l2 * sum((v[k] / norm).square().sum() for k, norm in zip(layers, norms, strict=True))
            gradients = torch.autograd.grad(loss, [v[k] for k in layers])
            clip = min(1.0, 1.0 / (math.sqrt(sum(float(g.square().sum()) for g in gradients)) + 1e-6))
            cosine = 0.5 * (1 + math.cos(math.pi * step / total_steps))
            step += 1
            for k, norm, g in zip(layers, pair_norms, gradients, strict=True):
                first[k] = 0.9 * first[k] + 0.1 * clip * g
                second[k] = 0.999 * second[k] + 0.001 * (clip * g).square()
                scaled = (second[k] / (1 - 0.999**step)).sqrt() + 1e-8
                rate = learning_rate * cosine * norm / pair_norms[0]
                v[k] = (v[k].detach() - rate * first[k] / (1 - 0.9**step) / scaled).requires_grad_()
            losses.append(float(loss.detach()))
    return {k: direction.detach() for k, direction in v.items()}, losses
