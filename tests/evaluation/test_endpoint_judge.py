"""The judge at an endpoint, against a server that misbehaves on purpose."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from steering.errors import SteeringError
from steering.evaluation.judges import judge_named
from steering.evaluation.judges.endpoint import GIVE_UP, EndpointJudge
from steering.evaluation.judges.judge import JudgeContext
from steering.pairs.dataset import Pairs, PreferencePair
from steering.prompting import endpoint as endpoints
from steering.prompting.endpoint import Endpoint


class Server(ThreadingHTTPServer):
    """Answers each request by `answer(question)`: (status, text)."""

    def __init__(self) -> None:
        self.answer = lambda question: (200, "4")
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                question = body["messages"][-1]["content"]
                server.asked.append(question)
                status, text = server.answer(question)
                data = json.dumps({"choices": [{"message": {"content": text}}], "usage": {"total_tokens": 9}}).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(endpoints, "PAUSE", 0.01)
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def judge(server: Server, tmp_path) -> EndpointJudge:
    return EndpointJudge(Endpoint(server.url, "m"), "scale", "cheerful", store=tmp_path / "answers.sqlite")


def ask(judge: EndpointJudge, *texts: str):
    return judge.verdicts(["How are you?"] * len(texts), texts, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "score"), [("4", 1.0), (" 1.\n", 0.0), ("Rating: 3", 2 / 3), ("2/4", 1 / 3), ("**4**", 1.0)]
)
def test_a_number_is_read(server, judge, said, score):
    server.answer = lambda _: (200, said)
    assert ask(judge, "Great!")[0].behavior == pytest.approx(score)


@pytest.mark.parametrize("said", ["", "5", "I would say that it is 3 or 4", "four", "14", "-1", "null", "{}"])
def test_nonsense_is_counted_and_never_a_score(server, judge, said):
    server.answer = lambda question: (200, said if "bad" in question else "4")
    good, bad = ask(judge, "fine", "bad")
    assert good.behavior == 1.0 and bad.behavior is None and "not a number" in bad.problem
    assert judge.unusable == 1 and "1 of them had no usable answer; they count in no mean" in judge.card.notes[1]


def test_three_scores_of_axbench(server, tmp_path):
    judge = EndpointJudge(Endpoint(server.url, "m"), "axbench", "x", store=tmp_path / "a.sqlite")
    server.answer = lambda _: (200, 'Here: {"behavior": 2, "relevance": 1, "fluency": 0}')
    verdict = ask(judge, "text")[0]
    assert (verdict.behavior, verdict.relevance, verdict.fluency) == (1.0, 0.5, 0.0)
    server.answer = lambda _: (200, '{"behavior": 3, "relevance": true, "fluency": 0}')
    assert ask(judge, "other")[0].behavior is None


def test_what_was_judged_is_not_asked_again_and_nonsense_is(server, judge, tmp_path):
    ask(judge, "a", "b", "a")
    asked = len(server.asked)
    again = EndpointJudge(judge.endpoint, "scale", "cheerful", store=tmp_path / "answers.sqlite")
    assert [v.behavior for v in ask(again, "a", "b")] == [1.0, 1.0] and len(server.asked) == asked
    assert again.tokens == 0
    server.answer = lambda _: (200, "hm")
    ask(again, "c")
    server.answer = lambda _: (200, "1")
    assert ask(again, "c")[0].behavior == 0.0


def test_a_busy_server_is_asked_again(server, judge):
    refusals = iter([(429, ""), (503, "")])
    server.answer = lambda _: next(refusals, (200, "2"))
    assert ask(judge, "text")[0].behavior == pytest.approx(1 / 3)


def test_a_server_that_is_down_is_given_up_and_skews_nothing(server, judge):
    server.answer = lambda _: (500, "")
    verdicts = ask(judge, *[f"text {n}" for n in range(GIVE_UP + 8)])
    assert all(verdict.behavior is None for verdict in verdicts)
    assert "failed 5 times in a row" in verdicts[-1].problem
    assert len(server.asked) <= (GIVE_UP + 4) * (endpoints.RETRIES + 1)


def test_stop_asks_no_more(server, judge):
    verdicts = judge.verdicts(["Q"], ["text"], None, lambda: True)  # type: ignore[arg-type]
    assert verdicts[0].problem == "stopped before it was judged" and not server.asked


def pairs() -> Pairs:
    return Pairs.of(PreferencePair(f"Q{n}?", f"Great {n}!", f"Bad {n}.") for n in range(6))


def test_it_measures_itself_on_the_pairs(server, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("STEERING_CACHE_DIR", str(tmp_path))
    server.answer = lambda question: (200, "4" if "rate: Great" in question else "1")
    judge = judge_named("endpoint").make(JudgeContext(tiny, pairs(), "cheerful", 40, {"url": server.url, "model": "m"}))
    assert judge.card.accuracy == 1.0 and judge.card.answers == 10


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "needs an address and a model"),
        ({"url": "http://127.0.0.1:9", "model": "m", "rubric": "x"}, "no rubric 'x'; choose one of: scale, axbench"),
        ({"url": "http://127.0.0.1:9/v1", "model": "m"}, "gave no usable verdict"),
    ],
)
def test_options_that_cannot_be(tiny, tmp_path, monkeypatch, options, says):
    monkeypatch.setenv("STEERING_CACHE_DIR", str(tmp_path))
    with pytest.raises(SteeringError, match=says):
        judge_named("endpoint").make(JudgeContext(tiny, pairs(), "cheerful", 40, options))
