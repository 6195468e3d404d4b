"""What one visitor of a page may ask for: one frozen set of limits, checked by the calls that do the work.

`Limits()` bounds nothing, which is what Python programs and the command line get. A page has `Limits.local()`, or
`Limits.public()` where strangers come by; each field can be set by an environment variable, such as
`STEERING_LIMIT_PAIRS=500` or `STEERING_LIMIT_PAIRS=none`.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from steering.errors import SteeringError

PREFIX = "STEERING_LIMIT_"
"""Of the environment variables; the field's name follows in capitals."""
PUBLIC_SWITCH = "STEERING_PUBLIC"
LOCAL_ADDRESSES = ("", "127.0.0.1", "localhost", "::1")
"""Of gradio's GRADIO_SERVER_NAME: those that only this machine reaches."""
MOST_CONVERSATION = 8
"""A conversation may have this many times the characters of one prompt: earlier turns and their answers are sent along
with each request."""


@dataclass(frozen=True)
class Limits:
    """Bounds on one visitor's requests; None bounds nothing.

    Attributes:
        new_tokens: tokens of an answer.
        columns: answers that are decoded together in one request.
        prompt_characters: of a prompt, and of a system prompt; a conversation may have `MOST_CONVERSATION` times that.
        pairs: preference pairs of one training, those held out included, and of one draft.
        pair_characters: of one pair's texts together.
        batch_size: pairs of one training step.
        refused_efforts: names of the presets that are not offered, because they take hours.
        training_seconds: of one training, or one draft; at the end the best so far is kept.
        trainings_waiting: trainings that may wait for their turn, of all visitors together.
        visitor_trainings: that may wait of one visitor.
        upload_bytes: of one file that is brought; download_bytes: of one that is read from the Hub.
        vectors: on a visitor's own shelf.
        visitor_hours: after which what a visitor left is deleted, counted from the last visit.
        visitors: that may keep something at a time.
        disk_bytes: of all visitors' folders and uploads together.
        owner_login: whether data sets of the Hub are read with the login of whoever runs the page, and so private ones.
    """

    new_tokens: int | None = None
    columns: int | None = None
    prompt_characters: int | None = None
    pairs: int | None = None
    pair_characters: int | None = None
    batch_size: int | None = None
    refused_efforts: tuple[str, ...] | None = None
    training_seconds: float | None = None
    trainings_waiting: int | None = None
    visitor_trainings: int | None = None
    upload_bytes: int | None = None
    download_bytes: int | None = None
    vectors: int | None = None
    visitor_hours: float | None = None
    visitors: int | None = None
    disk_bytes: int | None = None
    owner_login: bool = True

    @classmethod
    def local(cls) -> Self:
        """Return what a page on one's own machine bounds: slips, such as a file of the wrong kind."""
        return cls(new_tokens=512, columns=16, prompt_characters=20_000, trainings_waiting=16, upload_bytes=100_000_000)

    @classmethod
    def public(cls) -> Self:
        """Return what lets a dozen strangers share two CPU cores: answers in seconds, a training in minutes."""
        return cls(
            new_tokens=128,
            columns=5,  # a sweep
            prompt_characters=2_000,
            pairs=200,
            pair_characters=4_000,
            batch_size=8,
            refused_efforts=("paper",),
            training_seconds=120.0,
            trainings_waiting=8,
            visitor_trainings=1,
            upload_bytes=5_000_000,
            download_bytes=5_000_000,
            vectors=20,
            visitor_hours=24.0,
            visitors=2_000,
            disk_bytes=2_000_000_000,
            owner_login=False,
        )

    def from_environment(self, environment: Mapping[str, str] | None = None) -> Self:
        """Return these limits, with those of environment variables in place; SteeringError for an unsound value."""
        environment = os.environ if environment is None else environment
        changed = {
            field.name: _parsed(PREFIX + field.name.upper(), environment[PREFIX + field.name.upper()], field.type)
            for field in fields(self)
            if environment.get(PREFIX + field.name.upper(), "").strip()
        }
        return replace(self, **changed)

    def check_request(self, columns: int, new_tokens: int, prompt: str, system: str, history: Iterable[str]) -> None:
        """Raise LimitExceeded for a request for answers that asks too much.

        Args:
            columns: answers asked for; new_tokens: most tokens of each.
            history: texts of the longest conversation before the prompt.
        """
        self._check("columns", columns, "{count} columns were asked for; {most} are the most here.")
        self._check("new_tokens", new_tokens, "{count} new tokens were asked for; {most} are the most here.")
        for name, text in (("prompt", prompt), ("system prompt", system)):
            words = f"The {name} has {{count}} characters; {{most}} are the most here."
            self._check("prompt_characters", len(text), words)
        if self.prompt_characters is not None:
            total, most = sum(map(len, history)), MOST_CONVERSATION * self.prompt_characters
            if total > most:
                raise LimitExceeded(
                    f"The conversation has {total:,} characters; {most:,} are the most here. Begin anew."
                )

    def check_pairs(self, count: int, longest: int) -> None:
        """Raise LimitExceeded for too many pairs, or too long a one, in characters of all its texts."""
        self._check("pairs", count, "There are {count} pairs; {most} are the most here. Bring fewer.")
        self._check("pair_characters", longest, "A pair has {count} characters; {most} are the most here. Shorten it.")

    def check_batch_size(self, batch_size: Any) -> None:
        """Raise LimitExceeded for a training setting `batch_size` that is too large; other values are the method's."""
        if isinstance(batch_size, int):
            self._check("batch_size", batch_size, "batch_size is {count}; {most} is the most here.")

    def check_effort(self, effort: str) -> None:
        """Raise LimitExceeded for a preset that is not offered."""
        if not self.offers(effort):
            raise LimitExceeded(f"The effort {effort!r} takes too long to be offered here; choose a shorter one.")

    def offers(self, effort: str) -> bool:
        """Tell whether a preset may be chosen."""
        return effort not in (self.refused_efforts or ())

    def check_vectors(self, count: int) -> None:
        """Raise LimitExceeded for a shelf with so many vectors of the visitor's own."""
        self._check("vectors", count, "Your shelf holds {most} vectors, the most here; download and delete one first.")

    def check_file(self, path: Path) -> None:
        """Raise LimitExceeded for a file of more bytes than may be brought; one that is not there is for its reader."""
        if path.is_file():
            self.check_upload(path.stat().st_size)

    def check_upload(self, size: int) -> None:
        """Raise LimitExceeded for more bytes than may be brought."""
        _check_bytes(size, self.upload_bytes)

    def check_download(self, size: int) -> None:
        """Raise LimitExceeded for more bytes than may be read from the Hub."""
        _check_bytes(size, self.download_bytes)

    def words(self) -> str:
        """Say the limits that a visitor may meet, in one line; empty where nothing is bounded."""
        parts = [
            (self.new_tokens, "answers of {:,} tokens"),
            (self.columns, "{:,} columns"),
            (self.prompt_characters, "prompts of {:,} characters"),
            (self.pairs, "{:,} pairs"),
            (self.training_seconds, "{:,.0f} seconds of training"),
            (self.vectors, "{:,} vectors of your own"),
        ]
        return ", ".join(words.format(value) for value, words in parts if value is not None)

    def _check(self, name: str, count: int, words: str) -> None:
        most = getattr(self, name)
        if most is not None and count > most:
            raise LimitExceeded(words.format(count=f"{count:,}", most=f"{most:,}"))


def _check_bytes(size: int, most: int | None) -> None:
    if most is not None and size > most:
        raise LimitExceeded(f"The file has {size / 1e6:.1f} MB; {most / 1e6:g} MB are the most here. Keep fewer pairs.")


NO_LIMITS = Limits()


class LimitExceeded(SteeringError):
    """More was asked for than a visitor may have; on a Space the sentence says how to have a page alone."""

    def __init__(self, sentence: str) -> None:
        super().__init__(" ".join(filter(None, [sentence, duplicate_hint()])))


def is_space(environment: Mapping[str, str] | None = None) -> bool:
    """Tell whether this process runs on a Hugging Face Space."""
    return (os.environ if environment is None else environment).get("SYSTEM") == "spaces"


def is_public(*, share: bool = False) -> bool:
    """Tell whether strangers may come by: on a Space, with a public link, or where STEERING_PUBLIC says so.

    `STEERING_PUBLIC=0` takes the limits off a Space that is private.
    """
    switch = os.environ.get(PUBLIC_SWITCH, "").strip().lower()
    if switch:
        return switch not in ("0", "no", "off", "false")
    return share or is_space()


def duplicate_address() -> str:
    """Return where a visitor gets a copy of this Space; empty where this is none."""
    space = os.environ.get("SPACE_ID", "")
    return f"https://huggingface.co/spaces/{space}?duplicate=true" if space and is_space() else ""


def duplicate_hint() -> str:
    """Say how to have a Space without these limits; empty where this is none."""
    address = duplicate_address()
    return f"Duplicate this Space for one of your own, with limits of your own: {address}" if address else ""


def _parsed(name: str, text: str, annotation: Any) -> Any:
    """Read an environment variable as its field's annotation has it."""
    text, kind = text.strip(), str(annotation)
    if text.lower() == "none":
        return True if annotation is bool else None
    if annotation is bool:
        return text.lower() in ("1", "yes", "on", "true")
    if kind.startswith("tuple"):
        return tuple(word.strip() for word in text.split(",") if word.strip())
    try:
        value: float = float(text) if kind.startswith("float") else int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 1e18:
        raise SteeringError(f"{name} is {text[:40]!r}; give a number, or none for no limit.")
    return value
