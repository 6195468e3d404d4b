"""Reading and writing vector files of any kind."""

import pytest
import torch

from steering.errors import SteeringError
from steering.vectors.formats import EXPORT_FORMATS, read_any, write
from steering.vectors.vector import SteeringVector


def test_the_suffix_decides(tmp_path):
    made = SteeringVector({2: torch.ones(3)}, name="formal")
    path = made.save(tmp_path / "a.safetensors")
    assert read_any(str(path)).name == "formal"
    assert read_any(path.rename(tmp_path / "a.SAFETENSORS"), name="mine").name == "mine"
    torch.save(torch.ones(3), tmp_path / "b.PT")
    assert read_any(tmp_path / "b.PT", layer=4).layers == (4,)


def test_a_nameless_file_is_called_by_its_file_name(tmp_path):
    path = SteeringVector({2: torch.ones(3)}).save(tmp_path / "plain.safetensors")
    assert read_any(path).name == "plain"


def test_a_layer_that_the_file_contradicts(tmp_path):
    path = SteeringVector({2: torch.ones(3)}).save(tmp_path / "a.safetensors")
    assert read_any(path, layer=2).layers == (2,)
    with pytest.raises(
        SteeringError, match="a.safetensors: the file itself says that it steers layer 2; leave the layer"
    ):
        read_any(path, layer=3)


@pytest.mark.parametrize("name", ["a.bin", "a", ".safetensors", "a.csv"])
def test_other_kinds_of_files(tmp_path, name):
    (tmp_path / name).write_bytes(b"1")
    with pytest.raises(SteeringError, match="this kind of file; a vector file ends in one of .safetensors, .pt, .pth"):
        read_any(tmp_path / name)


def test_no_such_file(tmp_path):
    with pytest.raises(SteeringError, match="a.safetensors: there is no such file"):
        read_any(tmp_path / "a.safetensors")


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_what_is_written_can_be_read(tmp_path, format):
    path = write(SteeringVector({2: torch.ones(3)}, name="formal"), tmp_path / f"a.{format}", format)
    assert read_any(path).directions[2].tolist() == [1.0, 1.0, 1.0]


def test_an_unknown_format(tmp_path):
    with pytest.raises(SteeringError, match="There is no format 'gguf2'; choose one of: safetensors"):
        write(SteeringVector({2: torch.ones(3)}), tmp_path / "a.gguf", "gguf2")
