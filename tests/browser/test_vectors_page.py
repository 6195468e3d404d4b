"""The shelf in a real browser: look, download, bring, delete, undo."""

import pickle
from pathlib import Path

import torch
from playwright.sync_api import Page, expect

from steering.vectors.vector import SteeringVector


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (str(self.path), "w"))


def open_vectors(page: Page, address: str) -> None:
    page.goto(address + "?v=&p=Hello&tokens=8")
    page.get_by_role("tab", name="Vectors").click()
    page.wait_for_selector("#shelf button")


def bring(page: Page, path: Path, layer: int | None = None) -> None:
    if not page.locator("#import-vector").is_visible():
        page.get_by_role("button", name="Bring a vector file").click()
    page.set_input_files("#vector-file input[type=file]", str(path))
    page.wait_for_function("name => document.querySelector('#vector-file').innerText.includes(name)", arg=path.stem[:8])
    if layer is not None:
        page.locator("#import-layer input, #import-layer textarea").first.fill(str(layer))
    page.locator("#import-vector").click()


def test_the_last_of_many_clicks_is_what_is_shown(page: Page, address: str) -> None:
    page.goto(address)  # what the page asks for while it opens comes back between the clicks
    page.get_by_role("tab", name="Vectors").click()
    for name in ("formal", "poetic", "cheerful", "hallucination", "formal"):
        page.locator("#shelf button", has_text=name).first.click()
    expect(page.locator("#vector-details h2")).to_have_text("formal")
    page.wait_for_timeout(3_000)
    expect(page.locator("#vector-details h2")).to_have_text("formal")
    expect(page.locator('#shelf [aria-selected="true"] b')).to_have_text("formal")


def test_looking_and_downloading(page: Page, address: str, tmp_path: Path) -> None:
    open_vectors(page, address)
    page.locator("#shelf button[data-slug=formal]").click()
    expect(page.locator("#vector-details h2")).to_have_text("formal")
    expect(page.locator("#vector-details tbody tr")).to_have_count(5)
    with page.expect_download() as download:
        page.locator("#download-vector").click()
    download.value.save_as(tmp_path / "formal.safetensors")
    assert SteeringVector.load(tmp_path / "formal.safetensors").name == "formal"


def test_a_bipo_file_is_brought_and_deleted_and_brought_back(page: Page, address: str, tmp_path: Path) -> None:
    torch.save(torch.randn(576), tmp_path / "authors.pt")
    open_vectors(page, address)
    bring(page, tmp_path / "authors.pt")
    expect(page.locator("#shelf-message")).to_contain_text("give the layer")
    page.locator("#import-layer input, #import-layer textarea").first.fill("12")
    page.locator("#import-vector").click()
    expect(page.locator("#vector-details")).to_contain_text("layer 12")
    page.get_by_role("tab", name="Playground").click()
    expect(page.locator("#slider-authors")).to_be_visible()
    page.get_by_role("tab", name="Vectors").click()
    page.locator("#delete-vector").click()
    expect(page.locator("#shelf-message")).to_contain_text("authors was taken off the shelf")
    expect(page.locator("#shelf button", has_text="authors")).to_have_count(0)
    page.locator("#undo-delete").click()
    expect(page.locator("#shelf-message")).to_contain_text("authors is back")
    page.locator("#delete-vector").click()
    expect(page.locator("#shelf button", has_text="authors")).to_have_count(0)


def test_shipped_vectors_cannot_be_deleted(page: Page, address: str) -> None:
    open_vectors(page, address)
    page.locator("#shelf button", has_text="cheerful").first.click()
    expect(page.locator("#vector-details h2")).to_have_text("cheerful")
    page.locator("#delete-vector").click()
    expect(page.locator("#shelf-message .problem")).to_contain_text("ships with the playground")


def test_bad_vector_files_are_answered(page: Page, address: str, tmp_path: Path) -> None:
    sound = SteeringVector({14: torch.randn(576)}, name="cut").save(tmp_path / "sound.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(sound[:-100])
    proof = tmp_path / "ran"
    (tmp_path / "evil_layer3.pt").write_bytes(pickle.dumps(Bomb(proof)))
    SteeringVector({3: torch.randn(32)}, name="narrow").save(tmp_path / "narrow.safetensors")
    open_vectors(page, address)
    bring(page, tmp_path / "cut.safetensors")
    expect(page.locator("#shelf-message .problem")).to_contain_text("cut short")
    page.reload()
    open_vectors(page, address)
    bring(page, tmp_path / "evil_layer3.pt")
    expect(page.locator("#shelf-message .problem")).to_contain_text("nothing was run")
    assert not proof.exists()
    page.reload()
    open_vectors(page, address)
    bring(page, tmp_path / "narrow.safetensors")
    expect(page.locator("#shelf-message")).to_contain_text("hidden size 32")
    page.get_by_role("tab", name="Playground").click()
    expect(page.locator("#slider-narrow")).to_have_count(0)
