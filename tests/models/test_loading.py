"""Loading a model, finding its blocks, refusing what cannot be steered, telling one model from another."""

import json
import shutil
import warnings

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from steering.errors import SteeringError
from steering.models.blocks import find_blocks
from steering.models.loading import load_model, wrap_model
from tests.tiny_models import ARCHITECTURES, HIDDEN, LAYERS, tiny_model, tiny_network, tokenizer

PATHS = {
    **dict.fromkeys(ARCHITECTURES, "model.layers"),
    **dict.fromkeys(["gpt2", "gpt_neo", "falcon", "bloom"], "transformer.h"),
    "gpt_neox": "gpt_neox.layers",
    "opt": "model.decoder.layers",
    "mpt": "transformer.blocks",
    "mamba": "backbone.layers",
    "gemma3": "model.language_model.layers",
}
BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
}


def one_sentence(error):
    text = str(error.value)
    return text.endswith(".") and "\n" not in text and len(text) < 600


# Blocks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture, path", PATHS.items())
def test_the_blocks_of_every_architecture_are_found(architecture, path, no_hooks):
    model = tiny_model(architecture)
    assert (model.blocks_path, model.num_layers, model.hidden_size) == (path, LAYERS, HIDDEN)
    assert model.blocks is model.network.get_submodule(path)
    unlimited = {"bloom": None, "mamba": None, "falcon": 2048}
    assert model.context_length == unlimited.get(architecture, 512)
    assert no_hooks(model)
    assert not model.network.training and not any(p.requires_grad for p in model.network.parameters())


def test_one_block_is_enough():
    assert tiny_model(num_hidden_layers=1).num_layers == 1


def test_an_encoder_decoder_model_is_refused():
    network = tiny_network("t5", d_model=32, d_ff=64, num_layers=2, num_heads=4, d_kv=8)
    with pytest.raises(SteeringError, match="encoder-decoder") as error:
        wrap_model(network, tokenizer(), name="tiny-t5")
    assert "tiny-t5" in str(error.value) and one_sentence(error)


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_a_model_that_reads_both_ways_is_refused(architecture):
    network = tiny_network(architecture, is_decoder=False, **BERT)
    with pytest.raises(SteeringError, match="see later ones") as error:
        wrap_model(network, tokenizer(), name="tiny-bert")
    assert one_sentence(error)


def test_a_model_that_reads_both_ways_is_noticed_even_with_faint_weights():
    network = tiny_network("bert", is_decoder=False, **BERT).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.02)
    with pytest.raises(SteeringError, match="see later ones"):
        find_blocks(network)


def test_bert_as_a_decoder_is_steerable():
    network = tiny_network("bert", is_decoder=True, **BERT)
    assert wrap_model(network, tokenizer(), name="tiny-bert").blocks_path == "bert.encoder.layer"


class NoBlocks(nn.Module):
    """A causal model whose layers do not hand one residual stream on."""

    def __init__(self, network):
        super().__init__()
        self.config, self.embedding, self.head = network.config, nn.Embedding(260, 32), nn.Linear(32, 260)
        self.parts = nn.ModuleList([nn.Linear(32, 32), nn.Linear(32, 32)])

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, use_cache):
        embedded = self.embedding(input_ids)
        logits = self.head(sum(part(embedded) for part in self.parts))
        return type("Output", (), {"logits": logits})


def test_a_model_without_a_residual_stream_is_refused():
    with pytest.raises(SteeringError, match="no list of decoder blocks") as error:
        find_blocks(NoBlocks(tiny_network("llama")), "odd")
    assert one_sentence(error)


def test_no_hook_is_left_when_the_probe_fails(monkeypatch):
    network = tiny_network("llama")

    def broken(*args, **kwargs):
        raise RuntimeError

    monkeypatch.setattr(network.lm_head, "forward", broken)
    with pytest.raises(RuntimeError):
        find_blocks(network)
    assert not any(module._forward_hooks for module in network.modules())  # noqa: SLF001 - torch shows hooks nowhere else


def test_layers_are_checked(tiny):
    assert tiny.check_layer(0) == 0 and tiny.check_layer(3) == 3
    for layer in (-1, 4, 1.5, "2", None):
        with pytest.raises(SteeringError, match="from 0 to 3"):
            tiny.check_layer(layer)


def test_stop_tokens_are_all_that_may_end_an_answer(tiny):
    assert tiny.stop_tokens == {2}
    model = tiny_model()
    model.network.generation_config.eos_token_id = [5, 6]
    assert model.stop_tokens == {2, 5, 6}
    model.network.generation_config.eos_token_id = None
    assert model.stop_tokens == {2}


# Folders -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    model = tiny_model()
    path = tmp_path / "my-llama"
    model.network.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    return path


def test_a_model_comes_back_from_its_folder(folder, tiny):
    model = load_model(str(folder))
    assert (model.name, model.source) == ("my-llama", "my-llama")  # the path is nobody's business
    assert model.fingerprint == tiny.fingerprint
    assert model.prompts.chat and model.prompts.end_of_turn == 2
    tokens = torch.tensor([[1, 40, 50]])
    with torch.no_grad():
        assert torch.equal(model.network(input_ids=tokens).logits, tiny.network(input_ids=tokens).logits)
    assert load_model(folder).fingerprint == tiny.fingerprint  # a Path will do too


def test_half_precision_on_request_has_the_same_fingerprint(folder, tiny):
    model = load_model(str(folder), dtype=torch.bfloat16)
    assert model.network.dtype == torch.bfloat16 and model.fingerprint == tiny.fingerprint


def test_other_weights_have_another_fingerprint(tiny):
    assert tiny_model(seed=0).fingerprint == tiny.fingerprint
    assert tiny_model(seed=1).fingerprint != tiny.fingerprint
    assert tiny_model("mistral").fingerprint != tiny.fingerprint  # the same weights in another architecture
    changed = tiny_model()
    with torch.no_grad():
        changed.network.lm_head.weight.mul_(1.05)
    assert wrap_model(changed.network, changed.tokenizer, name="x").fingerprint != tiny.fingerprint


def test_a_model_that_is_one_part_of_a_larger_one(tmp_path):
    model = tiny_model("gemma3")
    model.network.save_pretrained(tmp_path / "m")
    model.tokenizer.save_pretrained(tmp_path / "m")
    again = load_model(str(tmp_path / "m"))
    assert again.fingerprint == model.fingerprint
    assert (again.blocks_path, again.context_length) == ("model.language_model.layers", 512)


def edit(name, change):
    def spoil(folder):
        settings = json.loads((folder / name).read_text())
        settings.update(change)
        (folder / name).write_text(json.dumps(settings))

    return spoil


def write(name, content):
    return lambda folder: (folder / name).write_text(content)


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def cut_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


SPOILED = {
    "no folder": (shutil.rmtree, "there is no such folder"),
    "empty folder": (lambda folder: [file.unlink() for file in folder.iterdir()], "cannot be loaded"),
    "no config": (remove("config.json"), "cannot be loaded"),
    "config is garbage": (write("config.json", "\x00garbage"), "cannot be loaded"),
    "config is a list": (write("config.json", "[1, 2]"), "cannot be loaded"),
    "config of nothing known": (edit("config.json", {"model_type": "nope"}), "cannot be loaded"),
    "config does not fit the weights": (edit("config.json", {"intermediate_size": 48}), "cannot be loaded"),
    "weights are missing for two layers": (edit("config.json", {"num_hidden_layers": 6}), "lacks model.layers.4"),
    "no tokenizer": (remove("tokenizer.json", "tokenizer_config.json"), "tokenizer"),
    "tokenizer is garbage": (write("tokenizer.json", "garbage"), "cannot be loaded"),
    "tokenizer is something else": (write("tokenizer.json", '{"version": "1.0", "model": 3}'), "cannot be loaded"),
    "weights are cut short": (cut_weights, "cannot be loaded"),
    "no weights": (remove("model.safetensors"), "cannot be loaded"),
    "template is no template": (write("chat_template.jinja", "{% for %}"), "chat template"),
    "template refuses all": (write("chat_template.jinja", "{{ raise_exception('no') }}"), "chat template"),
    "template fails": (write("chat_template.jinja", "{{ messages[0]['content'] + 1 }}"), "chat template"),
}


@pytest.mark.parametrize("spoil, said", SPOILED.values(), ids=SPOILED)
def test_a_spoiled_folder_is_reported_in_one_sentence(spoil, said, folder):
    spoil(folder)
    with pytest.raises(SteeringError, match=said) as error:
        load_model(str(folder))
    assert one_sentence(error)


@pytest.mark.parametrize("name", ["nobody/nothing", "not a model!!", "~/nothing/here", "./nothing", "/nothing/here"])
def test_a_name_that_is_no_model(name):
    with pytest.raises(SteeringError, match="cannot be loaded") as error:
        load_model(name)
    assert repr(name) in str(error.value) and "--model" in str(error.value) and one_sentence(error)


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "weights.bin").write_text("x")
    with pytest.raises(SteeringError, match="cannot be loaded") as error:
        load_model(str(tmp_path / "weights.bin"))
    assert one_sentence(error)


def test_a_device_that_is_not_there(folder):
    with pytest.raises(SteeringError, match="cannot be loaded") as error:
        load_model(str(folder), device="potato")
    assert one_sentence(error)


def test_running_out_of_memory_is_reported(folder, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(SteeringError, match="out of memory") as error:
        load_model(str(folder))
    assert one_sentence(error)


def test_loading_prints_no_deprecation_warning(folder, monkeypatch, capfd):
    original = AutoModelForCausalLM.from_pretrained

    def warning(*args, **options):
        warnings.warn("`torch_dtype` is deprecated! Use `dtype` instead!", FutureWarning, stacklevel=2)
        transformers_logging.get_logger("transformers").warning("`torch_dtype` is deprecated!")
        return original(*args, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", warning)
    before = transformers_logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(folder)
    assert "deprecated" not in "".join(capfd.readouterr())
    assert transformers_logging.get_verbosity() == before
