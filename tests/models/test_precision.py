"""Half precision, quantised, GGUF and spread weights: all train and answer as the same weights in float32 do."""

import gc
import math
import sys

import gguf
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from gguf import GGMLQuantizationType as BlockType
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import steering
from steering.errors import SteeringError
from steering.models.loading import load_model, wrap_model
from steering.models.precision import logits_agree, named_weights
from steering.pairs.tokenization import encode_pairs
from steering.scoring.scorer import PairScorer
from tests.tiny_models import tiny_model, tokenizer, write_gguf

TOKENS = torch.tensor([[1, 40, 50, 60, 70]])


def one_sentence(error):
    text = str(error.value)
    return text.endswith(".") and "\n" not in text and len(text) < 600


def save(model, path):
    model.network.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture
def folder(tmp_path, tiny):
    return save(tiny, tmp_path / "tiny-llama")


def trained(model, pairs, **settings):
    """The vector, and the loss of every step."""
    losses = []

    def note(progress):
        if progress.loss is not None:
            losses.append(progress.loss)

    vector = steering.train(model, pairs, layer=1, epochs=3, holdout=0, on_progress=note, **settings)
    return vector.directions[1], losses


def logits(model):
    with torch.no_grad():
        return model.network(input_ids=TOKENS).logits


def answers(model, vector):
    columns = [{}, {vector: 2.0}, {vector: -2.0}]
    return [column.text for column in steering.generate(model, "Hello", columns=columns, max_new_tokens=8)]


def alike(one, other, tolerance=1e-4):
    return (one - other).norm() <= tolerance * other.norm()


# Half precision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
@pytest.mark.parametrize("word", ["bfloat16", "float16"])
def test_half_precision_trains_a_vector_in_full(word, fast, folder, tiny, pairs, monkeypatch):
    model = load_model(folder, dtype=word)
    assert {p.dtype for p in model.network.parameters()} == {getattr(torch, word)}
    optimisers = []

    class Watched(torch.optim.AdamW):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            optimisers.append(self)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    vector, losses = trained(model, pairs, fast=fast)
    (state,) = optimisers[0].state.values()
    assert {value.dtype for value in (*optimisers[0].param_groups[0]["params"], *state.values())} == {torch.float32}
    assert vector.dtype == torch.float32 and not torch.equal(vector, vector.to(getattr(torch, word)).float())
    wanted, wanted_losses = trained(tiny, pairs)
    assert losses == pytest.approx(wanted_losses, rel=0.15)
    assert torch.cosine_similarity(vector, wanted, dim=0) > 0.95


def test_a_type_of_numbers_in_words(folder, tmp_path, tiny):
    assert load_model(folder, dtype="float32").network.dtype == torch.float32
    half = save(load_model(folder, dtype="bfloat16"), tmp_path / "half")
    assert load_model(half, dtype="auto").network.dtype == torch.bfloat16  # the checkpoint's own
    assert load_model(half, device="cpu").network.dtype == torch.float32
    assert load_model(half).fingerprint == tiny.fingerprint


# Spread over devices -------------------------------------------------------------------------------------------------


def spread(blocks_on_disk, others_on_disk=()):
    parts = ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"]
    where = {part: "disk" if part in others_on_disk else "cpu" for part in parts}
    return where | {f"model.layers.{i}": "disk" if i in blocks_on_disk else "cpu" for i in range(4)}


MAPS = {
    "one device": ({"": "cpu"}, 0),
    "a word": ("auto", 0),
    "a block after the layer": (spread([2]), 9),
    "the layer's block": (spread([1]), 9),
    "all blocks": (spread(range(4)), 36),
    "embedding and head": (spread([], ["model.embed_tokens", "lm_head"]), 2),
    "everything": ({"": "disk"}, 39),
}


@pytest.mark.parametrize("device_map, on_disk", MAPS.values(), ids=MAPS)
def test_a_spread_model_is_the_same_model(device_map, on_disk, folder, tiny, pairs, no_hooks):
    model = load_model(folder, device_map=device_map)
    away = [name for name, parameter in model.network.named_parameters() if parameter.is_meta]
    assert len(away) == on_disk
    assert model.device == torch.device("cpu") and model.fingerprint == tiny.fingerprint
    assert torch.equal(logits(model), logits(tiny))
    scorer = PairScorer(model, encode_pairs(model, pairs)[1], 1)
    assert scorer.path == "fast"
    torch.set_num_threads(2)
    parts: list[list[int]] = []
    scorer.value_and_grad(
        [0, 1], {1: torch.zeros(model.hidden_size)}, lambda indices, logps, _: parts.append(indices) or logps.sum()
    )
    assert len(parts) == (1 if on_disk else 2)  # threads would fetch and drop each other's weights
    torch.set_num_threads(1)
    (vector, losses), (wanted, wanted_losses) = trained(model, pairs), trained(tiny, pairs)
    assert losses == pytest.approx(wanted_losses, rel=1e-5)
    assert alike(vector, wanted)
    direction = steering.SteeringVector({1: wanted}, name="v")
    assert answers(model, direction) == answers(tiny, direction)
    assert [name for name, parameter in model.network.named_parameters() if parameter.is_meta] == away
    assert no_hooks(model)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_tied_weights_on_disk_count_once(architecture, tmp_path):
    model = tiny_model(architecture, tie_word_embeddings=True)
    again = load_model(save(model, tmp_path / "tied"), device_map={"": "disk"})
    assert all(parameter.is_meta for parameter in again.network.parameters())
    assert again.fingerprint == model.fingerprint
    assert [name for name, _ in named_weights(again.network)] == [name for name, _ in model.network.named_parameters()]


def test_weights_that_are_converted_on_the_way_leave_nothing_behind(tmp_path, pairs, monkeypatch):
    """A mixture's experts are stored one by one and held as one: what goes to disk is written anew."""
    model = tiny_model("mixtral")
    path = save(model, tmp_path / "mixture")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    again = load_model(path, device_map=spread([2, 3]))
    assert list((tmp_path / "scratch").rglob("*.safetensors"))
    assert torch.equal(logits(again), logits(model)) and again.fingerprint == model.fingerprint
    assert alike(trained(again, pairs)[0], trained(model, pairs)[0])
    del again
    gc.collect()
    assert not list((tmp_path / "scratch").iterdir())


# Quantised -----------------------------------------------------------------------------------------------------------


def unpacked(model):
    """An ordinary float32 model with the very weights that the quantised one multiplies by."""
    full = tiny_model()
    for name, module in model.network.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        weight = module.weight
        if weight.dtype == torch.int8:
            weight = module.state.CB.float() * module.state.SCB[:, None] / 127
        elif weight.dtype == torch.uint8:
            weight = dequantize_4bit(weight, weight.quant_state)
        full.network.get_submodule(name).weight.data = weight.detach().float()
    return full


@pytest.mark.parametrize("bits, kind", [("8bit", torch.int8), ("4bit", torch.uint8)])
def test_quantised_weights_train_exactly(bits, kind, folder, tiny, pairs):
    model = load_model(folder, quantization=bits)
    assert all(
        module.weight.dtype == kind
        for block in model.blocks
        for module in block.modules()
        if isinstance(module, nn.Linear)
    )
    full = unpacked(model)
    assert not alike(logits(model), logits(tiny), 1e-3)
    assert alike(logits(model), logits(full))
    (vector, losses), (wanted, wanted_losses) = trained(model, pairs), trained(full, pairs)
    assert vector.dtype == torch.float32
    assert losses == pytest.approx(wanted_losses, rel=1e-4)
    assert alike(vector, wanted, 1e-3)
    plain, plain_losses = trained(model, pairs, fast=False)
    assert losses == pytest.approx(plain_losses, rel=1e-4)
    assert alike(vector, plain, 1e-3)
    direction = steering.SteeringVector({1: wanted}, name="v")
    assert answers(model, direction) == answers(full, direction)


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantised_models_are_trained_the_fast_way(bits, folder, pairs):
    model = load_model(folder, quantization=bits)
    assert PairScorer(model, encode_pairs(model, pairs)[1], 1).path == "fast"


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantised_and_half_precision(bits, folder, pairs):
    model = load_model(folder, quantization=bits, dtype="bfloat16")
    assert model.network.dtype == torch.bfloat16
    (vector, losses), (wanted, wanted_losses) = trained(model, pairs), trained(unpacked(model), pairs)
    assert vector.dtype == torch.float32
    assert losses == pytest.approx(wanted_losses, rel=0.15)
    assert torch.cosine_similarity(vector, wanted, dim=0) > 0.95


def test_fingerprints_of_quantised_models(folder, tmp_path, tiny):
    eight, four = load_model(folder, quantization="8bit"), load_model(folder, quantization="4bit")
    assert len({tiny.fingerprint, eight.fingerprint, four.fingerprint}) == 3
    assert load_model(folder, quantization="4bit").fingerprint == four.fingerprint
    changed = tiny_model()
    with torch.no_grad():  # held as whole numbers
        changed.blocks[2].mlp.up_proj.weight.copy_(changed.blocks[2].mlp.up_proj.weight.flip(0))
    other = save(changed, tmp_path / "other")
    assert load_model(other, quantization="8bit").fingerprint != eight.fingerprint


# GGUF ----------------------------------------------------------------------------------------------------------------


def test_a_gguf_file_is_a_model(tmp_path, tiny):
    model = load_model(write_gguf(tiny, tmp_path / "my-llama.F32.gguf", BlockType.F32))
    assert (model.name, model.source) == ("my-llama.F32", "my-llama.F32")
    assert model.fingerprint == tiny.fingerprint
    assert (model.context_length, model.stop_tokens, model.prompts.chat) == (512, {2}, True)
    assert model.tokenizer.encode("Hi<|im_end|> é") == tiny.tokenizer.encode("Hi<|im_end|> é")
    assert torch.equal(logits(model), logits(tiny))
    assert load_model(tmp_path / "my-llama.F32.gguf").name == "my-llama.F32"  # a Path will do too


@pytest.mark.parametrize("kind", [BlockType.Q8_0, BlockType.Q4_0], ids=lambda kind: kind.name)
def test_a_quantised_gguf_file_trains(kind, tmp_path, tiny, pairs):
    model = load_model(write_gguf(tiny, tmp_path / "tiny.gguf", kind))
    weight = tiny.blocks[2].mlp.up_proj.weight.numpy()
    stored = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(weight, kind), kind))
    assert torch.equal(model.blocks[2].mlp.up_proj.weight, stored)  # unpacked, nothing else
    (vector, losses), (plain, plain_losses) = trained(model, pairs), trained(model, pairs, fast=False)
    assert vector.dtype == torch.float32
    assert losses == pytest.approx(plain_losses, rel=1e-4)
    assert alike(vector, plain, 1e-3)
    assert losses[-1] < losses[0]
    half = load_model(tmp_path / "tiny.gguf", dtype="bfloat16", device_map={"": "cpu"})
    assert half.network.dtype == torch.bfloat16 and half.fingerprint == model.fingerprint


# What cannot be ------------------------------------------------------------------------------------------------------


WRONG = {
    "dtype": ({"dtype": "float8"}, "dtype 'float8'; choose one of: float32, bfloat16, float16, auto"),
    "dtype of whole numbers": ({"dtype": torch.int8}, "cannot be loaded"),
    "device map": ({"device_map": "cuda:0"}, "device map 'cuda:0'; choose one of: auto, balanced"),
    "quantization": ({"quantization": "2bit"}, "quantization '2bit'; choose one of: 8bit, 4bit"),
    "device and map": ({"device": "cpu", "device_map": "auto"}, "the one or the other"),
    "a device that is not there": ({"device": "potato"}, "cannot be loaded"),
    "a device in the map that is not there": ({"device_map": {"": "potato"}}, "cannot be loaded"),
    "quantised on disk": ({"quantization": "8bit", "device_map": {"": "disk"}}, "without 'disk'"),
    "parts twice": ({"device_map": {"": "cpu", "model.layers.1": "disk"}}, "name every part of the model once"),
    "a part forgotten": ({"device_map": {"model.layers": "cpu", "lm_head": "disk"}}, "name every part of the model"),
}


@pytest.mark.parametrize("options, said", WRONG.values(), ids=WRONG)
def test_wrong_options_are_reported_in_one_sentence(options, said, folder):
    with pytest.raises(SteeringError) as error:
        load_model(folder, **options)
    assert said in str(error.value) and one_sentence(error)


@pytest.mark.parametrize("disk", ["model.embed_tokens", "lm_head"])
def test_tied_weights_in_two_places_are_reported(disk, tmp_path):
    path = save(tiny_model(tie_word_embeddings=True), tmp_path / "tied")
    with pytest.raises(SteeringError, match="tied weights in one place") as error:
        load_model(path, device_map=spread([], [disk]))
    assert one_sentence(error)


def test_bitsandbytes_missing_is_reported(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(SteeringError, match="pip install bitsandbytes") as error:
        load_model(folder, quantization="4bit")
    assert one_sentence(error)


GGUF_WRONG = {
    "disk": ({"device_map": {"": "disk"}}, "without 'disk'"),
    "quantised again": ({"quantization": "8bit"}, "its own quantization"),
}


@pytest.mark.parametrize("options, said", GGUF_WRONG.values(), ids=GGUF_WRONG)
def test_what_a_gguf_file_cannot_be(options, said, tmp_path, tiny):
    with pytest.raises(SteeringError, match=said) as error:
        load_model(write_gguf(tiny, tmp_path / "tiny.gguf", BlockType.F32), **options)
    assert one_sentence(error)


@pytest.mark.parametrize("spoil", ["missing", "empty", "garbage", "cut short", "a folder"])
def test_a_spoiled_gguf_file_is_reported(spoil, tmp_path, tiny):
    path = write_gguf(tiny, tmp_path / "tiny.gguf", BlockType.F32)
    content = path.read_bytes()
    path.unlink()
    if spoil == "a folder":
        path.mkdir()
    elif spoil != "missing":
        path.write_bytes({"empty": b"", "garbage": b"GGUF" + b"\xff" * 99, "cut short": content[:20_000]}[spoil])
    with pytest.raises(SteeringError, match="cannot be loaded") as error:
        load_model(path)
    assert repr(str(path)) in str(error.value) and one_sentence(error)
    assert spoil not in ("missing", "a folder") or "there is no such file" in str(error.value)


def test_memory_running_out_on_the_first_pass_is_reported(folder, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("steering.models.loading.find_blocks", full)
    with pytest.raises(SteeringError, match="out of memory") as error:
        load_model(folder)
    assert one_sentence(error)


def test_a_quantised_model_loaded_elsewhere_can_be_wrapped(folder, pairs):
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    network = AutoModelForCausalLM.from_pretrained(folder, quantization_config=settings, dtype=torch.float32)
    wrapped = wrap_model(network, tokenizer(), name="mine")
    wanted = load_model(folder, quantization="4bit")
    assert alike(trained(wrapped, pairs)[0], trained(wanted, pairs)[0])


@pytest.mark.parametrize(
    ("dtype", "rounding", "fault"),
    [(torch.float32, 2e-5, 0.7), (torch.bfloat16, 0.23, 0.7), (torch.float16, 0.02, 0.7), (torch.float64, 1e-9, 0.7)],
)
def test_logits_that_differ_by_rounding_agree_and_others_do_not(dtype, rounding, fault):
    want = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    nudge = torch.zeros(3, 50)
    nudge[1, 7] = want.std()
    assert logits_agree(want + rounding * nudge, want, dtype)
    assert not logits_agree(want + fault * nudge, want, dtype)
    assert not logits_agree(want * math.nan, want, dtype)
    assert not logits_agree(want[:2], want, dtype)
