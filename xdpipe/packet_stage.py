"""The kind of stage that is called for each packet; for trying things out, and for rare packets."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from xdpipe.batch import COLUMNS, FLAGS, Batch
from xdpipe.core._core import ffi, lib
from xdpipe.stage import Stage
from xdpipe.verdict import DROP, FORWARD, PASS, TX, Verdict

if TYPE_CHECKING:
    from xdpipe.own_columns import Scope

ETH_HEADER = 14
"""Bytes of the shortest packet that there can be."""


class PacketStage(Stage):
    """A stage that is called for each packet: `packet(p)`. Slow; the guide says how slow.

    Of a packet whose call raises, the exception is counted (`errors`) and the first one told; the
    others go on. Outside a chain it is raised.
    """

    _kind: ClassVar[str] = "packet"
    all_packets: ClassVar[bool] = False
    """Whether it sees packets that earlier stages have decided, too."""

    @abstractmethod
    def packet(self, p: Packet) -> None:
        """Look at one packet, decide, count. `p` is good until this returns."""

    def process(self, batch: Batch) -> None:
        """Call `packet` for each packet in the order of arrival."""
        packet, note = self.packet, self.note_error
        undecided = Verdict.UNDECIDED
        places = range(len(batch)) if self.all_packets else np.flatnonzero(
            batch.verdict == undecided
        ).tolist()  # fmt: skip
        for index in places:
            p = Packet(batch, index)
            try:
                packet(p)
            except Exception as error:
                if note is None:
                    raise
                note(error)
            finally:
                p.end()

    def prepare(self, scope: Scope) -> None:
        """Have scapy loaded before there are packets, if `packet` itself asks for it."""
        code = getattr(type(self).packet, "__code__", None)
        if code is not None and "scapy" in code.co_names:
            _scapy()


def _scapy() -> Any:
    """Return scapy's Ether, with every protocol that scapy loads by itself."""
    from scapy.layers import all as _  # noqa: F401
    from scapy.layers.l2 import Ether

    return Ether


class Packet:
    """One packet of a batch: its bytes, in place, and what the columns say of it.

    Every column is an attribute, as a plain Python value: `p.l4_dport` an int, `p.src` and a text
    bytes, of several values otherwise a tuple. Columns that are writable in a batch are so here:
    `p.mark = 7`.

    It is a view of the batch, and good until the stage's `packet` returns; copy what is to be kept.

    Args:
        batch: that it lies in.
        index: its place there.
    """

    __slots__ = ("_batch", "_data", "_scapy", "index")

    def __init__(self, batch: Batch, index: int) -> None:
        set_slot = super().__setattr__
        set_slot("_batch", batch)
        set_slot("_data", None)
        set_slot("_scapy", None)
        set_slot("index", index)

    def end(self) -> None:
        """Let go of the batch: what is kept of it by mistake can touch no other packet."""
        if self._data is not None:
            with suppress(BufferError):  # somebody has a view of the view
                self._data.release()
        super().__setattr__("_batch", None)

    @property
    def batch(self) -> Batch:
        """The batch that it lies in."""
        if self._batch is None:
            raise ValueError("the packet is gone: it is good until `packet` returns")
        return self._batch  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        batch = self.batch
        try:
            rows = batch.rows(name)
        except KeyError:
            raise AttributeError(f"a packet has no {name!r}, and a batch no such column") from None
        if rows.dtype.fields:
            return batch.text_bytes(name, self.index)
        if rows.ndim == 1:
            return rows.item(self.index)
        row = rows[self.index]
        return row.tobytes() if row.dtype == np.uint8 else tuple(row.tolist())

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            rows = self.batch.rows(name)
        except KeyError:
            raise AttributeError(
                f"p.{name} = …: a batch has no such column; declare it by the stage's `columns`"
            ) from None
        rows[self.index] = value

    def __len__(self) -> int:
        """Return how many bytes the packet has."""
        return int(self.batch.rows("len")[self.index])

    def __bytes__(self) -> bytes:
        return bytes(self.data)

    @property
    def data(self) -> memoryview:
        """Its bytes in place, writable; of one that came in several frames a copy, read-only."""
        if self._data is None:
            super().__setattr__("_data", self.batch.packet(self.index))
        data: memoryview = self._data
        return data

    @property
    def scapy(self) -> Any:
        """The packet as scapy's Ether, parsed when first asked for; changes stay in it.

        To have the packet changed: `p.replace(p.scapy)`. scapy computes lengths and checksums anew
        of fields that were deleted before: `del p.scapy[IP].chksum`.
        """
        if self._scapy is None:
            super().__setattr__("_scapy", _scapy()(bytes(self.data)))
        return self._scapy

    def replace(self, data: Any) -> None:
        """Put other bytes in the packet's place: as many, fewer, or more within its headroom.

        What the columns say stays as it was, unless the length is another: then no parser's columns
        say anything any more (no flags, no offsets), and a stage behind that needs them needs a
        second `Headers()` before it.

        Args:
            data: the whole packet from its Ethernet header on, or a packet of scapy's.

        Raises:
            ValueError: more bytes than there is room for; another length, of a packet that came in
                several frames; or no Ethernet header.
        """
        batch = self.batch
        new = bytes(data)
        if len(new) < ETH_HEADER:
            raise ValueError(
                f"replace: {len(new)} bytes; an Ethernet header alone has {ETH_HEADER}"
            )
        if lib.xp_one_replace(batch.c, self.index, ffi.from_buffer(new), len(new)):
            most = len(self) + self.headroom
            why = "it came in several frames" if self.n_frames > 1 else f"there is room for {most}"
            raise ValueError(f"replace: {len(new)} bytes for a packet of {len(self)}; {why}")
        if self._data is not None:
            with suppress(BufferError):
                self._data.release()
        super().__setattr__("_data", None)
        super().__setattr__("_scapy", None)

    @property
    def port(self) -> str:
        """The name of the port that it came by."""
        return self.batch.port

    @property
    def undecided(self) -> bool:
        """Whether no stage has decided it yet."""
        return bool(self.batch.rows("verdict")[self.index] == Verdict.UNDECIDED)

    def has(self, *flags: str) -> bool:
        """Return whether it has all of these flags (see xdpipe.batch.FLAGS)."""
        bits = sum(FLAGS[flag] for flag in flags)
        return int(self.batch.rows("flags")[self.index]) & bits == bits

    def text(self, column: str) -> str:
        r"""Return a text that a column has for it, as Batch.text does; not ASCII stands as \xNN."""
        return self._text(column).decode("ascii", "backslashreplace")

    def numbers(self, column: str) -> list[int]:
        """Return a list of numbers that a column has for it, such as "tls_ciphers"."""
        return list(np.frombuffer(self._text(column), ">u2").tolist())

    def _text(self, column: str) -> bytes:
        if column not in COLUMNS or not COLUMNS[column].text:
            raise ValueError(f"{column} is no column of texts")
        return self.batch.text_bytes(column, self.index)

    # Loads and stores as those of Batch: big-endian, bounds-checked in C, in whichever frame.

    def u8(self, offset: int, missing: int = 0) -> int:
        """Load a byte; `missing` where it is beyond the packet."""
        return self._load(offset, 1, missing)

    def u16(self, offset: int, missing: int = 0) -> int:
        """Load a big-endian uint16; `missing` where it is not wholly in the packet."""
        return self._load(offset, 2, missing)

    def u32(self, offset: int, missing: int = 0) -> int:
        """Load a big-endian uint32; `missing` where it is not wholly in the packet."""
        return self._load(offset, 4, missing)

    def u64(self, offset: int, missing: int = 0) -> int:
        """Load a big-endian uint64; `missing` where it is not wholly in the packet."""
        return self._load(offset, 8, missing)

    def _load(self, offset: int, width: int, missing: int) -> int:
        missing %= 1 << 8 * width  # as a column of that dtype would hold it
        return int(lib.xp_one_load(self.batch.c, self.index, _offset(offset), width, missing))

    def put_u8(self, offset: int, value: int, *, fix_checksum: bool = False) -> int:
        """Store a byte; see put_u16."""
        return self._store(offset, value, 1, fix_checksum)

    def put_u16(self, offset: int, value: int, *, fix_checksum: bool = False) -> int:
        """Store a big-endian uint16, in the frame itself; see Batch.put_u16.

        Returns:
            1, or 0: it does not lie wholly within the packet, and was not stored.
        """
        return self._store(offset, value, 2, fix_checksum)

    def put_u32(self, offset: int, value: int, *, fix_checksum: bool = False) -> int:
        """Store a big-endian uint32; see put_u16."""
        return self._store(offset, value, 4, fix_checksum)

    def _store(self, offset: int, value: int, width: int, fix_checksum: bool) -> int:
        batch, at = self.batch, _offset(offset)
        if self._data is not None and self._data.readonly:
            super().__setattr__("_data", None)  # the copy is not the packet any more
        return int(
            lib.xp_one_store(batch.c, self.index, at, int(value) % 2**64, width, fix_checksum)
        )

    def fill_checksum(self) -> int:
        """Have its TCP or UDP checksum computed anew when it leaves; see Batch.fill_checksum.

        Returns:
            1, or 0: it has none.
        """
        return int(lib.xp_one_want_checksum(self.batch.c, self.index))

    # Decisions touch only a packet that is still undecided, and return how many that were: 1 or 0.

    def decide(self, verdict: Verdict, port: int = 0) -> int:
        """Give it this verdict; for FORWARD, out of the port of this number."""
        return int(lib.xp_one_decide(self.batch.c, self.index, verdict, port))

    def drop(self) -> int:
        """Drop it."""
        return self.decide(DROP)

    def tx(self) -> int:
        """Send it back out of its port."""
        return self.decide(TX)

    def pass_(self) -> int:
        """Give it back to the kernel."""
        return self.decide(PASS)

    def forward(self, port: str | None = None) -> int:
        """Send it out of another port: its name; None: the other one, of two.

        Raises:
            ValueError: there is no such port; or which one it is to be cannot be told.
        """
        return self.decide(FORWARD, self.batch.port_number(port))


def _offset(offset: int) -> int:
    """Return an offset that fits into 64 bits: what does not is beyond every packet."""
    return int(offset) if -(2**63) <= offset < 2**63 else -1
