"""What the worker of a queue and the recorder share, for one stage that has files written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xdpipe.block_ring import BlockRing
from xdpipe.process import shared_memory
from xdpipe.recording import FlowRecording

if TYPE_CHECKING:
    from xdpipe.recording import Recording


class RecordMemory:
    """Memory that outlives both: a ring and, of flows, their table. Made by the supervisor.

    Args:
        recording: what the stage declares.

    Raises:
        XdpipeError: no memory for it.
    """

    def __init__(self, recording: Recording | FlowRecording) -> None:
        self.ring = BlockRing(recording.ring_bytes)
        self._table = -1
        if isinstance(recording, FlowRecording):
            from xdpipe.flow_table import table_bytes  # few pipelines meter

            self._table = shared_memory("xdpipe-flows", table_bytes(recording.options))

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors: of the ring, and of the table if there is one."""
        return (self.ring.fd,) if self._table < 0 else (self.ring.fd, self._table)

    def close(self) -> None:
        """Unmap the ring and close the descriptors. May be called twice."""
        self.ring.close()
        if self._table >= 0:
            os.close(self._table)
        self._table = -1
