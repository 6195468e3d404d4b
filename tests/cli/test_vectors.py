"""`steering list`, `show`, `import` and `export`."""

from pathlib import Path

import pytest
import torch

from steering.vectors.library import Library
from steering.vectors.vector import SteeringVector


def test_import_list_show_export(steering, vector_file, tmp_path):
    answer = steering("import", vector_file, "--name", "Very bold", "--json").answer
    assert (answer["name"], answer["slug"]) == ("Very bold", "very-bold")
    assert list(answer) == ["name", "slug", "path"] and Path(answer["path"]).is_file()

    listed = steering("list", "--json").answer["vectors"]
    mine = listed[-1]
    assert (mine["slug"], mine["shipped"], mine["layers"]) == ("very-bold", False, [1])
    assert mine.keys() == {"name", "slug", "path", "shipped", "behavior", "model", "layers", "norm"}
    assert all(entry["shipped"] for entry in listed[:-1])
    assert steering("list").out.splitlines()[-1] == "very-bold"

    shown = steering("show", "VERY BOLD", "--json").answer
    assert (shown["name"], shown["hidden_size"], shown["layers"]) == ("Very bold", 32, [1])
    assert "name: Very bold\n" in steering("show", "very-bold").out

    exported = tmp_path / "out" / "copy.safetensors"
    answer = steering("export", "very-bold", "--output", exported, "--json").answer
    assert answer == {"path": str(exported), "format": "safetensors"}
    original, copy = SteeringVector.load(vector_file), SteeringVector.load(exported)
    assert torch.equal(original.directions[1], copy.directions[1])


def test_a_taken_name_gets_a_number(steering, vector_file):
    assert steering("import", vector_file).out == f"{vector_file} is on the shelf as bold.\n"
    assert steering("import", vector_file).out == f"{vector_file} is on the shelf as bold-2.\n"


@pytest.mark.parametrize(
    ("name", "options", "layer"), [("vec_ep9_layer3.pt", [], 3), ("v.pt", ["--layer", 2], 2), ("v_layer3.pth", [], 3)]
)
def test_files_of_the_bipo_authors_are_imported(steering, tmp_path, name, options, layer):
    torch.save(torch.ones(32), tmp_path / name)
    slug = steering("import", tmp_path / name, *options, "--json").answer["slug"]
    assert Library().get(slug).layers == (layer,)


def test_an_unreadable_file_is_told_and_the_others_listed(steering, own_shelf, vector_file):
    steering("import", vector_file)
    (own_shelf / "vectors" / "broken.safetensors").write_bytes(b"nonsense")
    done = steering("list", "--json")
    assert "bold" in [entry["slug"] for entry in done.answer["vectors"]]
    assert done.err.startswith("broken.safetensors: ") and done.err.count("\n") == 1
