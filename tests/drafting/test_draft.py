"""Drafts: by a model as batch rows, by a server, with bad answers replaced and a stop that keeps what is there."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from steering.drafting import draft as module
from steering.drafting import draft_pairs
from steering.drafting.draft import _Written, whole_sentences
from steering.errors import SteeringError
from steering.prompting import Endpoint, contrasting_system_prompts
from steering.prompting import endpoint as endpoint_module

PROMPTS = [f"Prompt number {i}?" for i in range(12)]


def good(number):
    return _Written(f"I love number {number}.", f"I do not care for {number}.", 10)


@pytest.fixture
def writing(monkeypatch):
    """Put answers in the place of the model's."""

    def by(answer):
        asked = []

        def write(model, prompt, systems, seed, max_new_tokens, should_stop):
            asked.append((prompt, systems, seed))
            return answer(len(asked) - 1)

        monkeypatch.setattr(module, "_by_model", write)
        return asked

    return by


def test_a_model_writes_both_sides_and_the_pair_has_the_plain_prompt(bundled):
    *reports, done = draft_pairs(bundled, "cheerful", count=2, max_new_tokens=40, seed=3)
    assert done.done and len(done.pairs) == 2 == done.wanted and done.tokens > 20
    assert all(pair.before == () and pair.chosen != pair.rejected for pair in done.pairs)
    assert "is small, so its drafts are weak" in done.note
    assert [len(report.pairs) for report in reports] == sorted(len(report.pairs) for report in reports)
    *_, again = draft_pairs(bundled, "cheerful", count=2, max_new_tokens=40, seed=3)
    assert again.pairs == done.pairs


def test_useless_answers_are_replaced_by_other_prompts(tiny, writing):
    bad = {
        0: _Written("", "No thanks, not today.", 1),
        1: _Written("The same answer here.", "The same answer here.", 1),
        2: _Written("As an AI language model, I have no moods.", "I am sad about it.", 1),
        3: _Written("My instructions say to be glad.", "I am sad about it.", 1),
    }
    asked = writing(lambda number: bad.get(number, good(number)))
    *_, done = draft_pairs(tiny, "cheerful", count=3, prompts=PROMPTS)
    assert [pair.prompt for pair in done.pairs] == PROMPTS[4:7] and len(asked) == 7
    assert done.note.startswith("4 prompts were replaced") and done.tokens == 34


def test_prompts_that_run_out_are_told(tiny, writing):
    writing(lambda number: good(number) if number % 2 else _Written("", "", 1))
    *_, done = draft_pairs(tiny, "cheerful", count=9, prompts=PROMPTS[:6])
    assert len(done.pairs) == 3 and "3 of 6 pairs were drafted" in done.note


def test_a_stop_keeps_what_is_there(tiny, writing):
    asked = writing(good)
    *_, done = draft_pairs(tiny, "cheerful", count=9, prompts=PROMPTS, should_stop=lambda: len(asked) == 4)
    assert done.done and len(done.pairs) == 4


def test_system_prompts_can_be_written_by_hand(tiny, writing):
    asked = writing(good)
    list(draft_pairs(tiny, "cheerful", count=1, system_prompts=("Be glad.", "Be sad."), prompts=PROMPTS))
    assert asked[0][1] == ("Be glad.", "Be sad.")


@pytest.mark.parametrize("count", [0, 201])
def test_a_count_out_of_range_is_refused(tiny, count):
    with pytest.raises(SteeringError, match="give one from 1 to 200"):
        list(draft_pairs(tiny, "cheerful", count=count))


@pytest.mark.parametrize(
    ("text", "cut", "whole"),
    [
        (" Yes. And then we ", True, "Yes."),
        ("Yes. And then we", False, "Yes. And then we"),
        ('He said "no!" and', True, 'He said "no!"'),
        ("no end in sight", True, ""),
        ("1.5 liters of", True, ""),
    ],
)
def test_an_answer_that_was_cut_ends_with_its_last_whole_sentence(text, cut, whole):
    assert whole_sentences(text, cut=cut) == whole


# Servers --------------------------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Speaks the chat API, or answers with the statuses it is told to."""

    def __init__(self):
        self.statuses, self.requests, self.body = [], [], None
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, request, self.headers.get("Authorization")))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        system, asked = (message["content"] for message in request["messages"])
        side = "love" if system == contrasting_system_prompts("cheerful")[0] else "hate"
        answer = {
            "choices": [{"message": {"content": f"I {side} it: {asked}"}, "finish_reason": "stop"}],
            "usage": {"total_tokens": 7},
        }
        body = (json.dumps(answer) if self.server.body is None else self.server.body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in endpoint_module.KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(endpoint_module, "PAUSE", 0.01)
    made = Server()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def at(server):
    return Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "writer")


def test_a_server_writes_both_sides(server, monkeypatch):
    monkeypatch.setenv("STEERING_API_KEY", "secret-key")
    *_, done = draft_pairs(at(server), "cheerful", count=5, prompts=PROMPTS, max_new_tokens=33)
    assert [(p.prompt, p.chosen, p.rejected) for p in done.pairs] == [
        (prompt, f"I love it: {prompt}", f"I hate it: {prompt}") for prompt in PROMPTS[:5]
    ]
    assert done.tokens == 5 * 14 and "Drafts are a start" in done.note
    path, request, authorization = server.requests[0]
    assert (path, authorization) == ("/v1/chat/completions", "Bearer secret-key")
    assert (request["model"], request["max_tokens"]) == ("writer", 33)


def test_a_busy_server_is_asked_again(server):
    server.statuses = [429, 503, 429]
    *_, done = draft_pairs(at(server), "cheerful", count=1, prompts=PROMPTS[:1])
    assert len(done.pairs) == 1 and len(server.requests) == 5


@pytest.mark.parametrize(
    ("statuses", "body", "message"),
    [
        ([401], None, "refuses the key; put a valid one into the environment variable STEERING_API_KEY"),
        ([404], None, "knows no model 'writer'"),
        ([500] * 9, None, "answers 500"),
        ([429] * 9, None, "is busy"),
        ([302], None, "answers 302"),
        ([], "<html>", "does not answer as a chat API does"),
        ([], '{"choices": []}', "does not answer as a chat API does"),
    ],
)
def test_a_server_that_fails_says_so_in_one_sentence_without_the_key(server, monkeypatch, statuses, body, message):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    server.statuses, server.body = [*statuses, *statuses], body
    with pytest.raises(SteeringError, match=message) as error:
        list(draft_pairs(at(server), "cheerful", prompts=PROMPTS[:1]))
    assert "secret-key" not in str(error.value) and "\n" not in str(error.value)


def test_a_server_that_is_not_there():
    with pytest.raises(SteeringError, match="127.0.0.1:9 cannot be reached"):
        list(draft_pairs(Endpoint("http://127.0.0.1:9/v1", "writer"), "cheerful", prompts=PROMPTS[:1]))


def test_the_key_goes_to_no_other_machine_unencrypted():
    private = {
        url: Endpoint(url, "m").is_private for url in ("https://a.b/v1", "http://a.b/v1", "http://localhost:1/v1")
    }
    assert list(private.values()) == [True, False, True]


@pytest.mark.parametrize(
    ("url", "model"),
    [
        ("file:///etc/passwd", "m"),
        ("host/v1", "m"),
        ("http://", "m"),
        ("http://h:abc/v1", "m"),
        ("http://[::1/v1", "m"),
        ("http://host/v1", " "),
    ],
)
def test_what_is_no_endpoint_is_refused(url, model):
    with pytest.raises(SteeringError, match="no web address|no name"):
        Endpoint(url, model)
