"""A stage: one step over a batch. Users derive from Stage; what xdpipe ships in C is native."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from xdpipe.core._core import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from xdpipe.batch import Batch
    from xdpipe.block_ring import BlockRing
    from xdpipe.own_columns import Scope
    from xdpipe.recording import FlowRecording, Recording
    from xdpipe.stage_sets import StageSet

PACKETS: int = lib.XP_STAGE_PACKETS
NS: int = lib.XP_STAGE_NS
ERRORS: int = lib.XP_STAGE_ERRORS
OVER_BUDGET: int = lib.XP_STAGE_OVER_BUDGET
MAX_NS: int = lib.XP_STAGE_MAX_NS
OWN: int = lib.XP_STAGE_OWN

BUDGET_US = 10_000.0
"""How long a stage may take for a batch, unless pipeline or stage say otherwise. A worker that is
held up for so long loses packets from some 400,000 a second on: 4096 of them arrive meanwhile, and
so many frames there are by default."""
NO_BUDGET_NS = 2**64 - 1


class Stage(ABC):
    """One step over a batch, in Python over numpy columns.

    `process` sees every batch in the order of arrival, also the packets that an earlier stage
    has decided; its own decisions (`batch.drop(mask)`) touch only undecided ones. A stage lives
    in one worker: there is one instance per queue, and nothing of it is shared.

    An exception that `process` raises is counted (`errors`) and told once; the batch goes on.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    """Columns that must be filled before this stage; the chain is checked for them."""
    provides: ClassVar[tuple[str, ...]] = ()
    """Columns that this stage fills."""
    counters: ClassVar[tuple[str, ...]] = ()
    """Names of the stage's own counters."""
    columns: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Columns of the stage's own, which it fills: name and dtype, or (dtype, values per packet).

    The dtype is bool, int8 to int64, uint8 to uint64, float32 or float64. The column is an
    attribute of the batch (`batch.score[:] = …`), writable for every stage, and later ones can
    require it. Its rows are 0 as the first stage that declares it begins; where several declare
    the same, they share it, and see what those before them wrote.
    """
    _kind: ClassVar[str] = "array"
    """What tables and `--json` call this kind of stage."""

    budget_us: float | None = None
    """How long it may take for a batch; microseconds, of which parts will do. Batches that took
    longer are counted (`over_budget`). None: as the pipeline says; math.inf: any time it takes."""

    sets: Mapping[str, StageSet] = MappingProxyType({})
    """The sets of addresses that the pipeline's steering has, by name; in a chain."""
    note_error: Callable[[Exception], None] | None = None
    """Count an exception that does not end the batch, and tell of the first; in a chain."""

    _counts: memoryview | None = None

    @property
    def name(self) -> str:
        """The stage's name in tables and in `--json`; two of a kind are told apart by #2."""
        return type(self).__name__

    @abstractmethod
    def process(self, batch: Batch) -> None:
        """Look at the batch, decide, count. Columns are valid until this returns."""

    def count(self, counter: str, n: int = 1) -> None:
        """Add n to one of the stage's own counters; outside a chain nothing is counted."""
        place = self.counters.index(counter)
        if self._counts is not None:
            self._counts[OWN + place] += int(n)

    def counted(self, counter: str) -> int:
        """Return what one of the stage's own counters says; outside a chain 0."""
        return 0 if self._counts is None else self._counts[OWN + self.counters.index(counter)]

    def report(self) -> Mapping[str, Any]:
        """Return what is worth showing besides counters, as JSON can hold it; {} for nothing.

        Called off the hot path: when the pipeline ends, and when someone asks for its status.
        """
        return {}

    @contextmanager
    def offline(self) -> Iterator[Callable[[], None]]:
        """Surround a check of a capture; what is yielded is called after each batch.

        For stages that have files written by others where a pipeline runs; off the hot path.
        """
        yield lambda: None

    def join(self, earlier: Sequence[Stage]) -> None:  # noqa: B027 - most need not know
        """Learn which stages come before it in its chain, to fit itself to them; before bind."""

    def prepare(self, scope: Scope) -> None:  # noqa: B027 - most have nothing to do
        """Make ready for a chain that has these columns and ports: compile, and load what is.

        Called as the user's file is loaded, when files can still be read; and again before bind.

        Raises:
            XdpipeError: it cannot be made ready.
        """

    def settle(self, batch: Batch) -> None:  # noqa: B027 - most are handed it with each call
        """Learn which batch it will work on, with the columns there; before bind."""

    def bind(self, counts: memoryview) -> None:
        """Take the place where the counts are kept: uint64, PACKETS to MAX_NS, then our own."""
        self._counts = counts


class ServedQueue(NamedTuple):
    """What a worker serves.

    Attributes:
        stages: names of the chain's.
        number: of the queue.
        n_ports: of the pipeline.
    """

    stages: Sequence[str]
    number: int
    n_ports: int


class NativeStage(Stage):
    """A stage that is a C function over the batch; consecutive ones run as one call."""

    _kind: ClassVar[str] = "native"

    recording: Recording | FlowRecording | None = None
    """What is written of what comes by: of a stage Record or FlowMeter."""

    idles: ClassVar[bool] = False
    """Whether it also runs on an empty batch, now and then, while no packet comes."""

    function: ClassVar[str]
    """Its name in the core: `int function(struct xp_batch *, void *state)`."""

    memory: Any = None
    """What the state points to, if that is held by nothing else."""

    _entry: Any = None

    def process(self, batch: Batch) -> None:
        """Run on one batch, as a chain would; for tests."""
        if self._entry is None:
            self.bind_alone()
        lib.xp_run_stages(batch.c, self._entry, 1)

    def serve(self, ring: BlockRing | None, fds: list[int], queue: ServedQueue) -> None:
        """Be told that it works in a worker, before it is bound; most need not know.

        Args:
            ring: what it writes is read from, owned by it now; None: it is to write nothing.
            fds: descriptors; what belongs to the ring comes first, and is taken from the list.
            queue: that the worker serves.
        """

    def bind(self, counts: memoryview) -> None:
        """Take the place where the counts are kept, and make the state that goes with it."""
        super().bind(counts)
        address = ffi.cast("uint64_t *", ffi.from_buffer(counts))
        self.state = self.make_state(address + OWN)
        self._entry = ffi.new("struct xp_stage *")
        self._entry.run = self.run
        self._entry.state = self.state
        self._entry.counts = address
        self._entry.budget_ns = NO_BUDGET_NS  # a chain says another

    @property
    def run(self) -> Any:
        """The C function, as xp_stage_fn *."""
        return ffi.addressof(lib, self.function)

    def bind_alone(self) -> None:
        """Take a place for the counts that nobody else sees: it is in no chain."""
        self.bind(memoryview(bytearray(8 * (OWN + len(self.counters)))).cast("Q"))

    @property
    def entry(self) -> Any:
        """The stage as the core knows it, a struct xp_stage *; good as long as `state` is held."""
        return self._entry

    def make_state(self, counters: Any) -> Any:
        """Return the state that the C function is given; who uses the entry keeps it alive.

        Args:
            counters: uint64_t *, the stage's own counters.
        """
        return ffi.new("struct xp_counts_state *", {"counters": counters})
