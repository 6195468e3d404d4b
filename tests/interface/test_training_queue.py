"""One training at a time, in the order in which they came, of the page and the API alike."""

import threading
import time
from contextlib import closing

import pytest

from steering.interface.training_queue import NobodyWaits, TrainingQueue, TrainingStatus
from steering.limits import LimitExceeded, Limits


def until_begun(turn) -> list[int]:
    places = []
    for place in turn:
        places.append(place.place)
        if not place.place:
            return places
    raise AssertionError("never its turn")


def test_turns_come_in_order_and_tell_their_place() -> None:
    queue = TrainingQueue()
    order: list[str] = []
    places: dict[str, list[int]] = {}

    def train(name: str) -> None:
        with closing(queue.turn(name)) as turn:
            places[name] = until_begun(turn)
            order.append(name)
            time.sleep(0.8)

    threads = []
    for name in "abc":
        threads.append(threading.Thread(target=train, args=(name,)))
        threads[-1].start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert order == ["a", "b", "c"] and not queue.is_busy and queue.status is None
    assert places["a"] == [0] and set(places["b"]) == {0, 1} and set(places["c"]) == {0, 1, 2}
    assert places["c"] == sorted(places["c"], reverse=True)


def test_the_words_tell_place_and_time() -> None:
    queue = TrainingQueue()
    queue._lengths.append(60.0)  # noqa: SLF001 - a training that took a minute
    with closing(queue.turn("a")) as first, closing(queue.turn("b")) as second, closing(queue.turn("c")) as third:
        until_begun(first)
        queue.status = TrainingStatus(3, 24, 30.0)
        assert "Yours starts by itself when it ends" in next(second).words()
        words = next(third).words()
        assert "step 3 of 24" in words and "number 2 in the queue" in words and "in about 2 min" in words
    assert not queue.is_busy


def test_whoever_does_not_want_it_any_more_leaves() -> None:
    queue = TrainingQueue()
    with closing(queue.turn("a")) as first:
        until_begun(first)
        with pytest.raises(NobodyWaits):
            list(queue.turn("b", lambda: True))
        closed = queue.turn("c")
        next(closed)
        closed.close()
    with closing(queue.turn("d")) as turn:
        assert until_begun(turn) == [0]


def test_only_so_many_may_wait_and_so_many_of_one_visitor() -> None:
    queue = TrainingQueue(Limits(trainings_waiting=2, visitor_trainings=1))
    with closing(queue.turn("a")) as working, closing(queue.turn("a")) as waiting:
        until_begun(working)
        next(waiting)
        with pytest.raises(LimitExceeded, match="A training of yours is waiting already"):
            next(queue.turn("a"))
        with closing(queue.turn("b")) as other:
            next(other)
            with pytest.raises(LimitExceeded, match="2 trainings are waiting already"):
                next(queue.turn("c"))


def test_other_work_takes_the_machine_as_from_a_lock() -> None:
    queue = TrainingQueue()
    assert queue.acquire(blocking=False) and not queue.acquire(blocking=False)
    assert not queue.acquire(timeout=0.05)
    with closing(queue.turn("a")) as turn:
        assert next(turn).words().startswith("A moment: the speed")
        queue.release()
        until_begun(turn)
        assert not queue.acquire(blocking=False)
    with queue:
        assert queue.is_busy
    assert not queue.is_busy
