"""Many visitors on one model: their requests join one running decode batch and leave it, whatever the others do.

One thread decodes. It reads one waiting prompt, then steps all rows, then reads the next prompt, so that nobody who
writes stands still for long and nobody who waits is passed by. A model whose rows cannot be laid together (see
`shared_batch`) serves one request after another.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

from torch import Tensor

from steering.decoding import Batch, Decoder, decoder_of
from steering.errors import SteeringError
from steering.generation import Column, Run
from steering.intervention import Setting
from steering.models import LanguageModel
from steering.prompts import DEFAULT_SYSTEM_PROMPT, Conversation
from steering.sampling import Sampling
from steering.shared_batch import SharedBatch, can_share_batches

IDLE_SECONDS = 5.0


class DecodeServer:
    """Decodes requests of any number of visitors together.

    Args:
        model: the model; `weights` as in `generation.stream`.
        max_rows: most columns decoded at a time, over all requests; a request with more of its own runs alone.
        max_waiting: most requests that may wait for their turn.

    Attributes:
        shares: whether requests are decoded together; False serves one after another.
    """

    def __init__(
        self, model: LanguageModel, *, weights: str = "full", max_rows: int = 16, max_waiting: int = 32
    ) -> None:
        self.model, self.max_rows, self.max_waiting = model, max_rows, max_waiting
        self._decoder = decoder_of(model, weights)
        self.shares = self._decoder.on_step_cores(lambda: can_share_batches(self._decoder, model.hidden_size))
        self._waiting: deque[_Ticket] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def stream(
        self,
        prompt: str,
        columns: Sequence[Setting] = ({},),
        *,
        system: str = DEFAULT_SYSTEM_PROMPT,
        before: Conversation = (),
        sampling: Sampling | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        on_wait: Callable[[int], None] = lambda place: None,
        **sampling_options: float,
    ) -> Iterator[list[Column]]:
        """As `generation.stream`: all columns after each token; bad input raises SteeringError at once.

        The request queues up when the first snapshot is asked for, which raises SteeringError if the queue is full.
        Closing the generator, or `should_stop` (called by the decoding thread), frees its rows within one token.

        Args:
            on_wait: told the request's place in the queue, 1 for the next, whenever it changes; 0 when it is served.
        """
        run = Run(self.model, prompt, columns, system, before, sampling or Sampling(**sampling_options))
        return self._follow(_Ticket(run, should_stop), on_wait)

    def _follow(self, ticket: "_Ticket", on_wait: Callable[[int], None]) -> Iterator[list[Column]]:
        self._enter(ticket)
        try:
            while (news := ticket.news.get()) is not None:
                if isinstance(news, BaseException):
                    raise news
                if isinstance(news, int):
                    on_wait(news)
                else:
                    yield news
        finally:
            ticket.left = True
            with self._changed:
                self._changed.notify()

    def _enter(self, ticket: "_Ticket") -> None:
        with self._changed:
            waiting = sum(not other.left for other in self._waiting)
            if waiting >= self.max_waiting:
                raise SteeringError(f"{waiting} requests are waiting already; try again in a minute.")
            self._waiting.append(ticket)
            ticket.tell(waiting + 1)
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="steering-decode", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        """Decode until there has been nothing to do for a while."""
        shared: SharedBatch = SharedBatch(self._decoder)
        active: list[_Ticket] = []  # changed in place: whoever is in it when a turn fails is told
        while True:
            with self._changed:
                if not active and not self._changed.wait_for(lambda: self._waiting, IDLE_SECONDS):
                    self._thread = None
                    return
            try:
                self._turn(shared, active)
            except Exception as error:  # of the model: all who shared the step hear of it
                for ticket in active:
                    ticket.news.put(error)
                shared = SharedBatch(self._decoder)
                active.clear()

    def _turn(self, shared: SharedBatch, active: list["_Ticket"]) -> None:
        """Let go of who has left, let in who is next, write one more token in every row."""
        for ticket in [ticket for ticket in active if ticket.is_over()]:
            active.remove(ticket)
            shared.leave(ticket.batch)
        newcomer = self._next(active)
        if newcomer is not None and newcomer.begin(self._decoder):
            active.append(newcomer)
            if self.shares:
                shared.join(newcomer.batch)
        if active:
            self._step(shared, active)
            active[:] = [ticket for ticket in active if ticket.batch.rows]

    def _next(self, active: list["_Ticket"]) -> "_Ticket | None":
        """The next request in the queue, if there is room for its rows."""
        with self._changed:
            gone = [ticket for ticket in self._waiting if ticket.is_over()]
            self._waiting = deque(ticket for ticket in self._waiting if ticket not in gone)
            rows = sum(len(ticket.batch.rows) for ticket in active)
            room = not active or (self.shares and self._waiting and rows + self._waiting[0].count <= self.max_rows)
            ticket = self._waiting.popleft() if self._waiting and room else None
            for place, other in enumerate(self._waiting, 1):
                other.tell(place)
        if ticket is not None:
            ticket.tell(0)
        return ticket

    def _step(self, shared: SharedBatch, active: list["_Ticket"]) -> None:
        def choose() -> list[Tensor]:
            logits = shared.logits() if self.shares else [active[0].batch.logits()]
            return [ticket.choose(rows) for ticket, rows in zip(active, logits, strict=True)]

        chosen = self._decoder.on_step_cores(choose)
        going = [ticket.record(tokens) for ticket, tokens in zip(active, chosen, strict=True)]
        if self.shares:
            shared.advance(chosen, going)
        else:
            active[0].batch.advance(chosen[0], going[0])


class _Ticket:
    """One request on its way: what it wants, what it hears, whether its visitor has left."""

    def __init__(self, run: Run, should_stop: Callable[[], bool]) -> None:
        self.run, self.count = run, len(run.columns)
        self.news: SimpleQueue[object] = SimpleQueue()  # columns, a place in the queue, an error, None for the end
        self.left = False
        self.batch: Batch | None = None
        self._should_stop, self._place = should_stop, -1

    def tell(self, place: int) -> None:
        if place != self._place:
            self._place = place
            self.news.put(place)

    def is_over(self) -> bool:
        """Whether nobody wants more of it; ends it for the visitor, too."""
        if self.left:
            return True
        try:
            stop = self._should_stop()
        except Exception as error:
            self.news.put(error)
            return True
        if stop:
            self.news.put(None)
        return stop

    def begin(self, decoder: Decoder) -> bool:
        """Read the prompt and write the first token; whether rows go on. An error is the visitor's alone."""
        try:
            self.run.start()
            self.batch = Batch(decoder, self.run.ids, self.run.additions, self.count)
            chosen = self.choose(self.batch.logits())
            self.batch.advance(chosen, self.record(chosen))
        except Exception as error:
            self.news.put(error)
            return False
        return bool(self.batch.rows)

    def choose(self, logits: Tensor) -> Tensor:
        return self.run.choose(self.batch.tokens, logits)

    def record(self, chosen: Tensor) -> list[int]:
        """Write down the tokens and tell the visitor; returns the places of the rows that go on."""
        going = self.run.record(self.batch.rows, chosen)
        self.news.put(list(self.run.columns))
        if not going:
            self.news.put(None)
        return going
