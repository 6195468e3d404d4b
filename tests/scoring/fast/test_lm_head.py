"""Log-probabilities of answer tokens without ever holding all logits."""

import pytest
import torch

from steering.scoring.fast import lm_head
from steering.scoring.fast.lm_head import LMHead, SlicedLogProbabilities
from tests.tiny_models import ARCHITECTURES, tiny_model


def last_states(model, tokens):
    outputs = []
    head = model.network.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda module, args: outputs.append(args[0]))
    with torch.no_grad():
        logits = model.network(input_ids=tokens).logits
    handle.remove()
    return outputs[0], logits.float()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("chunk", [1, 10**9], ids=["token by token", "at once"])
def test_any_head_gives_the_log_softmax_and_its_gradient(architecture, chunk, monkeypatch):
    model = tiny_model(architecture, **({"logits_scaling": 2.0} if architecture == "granite" else {}))
    monkeypatch.setattr(lm_head, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(lm_head, "VOCABULARY_SLICE", 100)
    tokens = torch.arange(5, 17)[None]
    states, logits = last_states(model, tokens)
    rows, targets = torch.tensor([3, 3, 7, 11]), torch.tensor([9, 250, 0, 259])  # one state may predict two tokens
    given = states[0].clone().requires_grad_()
    got = LMHead(model)(given, rows, targets)
    torch.testing.assert_close(got, logits[0].log_softmax(-1)[rows, targets], rtol=1e-5, atol=1e-5)

    weights = torch.tensor([1.0, -2.0, 0.5, 3.0])
    (gradient,) = torch.autograd.grad((weights * got).sum(), given)
    nudge = torch.randn(given.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ahead, behind = (LMHead(model)(given + step * nudge, rows, targets) for step in (1e-2, -1e-2))
    numeric = (weights * (ahead - behind)).sum() / 2e-2
    assert float((gradient * nudge).sum()) == pytest.approx(float(numeric), rel=1e-2, abs=1e-2)


def test_which_heads_are_linear_and_nothing_else(monkeypatch):
    """Gemma 2 caps its logits, Cohere and Granite scale them: these go through the model's own ending."""
    models = {name: tiny_model(name) for name in ("llama", "gpt2", "mamba", "gemma2", "cohere")}
    models["granite"] = tiny_model("granite", logits_scaling=2.0)
    sliced, calls = [], []
    monkeypatch.setattr(lm_head, "linear", lambda *arguments: calls.append(1) or torch.nn.functional.linear(*arguments))
    for name, model in models.items():
        head = LMHead(model)
        calls.clear()
        head(torch.ones(2, model.hidden_size), torch.tensor([0]), torch.tensor([5]))
        sliced += [name] if calls else []
    assert sliced == ["llama", "gpt2", "mamba"]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slices_are_autograds_own(bias, dtype):
    torch.manual_seed(0)
    states = (10 * torch.randn(7, 16)).to(dtype).requires_grad_()
    weight, shift = torch.randn(5000, 16).to(dtype), torch.randn(5000).to(dtype) if bias else None
    rows, targets = torch.tensor([0, 2, 2, 6]), torch.tensor([4999, 0, 2048, 2047])
    upstream = torch.randn(4)
    got = SlicedLogProbabilities.apply(states, weight, shift, rows, targets)
    wanted = torch.nn.functional.linear(states, weight, shift).float().log_softmax(-1)[rows, targets]
    tolerance = {"rtol": 1e-5, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 0.3}
    torch.testing.assert_close(got, wanted, **tolerance)
    gradients = [torch.autograd.grad(each, states, upstream)[0].float() for each in (got, wanted)]
    torch.testing.assert_close(*gradients, **tolerance)


def test_a_wide_vocabulary_never_makes_whole_logits():
    """150,000 words for 200 answer tokens would be 120 MB of logits and as much again for their gradient."""
    states, weight = torch.randn(200, 8, requires_grad=True), torch.randn(150_000, 8)
    rows, targets = torch.arange(200), torch.arange(200)
    with torch.profiler.profile(profile_memory=True) as profile:
        SlicedLogProbabilities.apply(states, weight, None, rows, targets).sum().backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 0 < largest < 4 * 1024**2


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_a_head_that_gives_other_numbers_is_refused(architecture, monkeypatch):
    """The function that scores is what is checked: slices for Llama, the model's own ending for Gemma 2."""
    kind, name = (SlicedLogProbabilities, "forward") if architecture == "llama" else (lm_head, "checkpoint")
    right = getattr(kind, name)
    monkeypatch.setattr(kind, name, lambda *arguments, **options: right(*arguments, **options) + 1e-2)
    with pytest.raises(ValueError, match="other log-probabilities"):
        LMHead(tiny_model(architecture))
