"""A public page among strangers who know HTTP: whose is whose, for every endpoint that the server lists."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from steering.interface import listeners
from steering.limits import Limits
from steering.training.methods.bipo.step import Trainer
from tests.interface.public_page import PublicPage, bring, files_under, pairs_csv, public_page, save, sent, train
from tests.raw_client import RawClient, file_data
from tests.tiny_models import tiny_model

MARK = "ALPHAMARK"
"""Stands in whatever the first visitor brings, and in nothing that another one sends."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublicPage]:
    with public_page(tiny_model(), tmp_path_factory.mktemp("public"), Limits.public()) as page:
        yield page


class Owner:
    """A visitor with one of everything: pairs, a vector on the shelf, one in the trash, a draft, a checkpoint."""

    def __init__(self, page: PublicPage) -> None:
        self.client = page.stranger()
        bring(self.client, pairs_csv(12, MARK), "pairs of alpha.csv")
        for name in ("private one", "private two"):
            assert "done" not in str(train(self.client, effort="quick")[-1])
            assert "is on the Playground" in str(save(self.client, name, f"{MARK} behavior"))
        train(self.client, effort="quick")
        shelf = self.client.of("delete-vector")
        selected = {"selected": "private-two"}
        deleted = self.client.call(shelf, sent(self.client, shelf, shelf=selected, sliders=no_sliders()))[-1]
        assert "taken off the shelf" in str(deleted)
        (self.folder,) = [each for each in (page.folder / "visitors").iterdir() if files_under(each)]
        (self.folder / "checkpoints").mkdir(exist_ok=True)
        (self.folder / "checkpoints" / "run.safetensors").write_bytes(MARK.encode())
        self.visitor = page.app.visitors.of_session(self.client.session)
        self.draft = self.visitor.library.drafts.labels()[0][0]
        self.deleted = next((self.folder / "vectors" / ".trash").glob("*.safetensors")).name.split(".")[0]

    @property
    def words(self) -> list[str]:
        """Whatever names something of theirs, as far as anybody could guess it."""
        return ["private-one", "private one", self.draft, self.deleted, self.folder.name, *map(str, self.paths)]

    @property
    def paths(self) -> list[Path]:
        return [Path(path) for path in files_under(self.folder)]


def no_sliders() -> dict[str, Any]:
    return {"sliders": [], "pins": [], "active": "", "hidden": []}


@pytest.fixture(scope="module")
def owner(page: PublicPage) -> Owner:
    return Owner(page)


def test_the_owner_finds_everything_again_in_another_tab(page: PublicPage, owner: Owner) -> None:
    tab = RawClient(page.address).enter(owner.client.secret)
    assert tab.secret == owner.client.secret and tab.session != owner.client.session
    (listed,) = tab.call(tab.named("listed"), [])
    assert owner.draft in str(listed)
    shelf = tab.of("shelf", "select")
    assert f"{MARK} behavior" in str(tab.call(shelf, sent(tab, shelf, shelf={"selected": "private-one"})))


def attempts(client: RawClient, number: int, owner: Owner) -> Iterator[list[Any]]:
    """What a stranger may send to an endpoint to get at what is the owner's, every input aimed at it."""
    slug = "private-one"
    sliders = {**no_sliders(), "sliders": [{"slug": slug, "multiplier": 1.0}], "active": slug}
    short = {"tokens": 8, "strip": False, "mode": "compare", "draft-count": 1}  # what may be written takes no time
    tried = set()
    for word in owner.words:
        values = []
        for each in client.endpoints[number]["inputs"]:
            component = client.components[each]
            value, kind, id = component["props"].get("value"), component["type"], component["props"].get("elem_id")
            if kind in ("textbox", "dropdown", "radio", "browserstate", "state", "api"):
                value = word
            if kind == "file":
                value = file_data(word)
            if id == "sliders":
                value = sliders
            if id == "shelf":
                value = {"selected": slug, "clicks": 1}
            values.append(short.get(id, value))
        if repr(values) not in tried:
            tried.add(repr(values))
            yield values
    yield sent(client, number, sliders=sliders, shelf={"selected": slug})


def test_no_endpoint_gives_a_stranger_anything_of_the_owners(page: PublicPage, owner: Owner) -> None:
    before = files_under(owner.folder)
    stranger = page.stranger()
    bring(stranger, pairs_csv(3))
    assert len(stranger.endpoints) > 80
    for number in stranger.endpoints:
        if stranger.endpoints[number]["api_name"] in ("draft",):  # writes for minutes; it is given no file and no name
            continue
        for values in attempts(stranger, number, owner):
            for answer in stranger.call(number, values):
                assert MARK not in str(answer), (number, stranger.endpoints[number]["api_name"])
    assert files_under(owner.folder) == before


def test_the_owners_vector_steers_nobody_else(page: PublicPage, owner: Owner) -> None:
    stranger = page.stranger()
    asked = ["Hi", [{"private-one": 1.0}], "", 4, 0.0, 0, 1.1, "float16"]
    assert "no vector 'private-one'" in str(stranger.call(stranger.named("generate"), asked))
    assert "no vector 'private-one'" in str(stranger.call(stranger.named("preview"), ["Hi", {"private-one": 1}, "", 3]))
    assert owner.client.call(owner.client.named("generate"), asked)[-1][0][0]["tokens"] == 4


def test_the_panels_own_functions_know_whose_they_are(page: PublicPage, owner: Owner) -> None:
    def forecast(ticket: object) -> str:
        request = {"prompt": "Hi", "system": "", "multipliers": {"private-one": 1.0}, "turns": [], "ticket": ticket}
        return page.stranger().ask("next-token", "next_token", json.dumps(request)).json()["forecast"]

    stranger = page.stranger()
    visitor = page.app.visitors.of_session(stranger.session)
    assert "The first word" in forecast(owner.visitor.ticket) or "hardly moves" in forecast(owner.visitor.ticket)
    assert "no longer on the shelf" in forecast(visitor.ticket)
    for ticket in (None, "", owner.folder.name, f"{owner.folder.name}.{visitor.ticket.partition('.')[2]}"):
        assert "reload it" in forecast(ticket)
    title = {"setting": {"private-one": 1.0}, "ticket": visitor.ticket}
    assert stranger.ask("sliders", "pin_title", json.dumps(title)).json() == "private-one +1"  # the name it sent itself


def test_no_file_of_a_visitor_is_served_by_its_path(page: PublicPage, owner: Owner) -> None:
    assert len(owner.paths) >= 4
    for path in [*owner.paths, owner.folder / "vectors" / ".lock", page.folder, "/etc/passwd", "pyproject.toml"]:
        assert page.stranger().file(path).status_code == 403, path
    shipped = page.app.visitors.owner.shipped / "cheerful.safetensors"
    assert page.stranger().file(shipped).content == shipped.read_bytes()


def test_a_download_is_handed_to_the_owner_alone(page: PublicPage, owner: Owner) -> None:
    shelf = owner.client.of("shelf", "select")
    answer = owner.client.call(shelf, sent(owner.client, shelf, shelf={"selected": "private-one"}))[-1]
    path = next(part["path"] for part in answer if isinstance(part, dict) and "path" in part)
    assert owner.client.file(path).content == (owner.folder / "vectors" / "private-one.safetensors").read_bytes()
    stranger = page.stranger()
    other = stranger.call(shelf, sent(stranger, shelf, shelf={"selected": "private-one"}))[-1]
    assert not any("private" in str(part.get("path")) for part in other if isinstance(part, dict))


def test_a_browser_that_did_not_enter_is_told_to_reload(page: PublicPage) -> None:
    nobody = RawClient(page.address)
    for name in ("restore", "show_model", "listed"):
        assert "reload it" in str(nobody.call(nobody.named(name), []))


def test_what_is_sent_as_a_secret_opens_nothing_but_itself(page: PublicPage, owner: Owner) -> None:
    for guess in ("", "x", owner.folder.name, owner.visitor.ticket, None, 3, {"a": 1}, "../../../etc", "A" * 43):
        stranger = RawClient(page.address).enter(guess)
        assert len(stranger.secret) == 43 and page.app.visitors.of_session(stranger.session) is not owner.visitor


def test_programs_keep_a_shelf_for_as_long_as_their_session(page: PublicPage) -> None:
    pairs = [{"prompt": f"Take {n}?", "chosen": "Yes, all", "rejected": "No"} for n in range(5)]
    first, second = Client(page.address, verbose=False), Client(page.address, verbose=False)
    *_, done = first.submit(pairs=pairs, name="of a program", api_name="/train")
    assert done["vector"] == "of-a-program"
    assert "of-a-program" in str(first.predict(api_name="/list_vectors"))
    assert "of-a-program" not in str(second.predict(api_name="/list_vectors"))
    with pytest.raises(AppError, match="no vector"):
        second.predict(prompt="Hi", columns=[{"of-a-program": 1}], api_name="/generate")


def test_agents_train_only_with_the_owners_token(page: PublicPage, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [{"prompt": f"Take {n}?", "chosen": "Yes, all", "rejected": "No"} for n in range(5)]
    agent = {"x-gradio-user": "mcp"}
    with pytest.raises(AppError, match="only with the owner's token"):
        Client(page.address, verbose=False, headers=agent).predict(pairs=pairs, name="a", api_name="/train")
    monkeypatch.setenv("STEERING_API_TOKEN", "open sesame")
    for token, trains in (("open sesam", False), ("open sesame", True)):
        client = Client(page.address, verbose=False, headers={**agent, "x-steering-token": token})
        job = client.submit(pairs=pairs, name="by an agent", api_name="/train")
        if trains:
            assert list(job)[-1]["vector"] == "by-an-agent"
            assert "by-an-agent" in str(client.predict(api_name="/list_vectors"))
        else:
            with pytest.raises(AppError, match="only with the owner's token"):
                job.result()
    assert "by-an-agent" not in str(
        Client(page.address, verbose=False, headers=agent).predict(api_name="/list_vectors")
    )


def test_a_published_vector_is_everybodys_to_use_and_nobodys_to_change(page: PublicPage, owner: Owner) -> None:
    page.app.visitors.owner.add(owner.visitor.library.get("private-one") * 2.0)
    stranger = page.stranger()
    (listed,) = stranger.call(stranger.named("list_vectors"), [])
    (slug,) = [each["name"] for each in listed[0] if "x-2" in each["name"]]
    shelf = stranger.of("delete-vector")
    answer = stranger.call(shelf, sent(stranger, shelf, shelf={"selected": slug}, sliders=no_sliders()))[-1]
    assert "published by the owner" in str(answer)
    page.app.visitors.owner.delete(slug)


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of a training that takes minutes."""
    step = Trainer.step

    def unhurried(trainer: Trainer, *arguments: Any) -> Any:
        time.sleep(0.2)
        return step(trainer, *arguments)

    monkeypatch.setattr(Trainer, "step", unhurried)
    return {"epochs": 1000, "layer": 1, "patience": 1000, "max_steps": 10_000}


PAIRS = [{"prompt": f"Take {n}?", "chosen": "Yes, all", "rejected": "No"} for n in range(40)]


@pytest.mark.parametrize(("way", "grace"), [("call", None), ("call with a session", 1.0), ("queue", 1.0)])
def test_a_training_nobody_listens_to_ends(
    page: PublicPage, endless: dict[str, Any], monkeypatch: pytest.MonkeyPatch, way: str, grace: float | None
) -> None:
    monkeypatch.setattr(listeners, "GRACE_SECONDS", grace or listeners.GRACE_SECONDS)
    stranger = page.stranger()
    data = [PAIRS, "endless", "", "", 0, "bipo", endless]
    path, body = {
        "call": ("gradio_api/call/train", {"data": data}),
        "call with a session": ("gradio_api/call/train", {"data": data, "session_hash": "mine"}),
        "queue": ("gradio_api/queue/join", {"data": data, "fn_index": stranger.named("train"), "session_hash": "its"}),
    }[way]
    assert stranger.http.post(path, json=body).status_code == 200
    began = time.monotonic()
    wait_until(lambda: page.app.training.is_busy)
    wait_until(lambda: not page.app.training.is_busy)
    assert listeners.GRACE_SECONDS < time.monotonic() - began < 30


def test_a_training_of_the_page_that_nobody_listens_to_ends(
    page: PublicPage, endless: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "GRACE_SECONDS", 1.0)
    stranger = page.stranger()
    bring(stranger, pairs_csv(60))
    time.sleep(1.5)  # the stream on which the report was read counts for the grace
    number = stranger.of("start-training")
    body = {"fn_index": number, "session_hash": stranger.session}
    data = sent(stranger, number, effort="quick", setting_bipo_max_steps=1_000, setting_bipo_epochs="100")
    began = time.monotonic()
    assert stranger.http.post("gradio_api/queue/join", json={**body, "data": data}).status_code == 200
    wait_until(lambda: page.app.training.is_busy)
    wait_until(lambda: not page.app.training.is_busy)
    assert 1 < time.monotonic() - began < 30
    assert page.app.visitors.of_session(stranger.session).library.drafts.labels()  # what was reached is kept


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("with_session", [False, True])
def test_a_training_that_is_listened_to_goes_on(
    page: PublicPage, endless: dict[str, Any], monkeypatch: pytest.MonkeyPatch, with_session: bool
) -> None:
    monkeypatch.setattr(listeners, "GRACE_SECONDS", 1.0)
    stranger = page.stranger()
    body = {"data": [PAIRS, "long", "", "", 0, "bipo", endless]}
    if with_session:
        body["session_hash"] = stranger.session
    event = stranger.http.post("gradio_api/call/train", json=body).json()["event_id"]
    began = time.monotonic()
    with stranger.http.stream("GET", f"gradio_api/call/train/{event}") as answers:
        for line in answers.iter_lines():
            assert "error" not in line and "complete" not in line
            if time.monotonic() - began > 4:
                break
        assert page.app.training.is_busy
    wait_until(lambda: not page.app.training.is_busy)  # the stream was closed


def test_errors_and_logs_tell_strangers_nothing(page: PublicPage, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    stranger = page.stranger()
    stranger.call(stranger.of("generate"), [None] * 3)  # too few values: a bug in the caller
    text = f"{MARK} secret prompt"
    stranger.call(stranger.named("generate"), [text, [{}], text, 4, 0.0, 0, 1.1, "float16"])
    stranger.call(stranger.named("generate"), [text, [{text: 1}], text, 4, 0.0, 0, 1.1, "float16"])
    stranger.ask("next-token", "next_token", text)
    bring(stranger, f"prompt,chosen\n{text},{text}\n".encode())
    printed = capfd.readouterr()
    assert MARK not in caplog.text and MARK not in printed.out + printed.err
