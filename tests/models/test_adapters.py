"""LoRA adapters: merged into their base, or refused in a sentence that says what is missing."""

import builtins
import json

import pytest
import torch
from peft import PeftModel

from steering.errors import SteeringError
from steering.models.adapters import base_of, is_adapter
from steering.models.catalog import describe_model
from steering.models.loading import load_model
from tests.lora_adapter import make_adapter
from tests.tiny_models import tiny_network, tokenizer


@pytest.fixture
def folders(tmp_path):
    """A tiny base, and an adapter of it that names the base by a path of another machine."""
    base = tmp_path / "mine" / "base"
    tiny_network("llama").save_pretrained(base)
    tokenizer().save_pretrained(base)
    adapter = make_adapter(tmp_path / "mine" / "adapter", tiny_network("llama"), "elsewhere/mine/base", scale=0.5)
    return base, adapter


def test_it_is_the_base_with_the_adapter_merged_in(folders):
    base, adapter = folders
    model, plain = load_model(adapter), load_model(base)
    assert is_adapter(adapter) and not is_adapter(base) and not is_adapter(None)
    assert (model.name, model.source) == ("adapter", "adapter")
    assert model.fingerprint != plain.fingerprint
    ids = torch.tensor([[5, 9, 30, 77]])
    wanted = PeftModel.from_pretrained(tiny_network("llama").eval(), adapter)(ids).logits
    torch.testing.assert_close(model.network(ids).logits, wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain.network(ids).logits, wanted, atol=1e-2)


def test_what_is_said_of_it_before_it_is_loaded(folders):
    _, adapter = folders
    info = describe_model(adapter)
    assert (info.kind, info.name, info.problem, info.fits) == ("adapter", "adapter", "", True)
    assert "LoRA adapter of base" in info.note and info.memory_bytes == describe_model(folders[0]).memory_bytes


def test_the_bundled_model_is_a_base_by_its_name(tmp_path):
    for name in ("SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"):
        assert base_of(make_adapter(tmp_path / "a", tiny_network("llama"), name)) == "SmolLM2-135M-Instruct"


def test_without_peft_it_says_how_to_install_it(folders, monkeypatch):
    real = builtins.__import__

    def without_peft(name, *arguments, **options):
        if name == "peft":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    with pytest.raises(SteeringError, match="adapter: this is a LoRA adapter, which needs .*pip install peft"):
        load_model(folders[1])
    assert "pip install peft" in describe_model(folders[1]).problem


@pytest.mark.parametrize("config", ["{", "[" * 100_000, "[]", "{}", json.dumps({"base_model_name_or_path": 3})])
def test_a_damaged_adapter_is_refused(folders, config):
    (folders[1] / "adapter_config.json").write_text(config)
    with pytest.raises(SteeringError, match="adapter: adapter_config.json"):
        load_model(folders[1])
    assert "adapter_config.json" in describe_model(folders[1]).problem


def test_an_adapter_of_an_adapter_is_refused(folders):
    adapter = make_adapter(folders[1], tiny_network("llama"), str(folders[1]))  # of itself
    assert "names an adapter as its base" in describe_model(adapter).problem
    with pytest.raises(SteeringError, match="adapter: adapter_config.json names an adapter as its base"):
        load_model(adapter)


def test_a_base_that_is_not_there_is_named(tmp_path):
    adapter = make_adapter(tmp_path / "a", tiny_network("llama"), str(tmp_path / "gone"))
    assert "its base model cannot be used" in describe_model(adapter).problem
    with pytest.raises(SteeringError, match="there is no such folder"):
        load_model(adapter)
