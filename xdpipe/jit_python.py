"""What a jit stage's function is given when it runs uncompiled: the same, in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xdpipe.packet_stage import Packet
from xdpipe.stage import OWN
from xdpipe.verdict import Verdict

if TYPE_CHECKING:
    from xdpipe.batch import Batch
    from xdpipe.jit import JitStage
    from xdpipe.jit_layout import JitLayout


class PythonBatch:
    """A batch as machine code sees it; see JitStage.

    Args:
        batch: the batch.
        layout: what the stage may name of it.
    """

    def __init__(self, batch: Batch, layout: JitLayout) -> None:
        self._batch = batch
        self._layout = layout

    @property
    def n(self) -> int:
        """How many packets it holds."""
        return len(self._batch)

    def __len__(self) -> int:
        return len(self._batch)

    @property
    def port(self) -> str:
        """The name of the port that it came by."""
        return self._batch.port

    @property
    def undecided(self) -> PythonColumn:
        """Which packets no stage has decided yet."""
        undecided = self._batch.verdict == Verdict.UNDECIDED
        undecided.flags.writeable = False
        return PythonColumn("undecided", undecided)

    def __getattr__(self, name: str) -> PythonColumn:
        column = self._layout.column(name)
        if column is None:
            raise AttributeError(self._layout.why_not(name))
        texts = self._batch if column.text else None
        return PythonColumn(name, self._batch.rows(name)[: len(self._batch)], texts)

    def _packet(self, i: int) -> Packet:
        return Packet(self._batch, _checked(i, len(self._batch)))

    def u8(self, i: int, offset: int, missing: int = 0) -> int:
        """Load a byte; `missing` where it is beyond the packet."""
        return self._packet(i).u8(offset, missing)

    def u16(self, i: int, offset: int, missing: int = 0) -> int:
        """Load a big-endian uint16; `missing` where it is not wholly in the packet."""
        return self._packet(i).u16(offset, missing)

    def u32(self, i: int, offset: int, missing: int = 0) -> int:
        """Load a big-endian uint32; `missing` where it is not wholly in the packet."""
        return self._packet(i).u32(offset, missing)

    def u64(self, i: int, offset: int, missing: int = 0) -> int:
        """Load a big-endian uint64; `missing` where it is not wholly in the packet."""
        return self._packet(i).u64(offset, missing)

    def put_u8(self, i: int, offset: int, value: int, fix_checksum: bool = False) -> int:
        """Store a byte; return 1, or 0 where it was not stored."""
        return self._packet(i).put_u8(offset, value, fix_checksum=fix_checksum)

    def put_u16(self, i: int, offset: int, value: int, fix_checksum: bool = False) -> int:
        """Store a big-endian uint16; return 1, or 0 where it was not stored."""
        return self._packet(i).put_u16(offset, value, fix_checksum=fix_checksum)

    def put_u32(self, i: int, offset: int, value: int, fix_checksum: bool = False) -> int:
        """Store a big-endian uint32; return 1, or 0 where it was not stored."""
        return self._packet(i).put_u32(offset, value, fix_checksum=fix_checksum)

    def has(self, i: int, *flags: str) -> bool:
        """Return whether packet i has all of these flags."""
        return self._packet(i).has(*flags)

    def drop(self, i: int) -> int:
        """Drop packet i if it is undecided; return 1 if it was."""
        return self._packet(i).drop()

    def tx(self, i: int) -> int:
        """Send packet i back out of its port if it is undecided; return 1 if it was."""
        return self._packet(i).tx()

    def pass_(self, i: int) -> int:
        """Give packet i back to the kernel if it is undecided; return 1 if it was."""
        return self._packet(i).pass_()

    def forward(self, i: int, port: str | None = None) -> int:
        """Send packet i out of another port if it is undecided; return 1 if it was."""
        return self._packet(i).forward(port)

    def fill_checksum(self, i: int) -> int:
        """Have the checksum of packet i computed anew when it leaves; return 1 if it has one."""
        return self._packet(i).fill_checksum()


def _checked(index: int, n: int) -> int:
    if not 0 <= index < n:
        raise IndexError("no packet has this index")
    return index


class PythonColumn:
    """A column as machine code sees it.

    Args:
        name: of it.
        rows: as many as there are packets; or the values of one packet.
        texts: the batch that has the texts, of a column of texts.
    """

    def __init__(self, name: str, rows: np.ndarray[Any, Any], texts: Batch | None = None) -> None:
        self._name = name
        self._rows = rows
        self._texts = texts

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        first = index[0] if isinstance(index, tuple) else index
        _checked(first, len(self._rows))
        if isinstance(index, tuple):
            return PythonColumn(self._name, self._rows[first])[index[1]]
        if self._texts is not None:
            return self._texts.text_bytes(self._name, first)
        if self._rows.ndim == 2:
            return PythonColumn(self._name, self._rows[first])
        return self._rows.item(first)

    def __setitem__(self, index: Any, value: Any) -> None:
        first = index[0] if isinstance(index, tuple) else index
        _checked(first, len(self._rows))
        if isinstance(index, tuple):
            PythonColumn(self._name, self._rows[first])[index[1]] = value
            return
        dtype = self._rows.dtype
        if dtype.kind in "iu":  # machine code keeps the lower bits
            value = np.array(int(value) % 2**64, np.uint64).astype(dtype)
        self._rows[first] = value


class PythonCounters:
    """The counters of a stage.

    Args:
        stage: whose they are.
    """

    def __init__(self, stage: JitStage) -> None:
        vars(self)["stage"] = stage

    def __getattr__(self, name: str) -> Any:
        stage: JitStage = vars(self)["stage"]
        return stage.words[_place(stage, name)]

    def __setattr__(self, name: str, value: int) -> None:
        stage: JitStage = vars(self)["stage"]
        stage.words[_place(stage, name)] = int(value) % 2**64


def _place(stage: JitStage, counter: str) -> int:
    if counter not in stage.counters:
        raise AttributeError(f"counters.{counter}: the stage declares none of that name")
    return OWN + stage.counters.index(counter)


class PythonState:
    """The arrays and numbers of a stage's state, where machine code has them.

    Args:
        layout: of the stage.
        table: that machine code is given.
        arrays: those of the state.
    """

    def __init__(
        self, layout: JitLayout, table: np.ndarray[Any, Any], arrays: dict[str, Any]
    ) -> None:
        numbers = {
            value.name: table[layout.slots[f"state.{value.name}"] :].view(value.descr)
            for value in layout.state
            if value.shape is None
        }
        vars(self).update(_arrays=arrays, _numbers=numbers)

    def __getattr__(self, name: str) -> Any:
        if name in self._numbers:
            return self._numbers[name][0].item()
        if name in self._arrays:
            return self._arrays[name]
        raise AttributeError(f"state.{name}: the stage declares none of that name")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._numbers:
            raise AttributeError(f"state.{name} = …: write into an array, state.{name}[k] = …")
        self._numbers[name][0] = value
