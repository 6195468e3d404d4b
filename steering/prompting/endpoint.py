"""Answers written by a server that speaks OpenAI's chat API: vLLM, llama.cpp, Ollama, or a company's."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from steering.errors import SteeringError
from steering.pairs.schema import Message, shortened

KEYS = ("STEERING_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key; it is read nowhere else, and never written."""
TIMEOUT = httpx.Timeout(60.0, connect=10.0)
"""Seconds for an answer, and for reaching the server."""
RETRIES, PAUSE = 4, 1.0
"""After 429 and 5xx: so often, after so many seconds, twice as long each time."""
LONGEST_PAUSE = 30.0


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server: its address up to `/v1`, and the name of the model there."""

    url: str
    model: str

    def __post_init__(self) -> None:
        """Raise SteeringError for what is no web address, or without a model's name."""
        try:
            parts = urlsplit(self.url.strip())
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:  # an address or a port that is none
            sound = False
        if not sound:
            raise SteeringError(f"{shortened(self.url)}: this is no web address; write it as https://host/v1.")
        if not self.model.strip():
            raise SteeringError("The endpoint's model has no name; write it as the server knows it.")

    def answer(
        self, messages: Sequence[Message], *, max_tokens: int, temperature: float, seed: int
    ) -> tuple[str, int, bool]:
        """Ask for one answer.

        Returns:
            (text, tokens that it cost in all, whether it was cut off at `max_tokens`).

        Raises:
            SteeringError: not reached, refused, or not an answer; the key is in none of its messages.
        """
        request = {
            "model": self.model.strip(),
            "messages": [{"role": role, "content": content} for role, content in messages],
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        key = next((value for name in KEYS if (value := os.environ.get(name))), "")
        headers = {"Authorization": f"Bearer {key}"} if key and self.is_private else {}
        response = self._posted(request, headers)
        try:
            found = response.json()
            choice = found["choices"][0]
            text = choice["message"]["content"]
            tokens = int((found.get("usage") or {}).get("total_tokens") or 0)
            assert isinstance(text, str)
        except (ValueError, KeyError, IndexError, TypeError, AssertionError) as error:
            raise SteeringError(
                f"{self.host} does not answer as a chat API does; is {self.url} its /v1 address?"
            ) from error
        return text, tokens, choice.get("finish_reason") == "length"

    @property
    def is_private(self) -> bool:
        """Whether a key may be sent: over https, or without it to this machine, where nobody reads along."""
        parts = urlsplit(self.url.strip())
        return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")

    @property
    def host(self) -> str:
        """The server's name, for messages."""
        return urlsplit(self.url.strip()).netloc.rpartition("@")[2]

    def _posted(self, request: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
        url = f"{self.url.strip().rstrip('/')}/chat/completions"
        for attempt in range(RETRIES + 1):
            try:
                # No redirects: they could carry prompts and key to another host.
                response = httpx.post(url, json=request, headers=headers, timeout=TIMEOUT, follow_redirects=False)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                reason = shortened(str(error) or type(error).__name__, 80)
                raise SteeringError(f"{self.host} cannot be reached ({reason}); check the address.") from None
            busy = response.status_code == 429 or response.status_code >= 500
            if not busy or attempt == RETRIES:
                break
            time.sleep(min(_asked_pause(response) or PAUSE * 2**attempt, LONGEST_PAUSE))
        if response.status_code == 200:
            return response
        raise SteeringError(self._refusal(response.status_code))

    def _refusal(self, status: int) -> str:
        if status in (401, 403):
            return f"{self.host} refuses the key; put a valid one into the environment variable {KEYS[0]}."
        if status == 404:
            return f"{self.host} knows no model {shortened(self.model)!r} or no such address; check both."
        if status == 429:
            return f"{self.host} is busy or the quota is used up (429); try again later."
        return f"{self.host} answers {status}; try again later, or another server."


def _asked_pause(response: httpx.Response) -> float | None:
    try:
        return float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return None
