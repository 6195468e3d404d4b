"""The BiPO authors' `.pt` files, and files that only pretend to be one."""

import contextlib
import io
import os
import pickle
import struct
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steering.errors import SteeringError
from steering.vectors.formats.bipo_pt import MAX_BYTES, read_bipo

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")


@pytest.fixture
def saved(tmp_path):
    """Path of a file that `torch.save` wrote."""

    def save(content, name="vec_ep20_layer15.pt", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save


def contents(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


class Bomb:
    """Runs a command when it is unpickled the careless way."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_bare_tensor_is_read(saved, zipped, dtype):
    made = read_bipo(saved(torch.tensor([0.5, -2.0], dtype=dtype), _use_new_zipfile_serialization=zipped))
    assert made.layers == (15,) and made.name == "vec_ep20_layer15"
    assert made.directions[15].dtype == torch.float32 and made.directions[15].tolist() == [0.5, -2.0]
    assert made.method == {"name": "bipo", "imported_from": "vec_ep20_layer15.pt"}
    assert made.default_multiplier == 1.0


def test_a_parameter_and_a_slice_are_read(saved):
    assert read_bipo(saved(torch.nn.Parameter(torch.ones(2)))).directions[15].tolist() == [1.0, 1.0]
    assert read_bipo(saved(torch.arange(6.0)[::3])).directions[15].tolist() == [0.0, 3.0]


@pytest.mark.parametrize(
    ("name", "layer"),
    [("vec_ep1_layer0.pt", 0), ("Layer3_layer13.pt", 13), ("a-layer-7.pth", 7), ("layer_9_mean.pt", 9)],
)
def test_the_layer_stands_in_the_file_name(saved, name, layer):
    assert read_bipo(saved(torch.ones(2), name)).layers == (layer,)


def test_what_is_given_goes_first(saved):
    made = read_bipo(saved(torch.ones(2)), layer=3, name="wealth")
    assert made.layers == (3,) and made.name == "wealth"


@pytest.mark.parametrize("name", ["vector.pt", "layer.pt", "layer123456.pt"])
def test_without_a_layer_it_is_asked_for(saved, name):
    with pytest.raises(SteeringError, match=f"{name}: the file does not say which layer it steers; give the layer."):
        read_bipo(saved(torch.ones(2), name))


@pytest.mark.parametrize("layer", [-1, 10_000])
def test_a_layer_that_cannot_be(saved, layer):
    with pytest.raises(SteeringError, match=f"layer15.pt: Layer {layer} does not exist"):
        read_bipo(saved(torch.ones(2)), layer=layer)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"direction": torch.ones(2)}, "holds a (dict|OrderedDict)"),
        ([torch.ones(2)], "holds a list"),
        (3.5, "holds a float"),
        (torch.ones(2, 2), r"holds a tensor \[2, 2\] of float32"),
        (torch.tensor(1.0), r"holds a tensor \[\] of float32"),
        (torch.ones(0), r"\[0\] of float32"),
        (torch.ones(2, dtype=torch.int64), "of int64"),
        (torch.ones(2, dtype=torch.complex64), "of complex64"),
        (torch.ones(2).to_sparse(), "holds a tensor"),
        (torch.ones(2, device="meta"), "holds a tensor"),
        (torch.tensor([1.0, float("nan")]), "not finite"),
        (torch.ones(1).expand(10**12), "holds a tensor"),  # stride 0: a few bytes that ask for four terabytes
    ],
)
def test_other_contents_are_refused(saved, content, message):
    with pytest.raises(SteeringError, match=f"layer15.pt: .*{message}"):
        read_bipo(saved(content))


@pytest.mark.filterwarnings("ignore:.*nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_a_nested_tensor_is_refused(saved, layout):
    with pytest.raises(SteeringError, match="layer15.pt: holds a nested tensor; a BiPO vector file is one bare tensor"):
        read_bipo(saved(torch.nested.nested_tensor([torch.ones(2)], layout=layout)))


@pytest.mark.parametrize("wrapped", [lambda bomb: bomb, lambda bomb: {"v": bomb}, lambda bomb: [torch.ones(2), bomb]])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_does_not_run(saved, tmp_path, monkeypatch, wrapped, zipped):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # a careless setting elsewhere must not matter
    trace = tmp_path / "it-ran"
    path = saved(wrapped(Bomb(f"echo > '{trace}'")), _use_new_zipfile_serialization=zipped)
    with pytest.raises(SteeringError, match=r"holds more than a plain tensor \(such as code\), so nothing was run"):
        read_bipo(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Bomb(f"echo > '{trace}'")))
    assert trace.exists()  # so the bomb was a real one


def test_a_plain_pickle_does_not_run(tmp_path):
    trace = tmp_path / "it-ran"
    path = tmp_path / "layer1.pt"
    path.write_bytes(pickle.dumps(Bomb(f"echo > '{trace}'")))
    with pytest.raises(SteeringError, match="layer1.pt: "):
        read_bipo(path)
    assert not trace.exists()


def test_a_large_file_is_refused(tmp_path):
    path = tmp_path / "layer1.pt"
    with path.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(SteeringError, match="layer1.pt: larger than 2 MB, so it is no single direction"):
        read_bipo(path)


def test_a_zip_bomb_is_refused(tmp_path):
    path = tmp_path / "layer1.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"]" * (MAX_BYTES + 1))
    assert path.stat().st_size < 10_000
    with pytest.raises(SteeringError, match="larger than 2 MB"):
        read_bipo(path)


def test_a_zip_that_lies_about_its_size_is_refused(tmp_path):
    path = tmp_path / "layer1.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"]" * 5_000_000)
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 5_000_000), struct.pack("<I", 100)))
    with pytest.raises(SteeringError, match="layer1.pt: "):
        read_bipo(path)


def test_no_such_file(tmp_path):
    with pytest.raises(SteeringError, match="layer1.pt: there is no such file"):
        read_bipo(tmp_path / "layer1.pt")


SOUND = contents(torch.arange(8.0))


@settings(max_examples=100)
@given(data=st.binary(max_size=100) | st.integers(0, len(SOUND) - 1).map(lambda length: SOUND[:length]))
def test_rubbish_and_truncated_files_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("rubbish") / "layer1.pt"
    path.write_bytes(data)
    with pytest.raises(SteeringError, match="layer1.pt: "):
        read_bipo(path)


@settings(max_examples=100)
@given(position=st.integers(0, len(SOUND) - 1), byte=st.integers(0, 255))
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, position, byte):
    path = tmp_path_factory.mktemp("damaged") / "layer1.pt"
    path.write_bytes(SOUND[:position] + bytes([byte]) + SOUND[position + 1 :])
    with contextlib.suppress(SteeringError):
        assert read_bipo(path).layers == (1,)
