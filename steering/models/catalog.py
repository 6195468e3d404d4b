"""Stub."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ModelInfo:
    kind: str
    name: str
    source: str
    file_bytes: int | None
    memory_bytes: int | None
    free_bytes: int
    fits: bool
    problem: str = ""
    note: str = ""


_r: list[str] = []


def describe_model(source):
    p = Path(str(source))
    if str(source) == "SmolLM2-135M-Instruct":
        return ModelInfo("bundled", str(source), str(source), 98_000_000, 540_000_000, 8_000_000_000, True)
    if not p.exists():
        return ModelInfo(
            "folder",
            p.name,
            str(source),
            None,
            None,
            8_000_000_000,
            True,
            f"{source}: there is no such file or folder; check the path.",
        )
    n = p.stat().st_size
    return ModelInfo(
        "gguf", p.stem, str(source), n, 4 * n, 8_000_000_000, True, "", "It is converted once, about 20 s."
    )


def recent_models():
    return list(_r)


def remember_model(source):
    if source not in _r:
        _r.insert(0, str(source))
