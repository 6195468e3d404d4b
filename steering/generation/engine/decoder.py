"""The forward passes of decoding: the prompt read once for all rows, then token after token.

What made a step slow on a CPU, and what is done about it (measured with the bundled model on two cores):

- two cores that share one product of a few rows spend most of a step waking and waiting for each other: a step runs on
  one core, which reads the weights as fast as memory hands them out; only the prompt uses all cores;
- the prompt is the same in every row: its blocks up to the first steered layer run for one row, and adding the rows'
  vectors there makes rows of it, so that nothing before that layer is computed twice;
- the products are bound by the weights' bytes: held as float16 (`weights="float16"`), a step takes half the time, and
  the prompt three quarters;
- what is left between the products goes where the model is built like Llama and float16 is in use: the step is written
  out (see `lean_step`), and several rows are stepped in lanes, one a core, which wait for each other once a step;
  prompts are read by the same operations, those of several visitors in one pass (see `lean_read`).

Whether a model can be run so is found out once, against the plain forward pass; one that cannot is run the plain way.
"""

import inspect
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache

from steering.errors import SteeringError
from steering.generation.engine.fp16_weights import with_float16_weights
from steering.generation.engine.llama.decode_step import Lane, Lean
from steering.generation.engine.llama.prefill import Reading, read
from steering.generation.engine.prefix_cache import PrefixCache
from steering.intervention.additions import Additions, placed
from steering.intervention.hooks import steered
from steering.models.loading import LanguageModel
from steering.runtime.cpu_threads import on_one_core

WEIGHTS = ("full", "float16")
PROBE_IDS = 6
PROBE_STEPS = 10
PROBE_TEXT = "The quick brown fox jumps over the lazy dog, and then it sits down by the river to think about its day."

Result = TypeVar("Result")


class Decoder:
    """How one model is run when it writes. Holds parts of the model, not the `LanguageModel` itself.

    Attributes:
        network, blocks: read the prompt and write the answer; the model's own, or a twin with float16 weights.
        lean: reads and writes in their place, on `cores` lanes; None where it cannot be had, always for full weights.
        shares_prompt: whether the prompt is read once for all rows.
        kl: mean KL divergence in nats of the next tokens as written from the model's, over a sentence; 0 for the
            model's own weights.
        lays_together: whether rows of different prompts can be one batch; None until `shared_batch` has tried.
        why_full: why float16 weights were asked for and are not in use; empty otherwise.
    """

    def __init__(self, model: LanguageModel, weights: str = "full") -> None:
        self.network, self.blocks, self.device = model.network, model.blocks, model.device
        self.kl, self.why_full = 0.0, ""
        self.lean: Lean | None = None
        self.cores = torch.get_num_threads()
        self.hidden_size = model.hidden_size
        self.lays_together: bool | None = None
        parameters = inspect.signature(model.network.forward).parameters
        self.head_once = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self.shares_prompt = False
        self.shares_prompt = self.on_step_cores(lambda: self._can_share())
        if weights == "float16":
            self._lighten(model)

    def on_step_cores(self, function: Callable[[], Result]) -> Result:
        """`function()`, a step of decoding, on as many cores as are good for it."""
        return on_one_core(function) if self.device.type == "cpu" else function()

    @torch.inference_mode()
    def _can_share(self) -> bool:
        """Whether one row for the prompt gives what a row for each column gives, for a prompt and two more tokens."""
        ids = probe_ids(self.network)
        push = torch.randn(2, self.hidden_size, generator=torch.Generator().manual_seed(0)).to(self.device)
        additions = {"all": {len(self.blocks) // 2: push}, "answer": {}}
        tolerance = 1e-3 if self.network.dtype == torch.float32 else 5e-2
        try:
            plain, shared = (Batch(self, ids, additions, range(2)) for _ in range(2))
            shared.shares_prompt = True
            for token in ids[:3]:
                want, got = plain.logits(), shared.logits()
                if want.shape != got.shape or not (got - want).abs().max() <= tolerance * want.std():
                    return False
                for batch in (plain, shared):
                    batch.advance(torch.tensor([token, token], device=self.device), [0, 1])
        except Exception:  # whatever way an architecture has to refuse, the plain way remains
            return False
        return True

    @torch.inference_mode()
    def _lighten(self, model: LanguageModel) -> None:
        light, self.why_full = with_float16_weights(model.network)
        if light is None:
            return
        self.network, self.blocks = light, light.get_submodule(model.blocks_path)
        lean = Lean.of(light, self.blocks)
        if lean is not None and self.on_step_cores(lambda: self._steps_as(lean)):
            self.lean = lean
        ids = model.tokenizer(PROBE_TEXT)["input_ids"]
        want = model.network(input_ids=torch.tensor([ids], device=self.device)).logits[0].float().log_softmax(-1)
        got = self.on_step_cores(lambda: self._written(ids)).log_softmax(-1)
        self.kl = float((want[-len(got) :].exp() * (want[-len(got) :] - got)).sum(-1).mean().clamp_min(0))

    @torch.inference_mode()
    def _steps_as(self, lean: Lean) -> bool:
        """Whether rows of two prompts get by one pass and in one lane what the network gives each, on a few tokens."""
        ids = probe_ids(self.network)
        push = torch.randn(2, self.hidden_size, generator=torch.Generator().manual_seed(2))
        middle, last = len(self.blocks) // 2, len(self.blocks) - 1
        batches = [
            Batch(self, ids, {"all": {middle: push}, "answer": {}}, range(2)),
            Batch(self, ids[2:5], {"all": {last: push}, "answer": {}}, range(2)),
        ]
        lane = Lane(lean)
        try:
            readings = read(lean, [batch.reading() for batch in batches])
            for batch, (got, states) in zip(batches, readings, strict=True):
                if not _is_near(got, batch.logits()):
                    return False
                for ours, theirs in zip(states, batch.cache.layers, strict=True):
                    if not _is_near(ours.expand(-1, 2, -1, -1, -1), torch.stack([theirs.keys, theirs.values])):
                        return False
                lane.join(batch.cache, batch.additions["all"], range(2))
                batch.advance(torch.tensor(ids[:2]), [0, 1])
            for token in ids[1:4]:
                got = lane.step([int(row[-1]) for batch in batches for row in batch.tokens])
                if not _is_near(got, torch.cat([batch.logits() for batch in batches])):
                    return False
                for batch in batches:
                    batch.advance(torch.tensor([token, token + 1]), [0, 1])
        except Exception:  # whatever way an architecture has to differ, the plain way remains
            return False
        return True

    @torch.inference_mode()
    def _written(self, ids: list[int]) -> Tensor:
        """float32 [tokens, vocabulary]: what is predicted after each of the last ids, written one after another."""
        start = max(1, len(ids) - PROBE_STEPS)
        batch = Batch(self, ids[:start], {"all": {}, "answer": {}}, [0])
        batch.logits()
        if self.lean is not None:
            lane = Lane(self.lean)
            lane.join(batch.cache, {}, [0])
            return torch.cat([lane.step([token]) for token in ids[start:]])
        written = []
        for token in ids[start:]:
            batch.advance(torch.tensor([token], device=self.device), [0])
            written.append(batch.logits())
        return torch.cat(written)


class Batch:
    """Rows that answer one prompt: their tokens, key-value cache and additions. A finished row leaves all three.

    Attributes:
        rows: numbers of the rows still written, in the order of the batch.
        tokens: int64 [rows, positions], prompt and answers.
        cache: the key-value cache; None before the first pass, and for a model without one.
        additions: token scope -> layer -> float32 [rows, hidden_size].
        prefixes: what need not be read again, where the lean way is taken; None keeps and takes nothing.
    """

    def __init__(
        self,
        decoder: Decoder,
        ids: list[int],
        additions: dict[str, Additions],
        rows: Sequence[int],
        prefixes: PrefixCache | None = None,
    ) -> None:
        self.decoder, self.additions = decoder, additions
        self.prefixes = prefixes if decoder.lean is not None else None
        self.rows = list(rows)
        self.tokens = torch.tensor([ids] * len(self.rows), device=decoder.device)  # one prompt for all: no padding
        self.cache = None
        self.shares_prompt = decoder.shares_prompt
        self._prompt_length = len(ids)

    @property
    def reads_prompt(self) -> bool:
        """Whether the next pass is the first."""
        return self.tokens.shape[1] == self._prompt_length

    @torch.inference_mode()
    def logits(self) -> Tensor:
        """float32 [rows, vocabulary] for the next token of every row."""
        if self.reads_prompt:
            return read_prompts([self])[0]
        fresh = self.tokens if self.cache is None else self.tokens[:, -1:]
        return self._pass(fresh, self.additions)

    def advance(self, chosen: Tensor, going: list[int]) -> None:
        """Append each row's token; keep only the rows at the places `going`."""
        self.tokens = torch.cat([self.tokens, chosen[:, None]], dim=1)
        if len(going) == len(self.rows):
            return
        self.rows = [self.rows[place] for place in going]
        if not going:
            self.cache = None
            return
        keep = torch.tensor(going, device=self.tokens.device)
        self.tokens = self.tokens[keep]
        self.additions = _rows_of(self.additions, keep)
        if self.cache is not None:
            self.cache.reorder_cache(keep)  # keeps these rows; unlike batch_select_indices, every kind of cache has it

    def _read_prompt(self) -> Tensor:
        """By the network itself."""
        if not self.shares_prompt:
            return self._pass(self.tokens, self.additions)
        different, of_row = self._different_rows()
        one_each = _rows_of(self.additions, different)
        steered_layers = [layer for additions in one_each.values() for layer in additions]
        shared = min(steered_layers, default=len(self.decoder.blocks) - 1) + 1
        # One row goes in. Where the first vectors are added it becomes several, one for each different setting.
        logits = self._pass(self.tokens[:1], one_each).expand(len(different), -1)
        for number, layer in enumerate(self.cache.layers if self.cache is not None else ()):
            if number < shared and len(of_row) > 1:
                layer.reorder_cache(torch.zeros_like(of_row))
            elif len(different) < len(of_row):
                layer.reorder_cache(of_row)
        return logits[of_row]

    def reading(self) -> Reading:
        """What there is to read of the prompt, the lean way."""
        different, _ = self._different_rows()
        known = self._known(different.tolist())
        ids = self.tokens[0, known[0].shape[3] if known else 0 :].tolist()
        one_each = _rows_of(self.additions, different)
        return Reading(ids, known, placed(one_each["all"], one_each["answer"], len(ids), len(ids) - 1))

    def take(self, logits: Tensor, states: list[Tensor]) -> Tensor:
        """Take in what `lean_read.read` has made of `reading`; as `logits`."""
        different, of_row = self._different_rows()
        every = [layer.expand(-1, len(different), -1, -1, -1) for layer in states]
        self.cache = DynamicCache([tuple(layer[:, of_row]) for layer in every])
        for number, place in enumerate(different.tolist()) if self.prefixes is not None else ():
            self.remember(place, torch.stack([layer[:, number] for layer in every], dim=1))
        return logits[of_row]

    def recall(self) -> bool:
        """Begin with all of the prompt but its last token, if that is known in every row; the next pass is a step."""
        different, of_row = self._different_rows()
        found = self._known(different.tolist())
        if not found or found[0].shape[3] < self._prompt_length - 1:
            return False
        self.cache = DynamicCache(zip(*torch.stack(found, dim=2)[:, :, of_row], strict=True))
        return True

    def _known(self, places: list[int]) -> list[Tensor]:
        """What is known of the prompt in each of these rows, all cut to the shortest; nothing if a row knows nothing.

        The prompt's last token is never among it: what follows that is asked for.
        """
        if self.prefixes is None:
            return []
        ids, found = self.tokens[0, :-1].tolist(), []
        for place in places:
            everywhere, in_answers = self._steering(place)
            states = None if in_answers else self.prefixes.longest(everywhere, ids)
            if states is None:
                return []
            found.append(states)
        length = min(states.shape[3] for states in found)
        return [states[:, :, :, :length] for states in found]

    def remember(self, place: int, states: Tensor) -> None:
        """Keep a row's keys and values, [2, layers, kv_heads, positions, head_dim]; needs `prefixes`."""
        everywhere, in_answers = self._steering(place)
        if not in_answers:  # in the next turn this answer is prompt, and that is not steered
            self.prefixes.keep(everywhere, self.tokens[place, : states.shape[3]].tolist(), states)

    def _steering(self, place: int) -> tuple[bytes, bytes]:
        """What is added to a row, everywhere and in answers only; empty for nothing."""

        def told(additions: Additions) -> bytes:
            rows = ((layer, additions[layer][place]) for layer in sorted(additions))
            return b"".join(layer.to_bytes(4, "big") + row.cpu().numpy().tobytes() for layer, row in rows if row.any())

        return told(self.additions["all"]), told(self.additions["answer"])

    def _different_rows(self) -> tuple[Tensor, Tensor]:
        """Places of rows with different additions, int64 [different], and which of them each row equals, [rows]."""
        seen: dict[tuple[bytes, bytes], int] = {}
        places, of_row = [], []
        for place in range(len(self.rows)):
            key = self._steering(place)
            if key not in seen:
                seen[key] = len(places)
                places.append(place)
            of_row.append(seen[key])
        device = self.tokens.device
        return torch.tensor(places, device=device), torch.tensor(of_row, device=device)

    def _pass(self, fresh: Tensor, additions: dict[str, Additions]) -> Tensor:
        length = fresh.shape[1]
        first = self._prompt_length - 1 - (self.tokens.shape[1] - length)
        with steered(self.decoder.blocks, placed(additions["all"], additions["answer"], length, first)):
            output = self.decoder.network(
                input_ids=fresh,
                attention_mask=torch.ones_like(self.tokens[: len(fresh)]),
                past_key_values=self.cache,
                use_cache=True,
                **self.decoder.head_once,
            )
        self.cache = getattr(output, "past_key_values", None)  # a recurrent model may have none
        return output.logits[:, -1].float()


@torch.inference_mode()
def read_prompts(batches: Sequence[Batch]) -> list[Tensor]:
    """`logits` of batches of one decoder that have not read their prompts yet: the lean way in one pass."""
    lean = batches[0].decoder.lean
    if lean is None:
        return [batch._read_prompt() for batch in batches]
    found = read(lean, [batch.reading() for batch in batches])
    return [batch.take(*each) for batch, each in zip(batches, found, strict=True)]


def _is_near(got: Tensor, want: Tensor) -> bool:
    """Whether they differ by rounding only."""
    return bool((got - want).abs().max() <= 1e-3 * want.std())


def _rows_of(additions: dict[str, Additions], places: Tensor) -> dict[str, Additions]:
    return {scope: {layer: rows[places] for layer, rows in of_scope.items()} for scope, of_scope in additions.items()}


def decoder_of(model: LanguageModel, weights: str = "full") -> Decoder:
    """The model's decoder, made and tried out when first asked for (a fraction of a second).

    Args:
        weights: `full` uses the model's own weights, bit for bit; `float16` a second copy of its matrices, on a CPU.

    Raises SteeringError for other weights.
    """
    if weights not in WEIGHTS:
        raise SteeringError(f"Weights {weights!r} are not known; give one of {', '.join(WEIGHTS)}.")
    with _lock:
        made = _decoders.setdefault(model, {})
        if weights not in made:
            made[weights] = Decoder(model, weights)
        return made[weights]


_decoders: "weakref.WeakKeyDictionary[LanguageModel, dict[str, Decoder]]" = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def probe_ids(network: torch.nn.Module) -> list[int]:
    """A few ids that every vocabulary has."""
    vocabulary = network.get_input_embeddings().weight.shape[0]
    return [(7 * i + 3) % max(2, vocabulary - 1) for i in range(PROBE_IDS)]
