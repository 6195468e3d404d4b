"""The shelf: what is on it, and that adding, deleting and undoing never lose or overwrite a vector."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import steering
from steering.errors import SteeringError
from steering.vectors.library import MOST_DELETED, Library
from steering.vectors.vector import SteeringVector


def vector(name="", value=1.0):
    return SteeringVector({1: torch.tensor([value, 2.0])}, name=name)


@pytest.fixture
def library(tmp_path):
    shipped = tmp_path / "shipped"
    vector("Cheerful").save(shipped / "cheerful.safetensors")
    vector("Angry").save(shipped / "angry.safetensors")
    return Library(tmp_path / "own", shipped)


def slugs(library):
    return [entry.slug for entry in library.entries()]


def files(folder):
    return sorted(path.name for path in folder.glob("*.safetensors"))


# Looking -------------------------------------------------------------------------------------------------------------


def test_the_default_folders(own_shelf):
    library = Library()
    assert library.own == own_shelf / "vectors"
    assert all(entry.shipped for entry in library.entries())
    assert library.problems == []


def test_folders_that_are_not_there(tmp_path):
    library = Library(tmp_path / "none", tmp_path / "neither")
    assert library.entries() == []
    with pytest.raises(SteeringError, match="There is no vector 'x' on the shelf; it is empty."):
        library.get("x")
    assert not (tmp_path / "none").exists()


def test_shipped_ones_come_first_each_part_by_name(library):
    library.add(vector("zebra"))
    library.add(vector("Aardvark"))
    assert slugs(library) == ["angry", "cheerful", "aardvark", "zebra"]
    assert [entry.shipped for entry in library.entries()] == [True, True, False, False]
    assert all(entry.path.is_file() and entry.path.stem == entry.slug for entry in library.entries())


def test_an_unchanged_file_gives_the_same_object(library):
    entry = library.add(vector("formal"))
    before = library.get("formal")
    assert entry.vector is before
    assert [e.vector for e in library.entries()][-1] is before
    assert library.get(str(entry.path)) is before
    vector("formal", value=5.0).save(entry.path)
    after = library.get("formal")
    assert after is not before and after.directions[1].tolist() == [5.0, 2.0]


def test_a_changed_file_is_noticed_even_at_the_same_time_and_size(library):
    entry = library.add(vector("formal"))
    status = entry.path.stat()
    changed = entry.vector * 2
    changed.name, changed.method = "formal", {}
    changed.save(entry.path)
    os.utime(entry.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert library.get("formal").directions[1].tolist() == [2.0, 4.0]


def test_an_unreadable_file_is_left_out_and_reported(library):
    library.add(vector("good"))
    (library.own / "bad.safetensors").write_bytes(b"rubbish")
    (library.own / "notes.txt").write_text("not a vector")
    (library.own / ".hidden.safetensors").write_bytes(b"")
    assert slugs(library) == ["angry", "cheerful", "good"]
    assert len(library.problems) == 1 and library.problems[0].startswith("bad.safetensors: not a safetensors file")
    with pytest.raises(SteeringError, match="bad.safetensors: not a safetensors file"):
        library.get("bad")
    library.delete("bad")
    library.entries()
    assert library.problems == []


def test_an_own_file_hides_a_shipped_one(library):
    vector("Cheerful, mine").save(library.own / "cheerful.safetensors")
    assert slugs(library) == ["angry", "cheerful"]
    assert library.get("cheerful").name == "Cheerful, mine"
    library.delete("cheerful")
    assert library.get("cheerful").name == "Cheerful"


# Finding -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["cheerful", "Cheerful", "CHEERFUL", "  cheerful "])
def test_a_vector_is_found_by_slug_and_name(library, wanted):
    assert library.get(wanted).name == "Cheerful"


def test_a_name_with_a_slash_is_a_name(library):
    library.add(vector("love/hate"))
    assert library.get("Love/Hate").name == "love/hate"


def test_an_entry_is_looked_up_by_its_slug_without_listing_the_folders(library, monkeypatch):
    library.add(vector("zebra"))
    listed = {entry.slug: entry for entry in library.entries()}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", lambda *_: pytest.fail("listed a folder"))
        assert library.entry("cheerful") == listed["cheerful"] and library.entry("cheerful").shipped
        assert library.entry("zebra").vector is listed["zebra"].vector and not library.entry("zebra").shipped
        assert library.get("zebra") is listed["zebra"].vector
        assert library.setting({"zebra": 1.5}) == {listed["zebra"].vector: 1.5}


def test_a_look_up_by_slug_sees_what_changed_on_disk(library):
    library.entries()
    with pytest.raises(SteeringError, match="There is no vector 'late' on the shelf"):
        library.entry("late")
    vector("Late", 1.0).save(library.own / "late.safetensors")
    assert library.entry("late").vector.directions[1][0] == 1.0
    vector("Late", 22.0).save(library.own / "late.safetensors")
    assert library.entry("late").vector.directions[1][0] == 22.0
    vector("Mine", 7.0).save(library.own / "cheerful.safetensors")  # hides the shipped one
    assert library.entry("cheerful").vector.name == library.get("cheerful").name == "Mine"
    (library.own / "cheerful.safetensors").unlink()
    assert library.entry("cheerful").vector.name == library.get("cheerful").name == "Cheerful"
    (library.own / "late.safetensors").write_bytes(b"1")
    with pytest.raises(SteeringError, match="late.safetensors: not a safetensors file"):
        library.entry("late")


@pytest.mark.parametrize("slug", ["", "..", "../secret", "secret/../cheerful", "/etc/passwd", "x\0y"])
def test_a_slug_from_outside_never_leaves_the_shelf(library, tmp_path, slug):
    vector("secret").save(tmp_path / "secret.safetensors")
    with pytest.raises(SteeringError, match="There is no vector"):
        library.entry(slug)


def test_those_that_fit_a_model(library):
    SteeringVector({1: torch.ones(3)}, name="wide").save(library.own / "wide.safetensors")
    SteeringVector({5: torch.ones(2)}, name="deep").save(library.own / "deep.safetensors")
    assert [entry.slug for entry in library.fitting(2, 2)] == ["angry", "cheerful"]
    assert [entry.slug for entry in library.fitting(2, 6)] == ["angry", "cheerful", "deep"]
    assert [entry.slug for entry in library.fitting(3, 2)] == ["wide"]


def test_a_setting_of_slugs(library):
    setting = library.setting({"cheerful": 1.5, "angry": -1.0})
    assert {v.name: multiplier for v, multiplier in setting.items()} == {"Cheerful": 1.5, "Angry": -1.0}
    assert library.setting({}) == {}
    with pytest.raises(SteeringError, match="The vector 'gone' is no longer on the shelf; reload the page."):
        library.setting({"cheerful": 1.0, "gone": 1.0})


def test_a_file_is_found_by_its_path(library, tmp_path, monkeypatch):
    path = vector("elsewhere").save(tmp_path / "files" / "e.safetensors")
    torch.save(torch.ones(2), tmp_path / "files" / "layer3.pt")
    monkeypatch.chdir(tmp_path / "files")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert library.get(str(path)).name == "elsewhere"
    assert library.get("e.safetensors") is library.get("./e.safetensors") is library.get("~/files/e.safetensors")
    assert library.get("layer3.pt").layers == (3,)


@pytest.mark.parametrize(
    "wanted",
    ["none.safetensors", "../none", "/etc/passwd", "a\0b.pt", "", ".", "x" * 5000, "x" * 5000 + ".pt", "~no/one"],
)
def test_what_is_not_there_is_reported_in_one_sentence(library, wanted):
    with pytest.raises(SteeringError) as caught:
        library.get(wanted)
    assert len(str(caught.value)) < 300


def test_the_message_says_what_there_is(library):
    with pytest.raises(SteeringError) as caught:
        library.get("cheerfull")
    assert str(caught.value) == (
        "There is no vector 'cheerfull' on the shelf (did you mean 'cheerful'?); there are: angry, cheerful."
    )


def test_requests_from_outside_cannot_reach_files(library, tmp_path):
    path = vector("secret").save(tmp_path / "secret.safetensors")
    for wanted in (str(path), "../secret.safetensors", "../secret"):
        with pytest.raises(SteeringError, match="There is no vector"):
            library.get(wanted, files=False)


# Adding --------------------------------------------------------------------------------------------------------------


def test_adding_keeps_everything_and_leaves_the_original_alone(library):
    made = vector("Cheerful")
    made.extra["colour"] = "red"
    entry = library.add(made)
    assert entry.vector.name == "Cheerful 2" and entry.slug == "cheerful-2" and not entry.shipped
    assert entry.vector.extra == {"colour": "red"} and entry.vector.created == made.created
    assert torch.equal(entry.vector.directions[1], made.directions[1])
    assert made.name == "Cheerful"


def test_a_taken_name_gets_a_number(library):
    assert [library.add(vector("Formal", i)).vector.name for i in range(3)] == ["Formal", "Formal 2", "Formal 3"]
    assert library.add(vector("formal!")).slug == "formal-4"
    assert [library.get(f"formal-{i}").directions[1][0].item() for i in (2, 3)] == [1.0, 2.0]


@pytest.mark.parametrize(
    "name", ["", "../../x", "CON", "a" * 500, "快乐", "👩\u200d🚀", "a" * 59 + " b", ".hidden", "\x00\n"]
)
def test_any_name_can_be_added_many_times(library, name):
    entries = [library.add(vector(name)) for _ in range(12)]
    assert len({entry.slug for entry in entries}) == len({entry.vector.name for entry in entries}) == 12
    assert len(files(library.own)) == 12 and all(entry.path.parent == library.own for entry in entries)
    for entry in entries:
        assert library.get(entry.slug) is library.get(entry.vector.name) is entry.vector
        assert len(entry.slug) <= 60 and len(entry.vector.name) <= 80


def test_names_in_other_scripts_do_not_collide(library):
    assert [library.add(vector(name)).vector.name for name in ("快乐", "悲伤", "🙂")] == ["快乐", "悲伤", "🙂"]


def test_a_broken_file_is_not_overwritten(library):
    library.own.mkdir()
    (library.own / "formal.safetensors").write_bytes(b"precious")
    assert library.add(vector("formal")).slug == "formal-2"
    assert (library.own / "formal.safetensors").read_bytes() == b"precious"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    library = Library(tmp_path / "file" / "own", tmp_path / "none")
    with pytest.raises(SteeringError, match="cannot be changed .*; set STEERING_DATA_DIR"):
        library.add(vector("formal"))


def test_a_failed_save_leaves_nothing(library, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(SteeringError, match="No space left"):
        library.add(vector("formal"))
    assert files(library.own) == []


def test_threads_add_at_once(library):
    threads = [threading.Thread(target=lambda: [library.add(vector("formal")) for _ in range(4)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(files(library.own)) == 24
    assert {e.vector.name for e in library.entries() if not e.shipped} == {
        "formal",
        *(f"formal {i}" for i in range(2, 25)),
    }


def test_processes_add_at_once(library):
    program = (
        "import sys, torch; from pathlib import Path; from steering.vectors.library import Library\n"
        "from steering.vectors.vector import SteeringVector\n"
        "library = Library(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "sys.stdin.read()\n"
        "for _ in range(5): library.add(SteeringVector({0: torch.ones(2)}, name='formal'))\n"
    )
    command = [sys.executable, "-c", program, str(library.own), str(library.shipped)]
    root = Path(steering.__file__).parents[1]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, cwd=root) for _ in range(2)]
    for process in running:
        process.stdin.close()
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    assert len(files(library.own)) == 10 and len(slugs(library)) == 12
    assert library.problems == []


# Deleting ------------------------------------------------------------------------------------------------------------


def test_a_deletion_can_be_undone(library):
    entry = library.add(vector("formal"))
    content = entry.path.read_bytes()
    token = library.delete("formal")
    assert slugs(library) == ["angry", "cheerful"] and not entry.path.exists()
    restored = library.restore(token)
    assert restored == entry and restored.vector is entry.vector  # the same key in a setting
    assert entry.path.read_bytes() == content
    with pytest.raises(SteeringError, match="There is nothing to restore"):
        library.restore(token)


def test_undoing_does_not_overwrite(library):
    library.add(vector("formal", 1.0))
    first = library.delete("formal")
    library.add(vector("formal", 2.0))
    second = library.delete("formal")
    library.add(vector("formal", 3.0))
    assert library.restore(first).vector.name == "formal 2"
    assert library.restore(second).vector.name == "formal 3"
    assert [library.get(s).directions[1][0].item() for s in ("formal", "formal-2", "formal-3")] == [3.0, 1.0, 2.0]


def test_a_file_put_there_by_hand_keeps_its_name(library):
    vector("Mine").save(library.own / "My own.v2.safetensors")
    assert library.restore(library.delete("My own.v2")).slug == "My own.v2"


def test_shipped_ones_cannot_be_deleted(library):
    with pytest.raises(SteeringError, match="'cheerful' ships with the playground and cannot be deleted"):
        library.delete("cheerful")
    assert "cheerful" in slugs(library)


@pytest.mark.parametrize("slug", ["none", "", "../shipped/cheerful", "/etc/passwd", "*", "a\0b", "x" * 5000])
def test_only_what_is_there_can_be_deleted(library, slug):
    library.add(vector("formal"))
    with pytest.raises(SteeringError, match="There is no vector"):
        library.delete(slug)
    assert files(library.own) == ["formal.safetensors"] and len(files(library.shipped)) == 2


@pytest.mark.parametrize("token", ["", "*", "../x", "1", "1-*", "1-a/../b", "0-0\n", "\0"])
def test_only_what_was_deleted_can_be_restored(library, token):
    library.add(vector("formal"))
    library.delete("formal")
    with pytest.raises(SteeringError, match="There is nothing to restore"):
        library.restore(token)


def test_old_deletions_make_room(library):
    tokens = []
    for _ in range(MOST_DELETED + 2):
        library.add(vector("formal"))
        tokens.append(library.delete("formal"))
    with pytest.raises(SteeringError, match="nothing to restore"):
        library.restore(tokens[1])
    assert library.restore(tokens[2]).slug == "formal"
