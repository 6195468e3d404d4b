"""Hidden states come back as they were stored, from memory and from disk, and a full disk costs only time."""

import io

import pytest
import torch

from steering.scoring.fast import activation_cache
from steering.scoring.fast.activation_cache import ActivationCache


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory", [0, 1000, 10**9])
def test_bit_for_bit(dtype, memory):
    cache = ActivationCache(memory)
    stored = {i: torch.randn(3 + i, 32).to(dtype) for i in range(6)}
    for i, each in stored.items():
        cache.add(i, each)
    assert all(i in cache and torch.equal(cache[i], each) for i, each in stored.items())
    assert 7 not in cache and not cache.problem


def test_what_is_stored_twice_takes_room_once():
    cache = ActivationCache(300)
    for _ in range(3):
        cache.add(0, torch.ones(4, 8))
    cache.add(1, torch.zeros(4, 8))
    assert cache.memory_left == 300 - 2 * 128 and torch.equal(cache[0], torch.ones(4, 8))


class FullDisk(io.BytesIO):
    """A file on a disk with room for one pair of 4 tokens of 8 float32 numbers."""

    def write(self, data):
        if self.tell() + len(data) > 128:
            raise OSError(28, "No space left on device")
        return super().write(data)


def test_a_disk_that_fills_up(monkeypatch, caplog):
    monkeypatch.setattr(activation_cache.tempfile, "TemporaryFile", lambda **_: FullDisk())
    cache = ActivationCache(0)
    cache.add(0, torch.ones(4, 8))
    cache.add(1, torch.ones(4, 8))
    cache.add(2, torch.ones(4, 8))
    assert 0 in cache and torch.equal(cache[0], torch.ones(4, 8))
    assert 1 not in cache and 2 not in cache
    assert "No space left on device" in cache.problem and "of 1 pairs" in cache.problem
    assert cache.problem in caplog.text


def test_a_folder_that_refuses(monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(activation_cache.tempfile, "TemporaryFile", refuse)
    cache = ActivationCache(0)
    cache.add(0, torch.ones(4, 8))
    assert 0 not in cache and "Permission denied" in cache.problem


def test_the_rest_of_the_disk_is_left_to_others(monkeypatch):
    monkeypatch.setattr(activation_cache, "DISK_RESERVE", 10**18)
    cache = ActivationCache(0)
    cache.add(0, torch.ones(4, 8))
    assert 0 not in cache and "little room" in cache.problem
