"""Every limit of a public page holds against a client that ignores the page."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steering.limits import Limits
from steering.training.methods.bipo.step import Trainer
from tests.interface.public_page import PublicPage, bring, pairs_csv, public_page, save, sent, train
from tests.raw_client import RawClient, file_data
from tests.tiny_models import tiny_model

LIMITS = replace(
    Limits.public(),
    new_tokens=12,
    columns=5,
    prompt_characters=100,
    pairs=20,
    pair_characters=200,
    batch_size=4,
    training_seconds=1.5,
    trainings_waiting=1,
    vectors=2,
    upload_bytes=50_000,
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublicPage]:
    with public_page(tiny_model(), tmp_path_factory.mktemp("limits"), LIMITS) as page:
        yield page


@pytest.fixture
def stranger(page: PublicPage) -> RawClient:
    return page.stranger()


def generate(client: RawClient, prompt: str = "Hi", columns: Any = None, system: str = "", tokens: int = 4) -> str:
    return str(client.call(client.named("generate"), [prompt, columns or [{}], system, tokens, 0.0, 0, 1.1, "float16"]))


def test_answers_through_the_api(stranger: RawClient) -> None:
    assert "'tokens': 12" in generate(stranger, tokens=12)
    assert "13 new tokens were asked for; 12 are the most" in generate(stranger, tokens=13)
    assert "Give 1 to 5 columns" in generate(stranger, columns=[{}] * 6)
    assert "The prompt has 101 characters; 100 are" in generate(stranger, "x" * 101)
    assert "The system prompt has 101 characters" in generate(stranger, system="x" * 101)
    preview = stranger.call(stranger.named("preview"), ["x" * 101, {}, "", 3])
    assert "The prompt has 101 characters" in str(preview)


def written(client: RawClient, **changed: Any) -> dict[str, Any]:
    number = client.of("generate")
    return client.call(number, sent(client, number, **{"prompt": "Hi", "system": ""} | changed))[-1]


def test_answers_on_the_page(stranger: RawClient) -> None:
    assert "512 is greater than maximum value 12" in str(written(stranger, tokens=512))
    panel = written(stranger)[0]
    assert [card["foot"].split(" ")[0] for card in panel["columns"]] == ["12"]
    assert "The prompt has 101 characters" in str(written(stranger, **{"prompt": "x" * 101}))
    turns = [{"user": "x" * 90, "answers": {"baseline": "y" * 90}} for _ in range(5)]
    assert "The conversation has 900 characters; 800 are" in str(written(stranger, columns={"turns": turns}))


def test_no_more_columns_stand_side_by_side(page: PublicPage, stranger: RawClient) -> None:
    bring(stranger, pairs_csv(8))
    train(stranger, effort="quick")
    save(stranger, "mine")
    pins = [{"setting": {"mine": multiplier}, "name": ""} for multiplier in (0.25, 0.5, 0.75, 1.25, 1.75)]
    sliders = {"sliders": [{"slug": "mine", "multiplier": 1.0}], "pins": pins, "active": "mine", "hidden": []}
    number = stranger.of("generate")
    panel = stranger.call(number, sent(stranger, number, prompt="Hi", system="", sliders=sliders, strip=True))[-1][0]
    assert [card["id"] for card in panel["columns"]] == ["baseline", "setting", "opposite", "pin:0", "pin:1"]
    assert len(panel["strip"]["stops"]) == 9 and all(stop["done"] for stop in panel["strip"]["stops"])


def test_the_forecast(page: PublicPage, stranger: RawClient) -> None:
    ticket = page.app.visitors.of_session(stranger.session).ticket
    request = {"prompt": "x" * 101, "system": "", "multipliers": {}, "turns": [], "ticket": ticket}
    answer = stranger.ask("next-token", "next_token", json.dumps(request)).json()
    assert "The prompt has 101 characters" in answer["forecast"]


PAIR = {"prompt": "Take it?", "chosen": "Yes, all", "rejected": "No"}


def trained(client: RawClient, count: int = 4, effort: str = "", settings: Any = None, pair: Any = None) -> str:
    pairs = [{**PAIR, **(pair or {}), "prompt": f"Take {n}?"} for n in range(count)]
    return str(client.call(client.named("train"), [pairs, "by api", "", effort, 0, "bipo", settings]))


def test_trainings_through_the_api(stranger: RawClient) -> None:
    assert "Give 1 to 20 pairs" in trained(stranger, 21)
    assert "A pair has .* characters; 200 are".replace(".*", "211") in trained(stranger, pair={"chosen": "y" * 202})
    assert "batch_size is 5; 4 is the most" in trained(stranger, settings={"batch_size": 5})
    assert "'paper' takes too long" in trained(stranger, effort="paper")


def test_trainings_on_the_page(stranger: RawClient) -> None:
    assert "20 pairs kept" in str(bring(stranger, pairs_csv(60)))
    number = stranger.of("pairs-table", "input")
    rows = [[f"Take {n}?", "Yes, all", "No"] for n in range(60)]
    stranger.call(
        number, sent(stranger, number, pairs_table={"headers": ["prompt", "chosen", "rejected"], "data": rows})
    )
    assert "There are 60 pairs; 20 are the most" in str(train(stranger, effort="quick"))
    bring(stranger, pairs_csv(8))
    assert "batch_size is 64; 4 is the most" in str(train(stranger, effort="quick", setting_bipo_batch_size=64))
    assert "not in the list of choices: ['quick', 'standard']" in str(train(stranger, effort="paper"))
    bring(stranger, pairs_csv(8, "x" * 200))
    assert "characters; 200 are the most" in str(train(stranger, effort="quick"))


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.step

    def slow(trainer: Trainer, *arguments: Any) -> Any:
        time.sleep(0.2)
        return step(trainer, *arguments)

    monkeypatch.setattr(Trainer, "step", slow)


def test_a_training_ends_in_time_and_keeps_the_best(stranger: RawClient, unhurried: None) -> None:
    began = time.monotonic()
    answer = trained(stranger, settings={"epochs": 1000, "max_steps": 10_000, "patience": 1000})
    assert "time limit of 2 seconds was reached; the best vector so far was kept" in answer
    assert "'vector': 'by-api" in answer and time.monotonic() - began < 60


def test_only_so_many_trainings_wait(page: PublicPage, unhurried: None) -> None:
    strangers = [page.stranger() for _ in range(3)]
    for client in strangers:
        bring(client, pairs_csv(8))
    first, second = (
        client.stream(client.of("start-training"), sent(client, client.of("start-training"), effort="quick"))
        for client in strangers[:2]
    )
    next(first), next(first)
    assert "Another training is running" in str(next(second))
    assert "1 trainings are waiting already; try again" in str(train(strangers[2], effort="quick"))
    api = strangers[2].call(
        strangers[2].named("train"), [[{**PAIR, "prompt": str(n)} for n in range(4)], "x", "", "", 0, "bipo", None]
    )
    assert "1 trainings are waiting already" in str(api)
    assert "Read the answers" in str(list(first)[-1]) and "Read the answers" in str(list(second)[-1])


def test_the_api_waits_in_the_same_queue_and_is_told_its_place(page: PublicPage, unhurried: None) -> None:
    client, program = page.stranger(), page.stranger()
    bring(client, pairs_csv(8))
    number = client.of("start-training")
    first = client.stream(number, sent(client, number, effort="quick"))
    next(first), next(first)
    pairs = [{**PAIR, "prompt": f"Take {n}?"} for n in range(4)]
    answers = program.stream(program.named("train"), [pairs, "after", "", "", 0, "bipo", {"max_steps": 2}])
    assert next(answers)[0]["waiting"] == 1
    list(first)
    assert list(answers)[-1][0]["vector"] == "after"


def test_uploads(page: PublicPage, stranger: RawClient, tmp_path: Path) -> None:
    assert stranger.upload("pairs.csv", pairs_csv(3)).status_code == 200
    assert stranger.upload("pairs.csv", b"x" * 50_001).status_code == 413
    assert stranger.upload("pairs.csv", b"x" * 3_000_000).status_code == 413
    chunks = (b"x" * 100_000 for _ in range(40))  # of no declared length
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert stranger.http.post("gradio_api/upload", content=chunks, headers=headers).status_code in (400, 413)
    large = [{"p": "x" * 3_000_000}]
    assert stranger.http.post("gradio_api/call/list_vectors", json={"data": large}).status_code == 413
    pasted = stranger.of("read-pasted")
    text = "prompt,chosen,rejected\n" + "x" * 50_001
    assert "0.05 MB are the most here" in str(stranger.call(pasted, sent(stranger, pasted, pasted=text)))


def test_vectors(page: PublicPage, stranger: RawClient, tmp_path: Path) -> None:
    vector = page.app.visitors.owner.get("cheerful")
    files = []
    for number in range(3):
        vector.save(tmp_path / f"v{number}.safetensors")
        (path,) = stranger.upload(f"v{number}.safetensors", (tmp_path / f"v{number}.safetensors").read_bytes()).json()
        files.append(file_data(path))
    number = stranger.of("import-vector")
    sliders = {"sliders": [], "pins": [], "active": "", "hidden": []}
    answers = [
        str(stranger.call(number, sent(stranger, number, vector_file=file, sliders=sliders, import_name=f"v{place}")))
        for place, file in enumerate(files)
    ]
    assert "v0 is on the shelf" in answers[0] and "v1 is on the shelf" in answers[1]
    assert "Your shelf holds 2 vectors, the most here" in answers[2]


def test_a_full_disk_refuses_uploads_and_trainings_in_a_sentence(tmp_path: Path) -> None:
    limits = replace(LIMITS, disk_bytes=1_000)
    with public_page(tiny_model(), tmp_path, limits, uploads=tmp_path / "uploads") as page:
        stranger = page.stranger()
        bring(stranger, pairs_csv(8))
        (tmp_path / "uploads").mkdir()
        (tmp_path / "uploads" / "large").write_bytes(b"x" * 2_000)
        page.app.visitors._disk = (0.0, 0)  # noqa: SLF001 - ten seconds later
        refused = stranger.upload("pairs.csv", pairs_csv(3))
        assert refused.status_code == 507 and "disk that visitors share here is full" in refused.text
        assert "disk that visitors share here is full" in str(train(stranger, effort="quick"))


def test_the_page_tells_its_limits(stranger: RawClient) -> None:
    config = json.dumps([each["props"].get("value") for each in stranger.components.values()])
    assert "Shared page: what you make is yours alone" in config and "deleted 24 hours after your last visit" in config
    assert "may have 20 pairs and 2 s; then the best" in config and "answers of 12 tokens" in config
    described = json.dumps(stranger.http.get("gradio_api/info").json())
    assert "answers of 12 tokens" in described
