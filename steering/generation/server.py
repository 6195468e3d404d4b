"""Many visitors on one model: their requests join one running decode batch and leave it, whatever the others do.

One thread decodes. It reads some waiting prompts, then steps all rows, then reads the next prompts, so that nobody who
writes stands still for long and nobody who waits is passed by. A model whose rows cannot be laid together (see
`shared_batch`) serves one request after another.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

from torch import Tensor

from steering.errors import SteeringError
from steering.generation.engine.batching import lays_together, rows_for
from steering.generation.engine.decoder import Batch, Decoder, decoder_of, read_prompts
from steering.generation.engine.prefix_cache import PrefixCache
from steering.generation.results import Column
from steering.generation.sampling import Sampling
from steering.generation.stream import Run
from steering.intervention.additions import Setting
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT, Conversation
from steering.models.loading import LanguageModel

IDLE_SECONDS = 5.0
READ_TOKENS = 512
"""Of prompts, counted for each row, that are read in one pass while those who write wait for it."""


class DecodeServer:
    """Decodes requests of any number of visitors together.

    Args:
        model: the model; `weights` as in `generation.stream`.
        max_rows: most columns decoded at a time, over all requests; a request with more of its own runs alone.
        max_waiting: most requests that may wait for their turn.

    Attributes:
        shares: whether requests are decoded together; False serves one after another.
        prefixes: what was read and written of late, which need not be read again.
    """

    def __init__(
        self, model: LanguageModel, *, weights: str = "full", max_rows: int = 32, max_waiting: int = 32
    ) -> None:
        self.model, self.max_rows, self.max_waiting = model, max_rows, max_waiting
        self._decoder = decoder_of(model, weights)
        self.shares = lays_together(self._decoder)
        self.prefixes = PrefixCache()
        self._reads_several = self._decoder.lean is not None
        self._waiting: deque[_Ticket] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def stream(
        self,
        prompt: str,
        columns: Sequence[Setting] = ({},),
        *,
        should_stop: Callable[[], bool] = lambda: False,
        sampling: Sampling | None = None,
        system: str = DEFAULT_SYSTEM_PROMPT,
        before: Conversation = (),
        histories: Sequence[Conversation] | None = None,
        trace: bool = False,
        **sampling_options: float,
    ) -> Iterator[list[Column] | int]:
        """As `generation.stream`: all columns after each token; bad input raises SteeringError at once.

        The request queues up when the first item is asked for, which raises SteeringError if the queue is full. While
        it waits its place in the queue is yielded, 1 for the next, whenever it changes; 0 when it is served.
        Closing the generator, or `should_stop` (called by the decoding thread), frees its rows within one token.
        """
        run = Run(
            self.model,
            prompt,
            columns,
            system=system,
            before=before,
            histories=histories,
            sampling=sampling or Sampling(**sampling_options),
            trace=trace,
        )
        return self._follow(_Ticket(run, should_stop))

    def _follow(self, ticket: "_Ticket") -> Iterator[list[Column] | int]:
        self._enter(ticket)
        try:
            while (news := ticket.news.get()) is not None:
                if isinstance(news, BaseException):
                    raise news
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
        floor = _Floor(self._decoder)
        while True:
            with self._changed:
                if not floor.tickets and not self._changed.wait_for(lambda: self._waiting, IDLE_SECONDS):
                    self._thread = None
                    return
            try:
                self._turn(floor)
            except Exception as error:  # of the model: all who shared the step hear of it
                for ticket in floor.tickets:
                    ticket.news.put(error)
                floor = _Floor(self._decoder)

    def _turn(self, floor: "_Floor") -> None:
        """Let go of who has left, let in who is next, read some prompts, write one more token in every row."""
        for ticket in [ticket for ticket in floor.tickets if ticket.is_over()]:
            floor.remove(ticket)
        while (newcomer := self._next(floor)) is not None:
            floor.tickets.append(newcomer)
            newcomer.begin(self._decoder, self.prefixes)
        for ticket in floor.tickets:
            if ticket.recall():
                for batch in ticket.batches:
                    floor.rows.join(batch)
        self._read(self._due(floor), floor)  # the others have a token written in between
        if floor.rows.members:
            self._step(floor)

    def _next(self, floor: "_Floor") -> "_Ticket | None":
        """The next request in the queue, if there is room for its rows and it need not wait for others' prompts."""
        with self._changed:
            gone = [ticket for ticket in self._waiting if ticket.is_over()]
            self._waiting = deque(ticket for ticket in self._waiting if ticket not in gone)
            taken = sum(ticket.rows for ticket in floor.tickets)
            free = self.shares and (self._reads_several or not any(ticket.unread for ticket in floor.tickets))
            room = not floor.tickets or (free and self._waiting and taken + self._waiting[0].rows <= self.max_rows)
            ticket = self._waiting.popleft() if self._waiting and room else None
            for place, other in enumerate(self._waiting, 1):
                other.tell(place)
        if ticket is not None:
            ticket.tell(0)
        return ticket

    def _due(self, floor: "_Floor") -> "list[tuple[_Ticket, Batch]]":
        """Whose prompts are read next: one, or as many as are read in one pass.

        Who asks what another asks waits for a turn, and then need not read it.
        """
        due: list[tuple[_Ticket, Batch]] = []
        asked, length = set(), 0
        for ticket in floor.tickets:
            for batch in ticket.unread:
                prompt = tuple(batch.tokens[0].tolist())
                if prompt in asked:
                    break
                length += batch.tokens.numel()
                if due and (not self._reads_several or length > READ_TOKENS):
                    return due
                asked.add(prompt)
                due.append((ticket, batch))
        return due

    def _read(self, due: "list[tuple[_Ticket, Batch]]", floor: "_Floor") -> None:
        """Read these prompts; a request whose last this was has its first tokens written."""
        if not due:
            return
        try:
            found = read_prompts([batch for _, batch in due])
        except Exception as error:
            if len(due) == 1:
                self._fail(due[0][0], error, floor)
            for ticket, batch in due if len(due) > 1 else ():  # whose error it is shows when each is read alone
                if ticket in floor.tickets:
                    self._read([(ticket, batch)], floor)
            return
        for (ticket, _), logits in zip(due, found, strict=True):
            ticket.unread.popleft()
            ticket.logits.append(logits)
        for ticket in dict.fromkeys(ticket for ticket, _ in due):
            if not ticket.unread:
                self._write_first(ticket, floor)

    def _write_first(self, ticket: "_Ticket", floor: "_Floor") -> None:
        try:
            chosen, going = ticket.run.write(ticket.batches, ticket.logits)
            ticket.logits.clear()
            for batch, tokens, places in zip(ticket.batches, chosen, going, strict=True):
                batch.advance(tokens, places)
                if places:
                    floor.rows.join(batch)
            ticket.tell_columns()
        except Exception as error:
            self._fail(ticket, error, floor)
        else:
            floor.remove_finished()

    def _fail(self, ticket: "_Ticket", error: Exception, floor: "_Floor") -> None:
        """Tell a visitor of an error that is theirs alone."""
        ticket.news.put(error)
        floor.remove(ticket)

    def _step(self, floor: "_Floor") -> None:
        def write() -> dict[int, tuple[Tensor, list[int]]]:
            logits = dict(zip(map(id, floor.rows.members), floor.rows.logits(), strict=True))
            written = {}
            for ticket in floor.tickets:
                batches = [batch for batch in ticket.batches if id(batch) in logits]
                if batches:
                    results = ticket.run.write(batches, [logits[id(batch)] for batch in batches])
                    written.update(zip(map(id, batches), zip(*results, strict=True), strict=True))
            return written

        written = self._decoder.on_step_cores(write)
        chosen, going = zip(*(written[id(batch)] for batch in floor.rows.members), strict=True)
        floor.rows.advance(list(chosen), list(going))
        for ticket in floor.tickets:
            if not ticket.unread:
                ticket.tell_columns()
        floor.remove_finished()


class _Floor:
    """Who is being served: their requests, and the rows that are written."""

    def __init__(self, decoder: Decoder) -> None:
        self.rows = rows_for(decoder, 2)  # or more: whoever comes, joins
        self.tickets: list[_Ticket] = []

    def remove(self, ticket: "_Ticket") -> None:
        self.tickets.remove(ticket)
        for batch in ticket.batches:
            self.rows.leave(batch)

    def remove_finished(self) -> None:
        for ticket in [ticket for ticket in self.tickets if ticket.finished]:
            self.tickets.remove(ticket)
            ticket.news.put(None)


class _Ticket:
    """One request on its way: what it wants, what it hears, whether its visitor has left."""

    def __init__(self, run: Run, should_stop: Callable[[], bool]) -> None:
        self.run = run
        self.batches: list[Batch] = []
        self.unread: deque[Batch] = deque()  # those whose prompts are still to be read
        self.news: SimpleQueue[object] = SimpleQueue()  # columns, a place in the queue, an error, None for the end
        self.left = False
        self.logits: list[Tensor] = []  # of the prompts read so far
        self._should_stop, self._place = should_stop, -1

    @property
    def rows(self) -> int:
        """How many rows it takes up, or will."""
        return sum(len(batch.rows) for batch in self.batches) if self.batches else self.run.rows

    @property
    def finished(self) -> bool:
        return not self.unread and not any(batch.rows for batch in self.batches)

    def tell(self, place: int) -> None:
        if place != self._place:
            self._place = place
            self.news.put(place)

    def tell_columns(self) -> None:
        self.news.put(list(self.run.columns))

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

    def begin(self, decoder: Decoder, prefixes: PrefixCache) -> None:
        self.run.start()
        self.batches = self.run.batches(decoder, prefixes)
        self.unread.extend(self.batches)

    def recall(self) -> bool:
        """Whether nothing need be read, since all is known but the last tokens, which the next step reads."""
        if not self.unread or self.logits or not all(batch.recall() for batch in self.batches):
            return False
        self.unread.clear()
        return True
