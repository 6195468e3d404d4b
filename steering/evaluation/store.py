"""An evaluation's folder: what was asked for, every answer as it was judged, and the results.

`settings.json` is written first, `answers.jsonl` grows chunk by chunk, `results.json` and `report.html` come at the
end. A run that was killed goes on from its answers.
"""

import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steering.errors import SteeringError
from steering.evaluation.answers import Answer, Arm
from steering.vectors.vector import library_versions

Answers = dict[tuple[Arm, int], Answer]
"""(who wrote it, number of the prompt) -> the answer."""


@dataclass(frozen=True)
class RunFolder:
    """One evaluation on disk.

    Attributes:
        path: the folder; it is made when something is written.
    """

    path: Path

    def begin(self, facts: dict[str, Any]) -> None:
        """Write what is asked for, unless it is there."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / "settings.json").is_file():
            machine = {"python": platform.python_version(), "machine": platform.machine(), **dict(library_versions())}
            self._write("settings.json", facts | {"versions": machine})

    def check(self, key: str) -> None:
        """Raise SteeringError if another evaluation is in the folder than the one with this key."""
        if (self.path / "settings.json").is_file() and self.facts().get("key") != key:
            raise SteeringError(f"{self.path} holds another evaluation; name another folder, or delete that one.")

    def facts(self) -> dict[str, Any]:
        """Read what was asked for; SteeringError if this is no folder of an evaluation."""
        return self._read("settings.json")

    def results(self) -> dict[str, Any]:
        """Read the results; SteeringError if the evaluation has not ended."""
        return self._read("results.json")

    def finish(self, results: dict[str, Any]) -> None:
        """Write the results."""
        self._write("results.json", results)

    def append(self, answers: Iterable[Answer]) -> None:
        """Append answers in one piece; a chunk that a kill cuts off is written again by the next run."""
        text = "".join(answer.to_line() + "\n" for answer in answers)
        with (self.path / "answers.jsonl").open("a", encoding="utf-8") as file:
            file.write(text)

    def answers(self) -> Answers:
        """Read the answers so far; a line that was cut off is left out, and what was written twice counts once."""
        file = self.path / "answers.jsonl"
        found: Answers = {}
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
            try:
                answer = Answer.from_line(line)
            except (ValueError, KeyError, TypeError):
                continue
            found[answer.arm, answer.prompt] = answer
        return found

    def remembered(self) -> dict[str, float]:
        """Read numbers that were found out on the way."""
        file = self.path / "found.json"
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}

    def remember(self, found: dict[str, float]) -> None:
        """Keep numbers, so that a resumed run need not find them out again."""
        self._write("found.json", found)

    def mend(self) -> None:
        """End a line that was cut off, so that the next one begins on its own."""
        file = self.path / "answers.jsonl"
        if file.is_file() and (data := file.read_bytes()) and not data.endswith(b"\n"):
            with file.open("ab") as end:
                end.write(b"\n")

    def _write(self, name: str, content: dict[str, Any]) -> None:
        part = self.path / f".{name}.part"
        try:
            part.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")
            part.replace(self.path / name)
        except OSError as error:
            raise SteeringError(f"{self.path} cannot be written to ({error.strerror}); free some space.") from error

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
            assert isinstance(content, dict)
        except (OSError, ValueError, AssertionError):
            is_run = name == "results.json" and (self.path / "settings.json").is_file()
            what = (
                "its results are not there yet; let it run to its end" if is_run else "it is no folder of an evaluation"
            )
            raise SteeringError(f"{self.path}: {what} (`steering evaluate ... --report`).") from None
        return content
