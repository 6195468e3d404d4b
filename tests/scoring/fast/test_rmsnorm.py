"""Norms in few steps are the model's own, forward and back; those of another kind are left alone."""

import pytest
import torch
from torch import nn

from steering.scoring.fast.rmsnorm import frozen_norms
from tests.tiny_models import ARCHITECTURES, tiny_model

OTHERS = {"gemma", "gemma2", "gemma3", "gemma3_text", "qwen3_next"}
"""Their weight is counted from 1."""
LAYER_NORMS = {"stablelm", "cohere", "gpt2", "gpt_neox", "opt", "falcon", "bloom", "mpt", "gpt_neo"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_norm_is_the_models_own(architecture):
    network = tiny_model(architecture).network.requires_grad_(False)
    for name, parameter in network.named_parameters():
        if "norm" in name:
            parameter.normal_()
    found = frozen_norms(network)
    if architecture not in {*OTHERS, *LAYER_NORMS}:
        assert len(found) >= 5
    if architecture in LAYER_NORMS or architecture in OTHERS - {"qwen3_next"}:
        assert not found
    for original, norm in found.items():
        states = torch.randn(1, 7, len(original.weight), requires_grad=True)
        upstream = torch.randn_like(states)
        got, want = norm(states), original(states)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(*(torch.autograd.grad(each, states, upstream)[0] for each in (got, want)))


def test_half_precision_is_left_alone():
    network = tiny_model("llama").network
    assert frozen_norms(network) and not frozen_norms(network.bfloat16())


def test_something_else_with_a_weight_and_an_epsilon_is_left_alone():
    assert not frozen_norms(nn.LayerNorm(8, bias=False))
