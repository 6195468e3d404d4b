"""GGUF files converted once: transformers reads them slowly, and what it reads is kept as a safetensors checkpoint.

A converted file lies in the user's cache folder under its SHA-256. Every step leaves either nothing or a complete
checkpoint, so a conversion that was cancelled or killed at any point heals at the next start.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from steering.errors import LoadingCancelled
from steering.models import bundled
from steering.models.bundled import convert_checkpoint, is_complete
from steering.paths import cache_dir

PARTIAL = "partial-"
NEEDED_FILES = tuple(name for name in bundled.NEEDED_FILES if name != "chat_template.jinja")  # base models have none
MAX_BYTES = 20_000_000_000
"""Of all converted files together, unless `STEERING_GGUF_CACHE_GB` says otherwise; those used longest ago go first."""
HEADER_READS = 4
"""The conversion takes so many times as long as reading the header, which holds the vocabulary; fitted with the next
constant to Gemma 3 270M (header 10 s, conversion 48 s) and Qwen2.5 0.5B (7 s and 51 s) on 2 cores."""
BYTES_A_SECOND = 1e8
"""Of float32 weights, on top of that."""
POLL_SECONDS = 0.2
"""Between two looks at a conversion."""
CONVERT = "import sys; from pathlib import Path; from {module} import {function}; {function}(*map(Path, sys.argv[1:]))"


def conversion_of(gguf: Path) -> Path | None:
    """Return the folder of a file's conversion, if there is a complete one; reads no more of the file than needed."""
    digest = _known_digest(gguf)
    folder = _home() / digest if digest else None
    return folder if folder and is_complete(folder, NEEDED_FILES) else None


def cached_conversion(
    gguf: Path, say: Callable[[str], None], should_stop: Callable[[], bool] = lambda: False
) -> Path | None:
    """Return the folder of a GGUF file's conversion to float32 safetensors, made on the first call.

    The conversion runs in a process of its own, so that it can be given up, and its memory is free afterwards. None
    where the disk has no room for it: the file is then read as it is.

    Args:
        say: gets a sentence before what takes long; should_stop: once True, the work is given up.

    Raises:
        LoadingCancelled: `should_stop` said so.
        ValueError: transformers cannot read the file; the message is its own.
    """
    digest = _known_digest(gguf) or _remembered(gguf, _sha256(gguf, should_stop))
    home = _home()
    folder = home / digest
    with _alone(home / f"{digest}.lock", should_stop):
        if not is_complete(folder, NEEDED_FILES):
            began = time.monotonic()
            room = 4 * _weights_of(gguf)
            seconds = HEADER_READS * (time.monotonic() - began) + room / BYTES_A_SECOND
            if shutil.disk_usage(home).free < 1.2 * room or room > _limit():
                return None
            make_room(home, room)
            say(f"Converting {gguf.stem} for transformers, once (about {max(10, round(seconds, -1)):.0f} seconds) ...")
            # What a killed start left: the lock says that nobody works there now.
            for leftover in (folder, *home.glob(f"{PARTIAL}{digest}-*")):
                shutil.rmtree(leftover, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=home, prefix=f"{PARTIAL}{digest}-") as scratch:
                _convert(gguf, Path(scratch) / "checkpoint", should_stop)
                os.replace(Path(scratch) / "checkpoint", folder)
        os.utime(folder)
    return folder


def _convert(gguf: Path, target: Path, should_stop: Callable[[], bool]) -> None:
    code = CONVERT.format(module=convert_checkpoint.__module__, function=convert_checkpoint.__name__)
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", code, str(gguf.resolve()), str(target)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            while process.poll() is None:
                if should_stop():
                    raise LoadingCancelled("The loading was cancelled.")
                time.sleep(POLL_SECONDS)
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            said.seek(0)
            lines = [line.strip() for line in said.read().splitlines() if line.strip()]
            raise ValueError(lines[-1].partition(": ")[2] or lines[-1] if lines else "the conversion was killed")


@contextmanager
def _alone(lock: Path, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Hold a lock, waiting for another start that converts the same file."""
    file = FileLock(lock)
    while True:
        try:
            file.acquire(timeout=POLL_SECONDS)
            break
        except Timeout:
            if should_stop():
                raise LoadingCancelled("The loading was cancelled.") from None
    try:
        yield
    finally:
        file.release()


def make_room(home: Path, wanted: int) -> None:
    """Delete conversions used longest ago until the new one fits the limit."""
    kept = sorted((folder for folder in home.iterdir() if folder.is_dir()), key=lambda folder: folder.stat().st_mtime)
    sizes = {folder: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) for folder in kept}
    for folder in kept:
        if sum(sizes.values()) + wanted <= _limit():
            return
        try:
            digest = folder.name.removeprefix(PARTIAL).partition("-")[0]
            with FileLock(home / f"{digest}.lock", timeout=0):  # one that another start makes or looks at stays
                shutil.rmtree(folder, ignore_errors=True)
        except Timeout:
            continue
        del sizes[folder]


def _limit() -> int:
    try:
        return int(float(os.environ["STEERING_GGUF_CACHE_GB"]) * 1e9)
    except (KeyError, ValueError):
        return MAX_BYTES


def _weights_of(gguf: Path) -> int:
    """Count a file's weights."""
    from gguf import GGUFReader

    try:
        return sum(int(tensor.n_elements) for tensor in GGUFReader(gguf).tensors)
    except Exception as error:  # whatever a damaged file makes of the reader
        raise ValueError("the file is damaged or not GGUF") from error


# Digests --------------------------------------------------------------------------------------------------------------


def _known_digest(gguf: Path) -> str | None:
    """Return a file's SHA-256 if it was computed before and the file has not changed since (size and time)."""
    known = _digests().get(str(gguf.resolve()))
    return known[2] if known and known[:2] == _stamp(gguf) else None


def _remembered(gguf: Path, digest: str) -> str:
    index = _home() / "digests.json"
    with FileLock(index.with_suffix(".lock")):
        digests = {**_digests(), str(gguf.resolve()): [*_stamp(gguf), digest]}
        partial = index.with_suffix(".partial")
        partial.write_text(json.dumps(digests), encoding="utf-8")
        os.replace(partial, index)
    return digest


def _digests() -> dict[str, list]:
    try:
        found = json.loads((_home() / "digests.json").read_text(encoding="utf-8"))
        return {path: known for path, known in found.items() if isinstance(known, list) and len(known) == 3}
    except (OSError, ValueError, AttributeError):
        return {}


def _stamp(gguf: Path) -> list[int]:
    status = gguf.stat()
    return [status.st_size, status.st_mtime_ns]


def _sha256(path: Path, should_stop: Callable[[], bool]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
            if should_stop():
                raise LoadingCancelled("The loading was cancelled.")
    return digest.hexdigest()


def _home() -> Path:
    home = cache_dir() / "gguf"
    home.mkdir(parents=True, exist_ok=True)
    return home
