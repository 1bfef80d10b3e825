"""Packets that a stage has rewritten: whether the columns say what they say."""

from collections.abc import Iterable

import numpy as np

from crafted import batch_of
from xdpipe.batch import COLUMNS, Batch
from xdpipe.core._core import lib
from xdpipe.stages import Headers


def parsed(packets: Iterable[bytes], *, headroom: int = 64, partial: bool = False) -> Batch:
    """Return a batch of these packets that Headers has run on.

    Args:
        packets: up to 256.
        headroom: before each.
        partial: they come from a link of the same machine, which may leave checksums out.
    """
    packets = list(packets)
    batch = Batch(bytearray(sum(headroom + len(packet) + 64 for packet in packets) + 64), 256)
    if partial:
        lib.xp_batch_may_be_partial(batch.c)
    batch.load(packets, headroom=headroom)
    Headers().process(batch)
    return batch


def bytes_of(batch: Batch) -> list[bytes]:
    return [bytes(batch.packet(i)) for i in range(len(batch))]


def check_columns(batch: Batch, where: np.ndarray | None = None) -> None:
    """Check that the columns of Headers are what it says of the packets as they are now."""
    again = batch_of(bytes_of(batch))
    rows = np.ones(len(batch), np.bool_) if where is None else where
    for name, column in COLUMNS.items():
        if column.provider == "Headers" or name == "len":
            got, want = getattr(batch, name)[rows], getattr(again, name)[rows]
            if not np.array_equal(got, want):
                np.testing.assert_array_equal(got, want, name)


def counts(stage: object) -> dict[str, int]:
    """Return the counters of a stage that ran alone, or in a chain."""
    own = stage._counts[-len(stage.counters) :]  # type: ignore[attr-defined]
    return dict(zip(stage.counters, own.tolist(), strict=True))  # type: ignore[attr-defined]
