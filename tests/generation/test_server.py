"""Requests that share a decode batch give what each gives alone, whoever joins, ends, stops or fails meanwhile."""

import contextlib
import gc
import random
import threading
import time
import weakref

import pytest
import torch

from steering.errors import SteeringError
from steering.generation.request_queue import QueueEntry
from steering.generation.server import DecodeServer
from steering.generation.stream import generate
from tests.generation.test_stream import NO_REPEATS, SAMPLED, vector
from tests.tiny_models import ARCHITECTURES, tiny_model

ONE_AFTER_ANOTHER = {  # attention that looks back only so far keeps another kind of cache, and so do recurrent models
    *("mistral", "gemma2", "gemma3", "gemma3_text", "gpt_oss", "mamba", "qwen3_next")
}
REQUESTS = [
    ("Hello", [{}, {vector(1, seed=1): 2.0}], {"max_new_tokens": 14}),
    ("A much longer prompt than that, with many words", [{vector(0, 2, seed=2): -2.0}], {"max_new_tokens": 30}),
    ("x", [{vector(3, seed=3, token_scope="answer"): 2.0}, {}, {vector(2, seed=4): 1.0}], {"max_new_tokens": 9}),
    ("Which one?", [{vector(1, seed=1): 1.0}], {**SAMPLED, "max_new_tokens": 20}),
]


def texts(columns):
    return [(column.text, column.tokens, column.finished) for column in columns]


def shots_of(server, *args, **options):
    """All columns after each token, without the places in the queue."""
    stream = server.stream(*args, **options)

    def shots():
        with contextlib.closing(stream):
            yield from (news for news in stream if not isinstance(news, int))

    return shots()


def visit(server, number, found, wait=0.0):
    prompt, columns, options = REQUESTS[number]
    time.sleep(wait)
    for shot in shots_of(server, prompt, columns, **{"repetition_penalty": NO_REPEATS, **options}):
        found[number] = shot


def together(server, waits=(0, 0, 0, 0)):
    found = {}
    threads = [threading.Thread(target=visit, args=(server, number, found, wait)) for number, wait in enumerate(waits)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_of_a_shared_batch_are_what_each_request_gives_alone(architecture):
    model = tiny_model(architecture)
    server = DecodeServer(model)
    assert server.decodes_together is (architecture not in ONE_AFTER_ANOTHER)
    found = together(server)
    for number, (prompt, columns, options) in enumerate(REQUESTS):
        alone = generate(model, prompt, columns, **{"repetition_penalty": NO_REPEATS, **options})
        assert texts(found[number]) == texts(alone)


def test_requests_join_while_others_run(tiny):
    server = DecodeServer(tiny)
    first = shots_of(server, "Hello", [{}], max_new_tokens=60, repetition_penalty=NO_REPEATS)
    shots = [next(first)]
    found = together(server, waits=(0, 0.01, 0.03, 0.05))
    shots += first
    wanted = generate(tiny, "Hello", [{}], max_new_tokens=60, repetition_penalty=NO_REPEATS)
    assert texts(shots[-1]) == texts(wanted)
    assert [shot[0].tokens for shot in shots] == list(range(1, len(shots) + 1))
    for number, (prompt, columns, options) in enumerate(REQUESTS):
        alone = generate(tiny, prompt, columns, **{"repetition_penalty": NO_REPEATS, **options})
        assert texts(found[number]) == texts(alone)


def slowed(monkeypatch, model, seconds=0.01):
    forward = model.blocks[0].forward
    monkeypatch.setattr(model.blocks[0], "forward", lambda *a, **k: time.sleep(seconds) or forward(*a, **k))


def filter_places(news):
    return [one for one in news if isinstance(one, int)]


def test_the_queue_is_bounded_and_tells_the_place(monkeypatch):
    model = tiny_model()
    server = DecodeServer(model, max_rows=2, max_waiting=2)
    slowed(monkeypatch, model)
    options = {"max_new_tokens": 12, "repetition_penalty": NO_REPEATS}
    running = shots_of(server, "Hello", [{}, {}], **options)
    next(running)
    places = {1: [], 2: []}
    threads = []
    for number in places:
        news = server.stream("Hello", [{}, {}], **options)
        keep = places[number]
        threads.append(threading.Thread(target=lambda news=news, keep=keep: keep.extend(filter_places(news))))
        threads[-1].start()
        time.sleep(0.03)
    with pytest.raises(SteeringError, match="2 requests are waiting already; try again in a minute."):
        next(shots_of(server, "Hello", **options))
    assert len(list(running)) > 1
    for thread in threads:
        thread.join(timeout=60)
    assert places == {1: [1, 0], 2: [2, 1, 0]}


def test_closing_and_stopping_free_the_rows_within_a_token(monkeypatch):
    model = tiny_model()
    server = DecodeServer(model, max_rows=1)
    slowed(monkeypatch, model)
    options = {"max_new_tokens": 400, "repetition_penalty": NO_REPEATS}
    stop = threading.Event()
    closed, stopped = (
        shots_of(server, "Hello", **options),
        shots_of(server, "Hello", should_stop=stop.is_set, **options),
    )
    next(closed)
    closed.close()
    next(stopped)
    stop.set()
    assert len(list(stopped)) <= 2
    began = time.perf_counter()
    assert texts(list(shots_of(server, "Hello", max_new_tokens=2))[-1]) == texts(
        generate(model, "Hello", max_new_tokens=2)
    )
    assert time.perf_counter() - began < 10  # 400 tokens were not waited for


def test_an_error_of_the_model_reaches_all_and_the_server_goes_on(monkeypatch, no_hooks):
    model = tiny_model()
    server = DecodeServer(model)
    shots = shots_of(server, "Hello", [{vector(1): 1.0}], max_new_tokens=400, repetition_penalty=NO_REPEATS)
    slowed(monkeypatch, model)
    next(shots)
    with monkeypatch.context() as patch:
        patch.setattr(model.blocks[-1], "forward", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(shots)
        with pytest.raises(ZeroDivisionError):
            next(shots_of(server, "Hello"))
    assert no_hooks(model)
    assert texts(list(shots_of(server, "Hello"))[-1]) == texts(generate(model, "Hello"))


def test_bad_input_is_refused_at_once(tiny):
    server = DecodeServer(tiny)
    for said, prompt, columns in (("empty", "", [{}]), ("0 columns", "x", []), ("layer 9", "x", [{vector(9): 1.0}])):
        with pytest.raises(SteeringError, match=said):
            server.stream(prompt, columns)


@pytest.mark.parametrize("weights", ["full", "float16"])
def test_a_thousand_requests_leave_nothing_behind(weights, monkeypatch, no_hooks):
    model, chance = tiny_model(num_hidden_layers=2), random.Random(0)
    server, one = DecodeServer(model, weights=weights, max_waiting=16, idle_seconds=0.05), vector(1)
    before, requests_made = threading.active_count(), weakref.WeakSet()
    others = keys_and_values(model)  # of servers of earlier tests
    make = QueueEntry.__init__

    def counted(self, *args):
        make(self, *args)
        requests_made.add(self)

    monkeypatch.setattr(QueueEntry, "__init__", counted)

    served = []

    def visitor(requests):
        for how in requests:
            shots = shots_of(server, "Hi", [{}, {one: 1.0}], max_new_tokens=4, should_stop=lambda how=how: how == 0)
            for count, _ in enumerate(shots):
                if count >= how:
                    break
            shots.close()
            served.append(how)

    everyone = [threading.Thread(target=visitor, args=([chance.randrange(5) for _ in range(125)],)) for _ in range(8)]
    for thread in everyone:
        thread.start()
    for thread in everyone:
        thread.join(timeout=120)
    deadline = time.monotonic() + 10
    while server.is_running and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.1)
    cached = server.prefix_cache.nbytes
    assert (0 < cached < 100_000) if weights == "float16" else cached == 0
    server.prefix_cache = None
    gc.collect()
    assert len(served) == 1000
    assert no_hooks(model)
    assert threading.active_count() <= before  # fewer if a server of an earlier test ended
    assert not requests_made and not server.waiting
    assert {*map(id, keys_and_values(model))} <= {*map(id, others)}


def keys_and_values(model):
    """Whatever could be some, of a model with heads as small: the page's server may go on with its own meanwhile."""
    size, tensors = model.network.config.head_dim, [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]
    assert size < 64
    return [tensor for tensor in tensors if tensor.dim() >= 4 and tensor.shape[-1] == size]


def test_columns_with_histories_of_their_own_join_row_by_row(tiny):
    server = DecodeServer(tiny)
    histories = [[("user", "Hi"), ("assistant", "Yes.")], [("user", "Hi"), ("assistant", "No, never, not at all.")]]
    settings, options = [{}, {vector(1): 2.0}], {"max_new_tokens": 9, "repetition_penalty": NO_REPEATS, "trace": True}
    last = list(shots_of(server, "Why?", settings, histories=histories, **options))[-1]
    for column, setting, history in zip(last, settings, histories, strict=True):
        (alone,) = generate(tiny, "Why?", [setting], before=history, **options)
        assert texts([column]) == texts([alone])
        assert [chance.text for chance in column.trace] == [chance.text for chance in alone.trace]
