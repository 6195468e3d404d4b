"""Copies of a model: the same weights, modules of their own, and nothing of another thread's run in them."""

import sys
import threading

import pytest
import torch
from torch import nn

from steering.runtime.module_proxy import HOOKS, InputRecorder, ModuleProxy, OutputReplay, copy_sharing_weights
from tests.tiny_models import tiny_model

TOKENS = torch.tensor([[5, 6, 7, 8]])


def logits(network):
    with torch.no_grad():
        return network(input_ids=TOKENS, use_cache=False).logits


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mamba"])
def test_a_copy_has_the_weights_and_is_another_network(architecture):
    network = tiny_model(architecture).network
    copied = copy_sharing_weights(network, {})
    for (name, one), (other_name, other) in zip(network.named_parameters(), copied.named_parameters(), strict=True):
        assert name == other_name and one is other
    assert not set(network.modules()) & set(copied.modules())
    assert copied.config is not network.config
    assert torch.equal(logits(copied), logits(network))


def test_what_is_replaced_is_replaced_in_the_copy_only(tiny):
    network, block = tiny.network, tiny.blocks[2]
    recorder, replay = InputRecorder(network.lm_head), OutputReplay(block)
    before = logits(network)
    copied = copy_sharing_weights(network, {network.lm_head: recorder, block: replay})
    assert copied.lm_head is recorder and copied.model.layers[2] is replay
    logits(copied)
    assert recorder.release().shape == (1, 4, tiny.hidden_size) and recorder.hidden_states is None
    assert network.lm_head is not recorder and tiny.blocks[2] is block and torch.equal(logits(network), before)
    again = copy_sharing_weights(copied, {})
    assert again.lm_head is recorder  # proxies that are there already are shared


def test_hooks_stay_behind():
    model = tiny_model()
    called = []
    for module in (model.network, model.blocks[1], model.network.lm_head):
        module.register_forward_hook(lambda *_: called.append("after"))
        module.register_forward_pre_hook(lambda *_: called.append("before"))
    copied = copy_sharing_weights(model.network, {})
    logits(copied)
    assert not called
    copied.model.layers[1].register_forward_hook(lambda *_: called.append("copy"))
    logits(model.network)
    assert "copy" not in called and len(called) == 6


def test_another_thread_may_come_and_go_with_hooks_meanwhile(tiny):
    over, interval = threading.Event(), sys.getswitchinterval()

    def visit():
        while not over.is_set():
            handles = [block.register_forward_hook(lambda *_: None) for block in tiny.blocks for _ in range(50)]
            for handle in handles:
                handle.remove()

    visitor = threading.Thread(target=visit)
    sys.setswitchinterval(1e-6)
    visitor.start()
    try:
        copies = [copy_sharing_weights(tiny.network, {}) for _ in range(20)]
    finally:
        over.set()
        visitor.join(timeout=30)
        sys.setswitchinterval(interval)
    modules = [module for copied in copies for module in copied.modules()]
    assert not any(getattr(module, name) for module in modules for name in HOOKS)


def test_a_proxy_answers_for_what_it_replaces():
    class Doubled(ModuleProxy):
        def forward(self, hidden):
            return 2 * self._original(hidden)

    original = nn.Linear(3, 2)
    original.attention_type = "full"
    proxy = Doubled(original)
    assert proxy.attention_type == "full" and proxy.weight is original.weight and not list(proxy.parameters())
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = proxy.nothing_like_it


def test_hidden_states_are_each_threads_own(tiny):
    recorder, elsewhere = InputRecorder(tiny.network.lm_head), []
    recorder.hidden_states = torch.ones(1)
    thread = threading.Thread(target=lambda: elsewhere.append(recorder.hidden_states))
    thread.start()
    thread.join()
    assert elsewhere == [None] and recorder.hidden_states is not None
