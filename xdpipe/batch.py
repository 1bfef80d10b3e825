"""A batch of packets, seen as columns."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xdpipe.columns import BatchColumns
from xdpipe.core._core import ffi, lib
from xdpipe.errors import ChainError
from xdpipe.verdict import DROP, PASS, TX, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from xdpipe.own_columns import OwnColumn

Array = NDArray[Any]
Mask = NDArray[np.bool_]

ABSENT: int = lib.XP_ABSENT
"""The offset of a header that is not there; a load through it is out of bounds."""

TEXT = np.dtype([("at", np.uint32), ("len", np.uint32)])
"""A text, as columns and tables hold it: Batch.text gives it."""

HEADROOM: int = lib.XP_HEADROOM
"""Bytes that are left free before each packet of a capture, for headers put before it."""

_PLACE = ("addr", "len", "headroom", "time_ns")
_TYPES = {"xp_text": TEXT, "xp_offset": np.dtype(np.int32)}
_WIDTHS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def _text(pointer: Any) -> str:
    return str(ffi.string(pointer).decode())


class Column:
    """What there is to know of one column: name, dtype, values per packet, provider, meaning."""

    def __init__(self, index: int) -> None:
        entry = lib.xp_columns[index]
        self.index = index
        self.name = _text(entry.name)
        type_name = _text(entry.type).removesuffix("_t")
        self.text = type_name == "xp_text"
        """Whether it is a text: `at` and `len` say where; Batch.text gives it."""
        self.offset = type_name == "xp_offset"
        """Whether it says where in the packet something is: it moves with the headers."""
        self.dtype = np.dtype(_TYPES.get(type_name, type_name))
        self.width = int(entry.width)
        self.writable = bool(entry.writable)
        self.field = int(entry.field)
        """Where struct xp_batch has its address; bytes."""
        self.provider = _text(entry.provider)
        self.doc = _text(entry.doc)


COLUMNS = {column.name: column for column in map(Column, range(lib.xp_n_columns))}
"""Every column of a batch by name, in the order of core/columns.h."""


def _enums() -> Iterator[tuple[str, dict[str, tuple[int, str]]]]:
    for i in range(lib.xp_n_enums):
        enum = lib.xp_enums[i]
        names = [enum.names[k] for k in range(enum.n)]
        yield (
            _text(enum.column),
            {_text(e.name): (e.value or k, _text(e.doc)) for k, e in enumerate(names, 1)},
        )


ENUMS = dict(_enums())
"""For each column whose values have names: value and meaning by name."""

FLAGS = {name: bit for name, (bit, _) in ENUMS["flags"].items()}
"""The bits of the column `flags` by name: VLAN, IPV4, FRAGMENT, …"""

MALFORMED = {name: value for name, (value, _) in ENUMS["malformed"].items()}
"""The values of the column `malformed` by name; 0 is none of them."""


class Batch(BatchColumns):
    """Up to `capacity` packets by column; the packets' bytes lie in memory shared with the kernel.

    Every column is an attribute: a numpy array of as many rows as the batch has packets, a view
    of memory that is allocated once and used again for every batch. It is valid until the stage
    returns; copy what is to be kept. `xdpipe.batch.COLUMNS` says dtype, shape and meaning of each.

    Between receive and dispatch the batch owns the frames of its packets. Columns other than
    `verdict`, `mark` and those that users' stages declare are read-only.

    Args:
        memory: where the packets lie (the UMEM, or a buffer for a capture), writable.
        capacity: how many packets the batch can hold.
        ports: the pipeline's names of its ports; one without a name unless told otherwise.
    """

    def __init__(self, memory: Any, capacity: int, ports: Sequence[str] = ("",)) -> None:
        self.capacity = capacity
        self.ports = tuple(ports)
        self._memory = memory
        base = ffi.from_buffer("uint8_t[]", memory, require_writable=True)
        self._arena = ffi.new("uint8_t[]", lib.xp_batch_bytes(capacity))
        self._base = base
        self.c = lib.xp_batch_init(self._arena, capacity, base, len(base))
        self._columns = {name: self._view(column) for name, column in COLUMNS.items()}
        self.own: dict[str, OwnColumn] = {}
        """The columns that users' stages declare, by name."""

    def _view(self, column: Column) -> Array:
        n_bytes = column.dtype.itemsize * column.width * self.capacity
        raw = ffi.buffer(lib.xp_batch_column(self.c, column.index), n_bytes)
        view: Array = np.frombuffer(raw, column.dtype)
        if column.width > 1:
            view = view.reshape(self.capacity, column.width)
        view.flags.writeable = column.writable
        return view

    def __len__(self) -> int:
        """Return how many packets the batch holds."""
        return int(lib.xp_batch_n(self.c))

    def __getattr__(self, name: str) -> Array:
        columns = self.__dict__.get("_columns", {})
        if name not in columns:
            names = ", ".join(columns)
            raise AttributeError(f"a batch has no column {name!r}; it has {names}")
        view: Array = columns[name][: len(self)]
        return view

    def __setattr__(self, name: str, value: Any) -> None:
        """Write the rows of a column: `batch.score = …` is `batch.score[:] = …`."""
        if name in self.__dict__.get("_columns", ()):
            getattr(self, name)[...] = value
        else:
            super().__setattr__(name, value)

    def add_columns(self, columns: Sequence[OwnColumn]) -> Any:
        """Have columns that users' stages declare: memory for `capacity` rows, allocated now.

        Returns:
            Where their rows are, as struct xp_rows[], in the same order.

        Raises:
            ChainError: it has one of that name that is another.
        """
        all_rows = ffi.new("struct xp_rows[]", len(columns))
        for rows, column in zip(all_rows, columns, strict=True):
            former = self.own.setdefault(column.name, column)
            if former.kind != column.kind:
                raise ChainError(
                    f"stage {column.provider}: column {column.name!r} as {column}; the batch has "
                    f"it as {former}, of stage {former.provider}"
                )
            if column.name not in self._columns:
                self._columns[column.name] = column.allocate(self.capacity)
            rows.at = ffi.cast("void *", self._columns[column.name].ctypes.data)
            rows.size = column.row_bytes
        return all_rows

    def rows(self, name: str) -> Array:
        """Return all `capacity` rows of a column, a view; those from n on mean nothing."""
        return self._columns[name]

    @property
    def memory(self) -> Any:
        """The buffer that the packets lie in; `addr` counts from its start."""
        return self._memory

    @property
    def port(self) -> str:
        """The name of the port that the batch came by: all its packets did by the same."""
        return self.ports[int(lib.xp_batch_port(self.c))]

    def set_port(self, port: str) -> None:
        """Say that the batch came by this port; for captures and tests, before any stage."""
        lib.xp_batch_set_port(self.c, self.ports.index(port), len(self.ports))

    @property
    def undecided(self) -> Mask:
        """Which packets no stage has decided yet: bool[n]."""
        undecided: Mask = self.verdict == Verdict.UNDECIDED
        return undecided

    def has(self, *flags: str) -> Mask:
        """Return which packets have all of these flags (see FLAGS): bool[n]."""
        bits = np.uint32(sum(FLAGS[flag] for flag in flags))
        has: Mask = (self.flags & bits) == bits
        return has

    # Loads: big-endian, bounds-checked in C. An offset is one number for all packets or an
    # int32[n] column, such as batch.payload + 4; the bounds are those of `len`.

    def _load(self, offset: ArrayLike, width: Literal[1, 2, 4, 8], missing: int) -> Array:
        offsets, step = self._offsets(offset)
        out: Array = np.empty(len(self), _WIDTHS[width])
        lib.xp_load(self.c, offsets, step, ffi.from_buffer(out), width, missing)
        return out

    def _offsets(self, offset: ArrayLike) -> tuple[Any, int]:
        array = np.asarray(offset)
        if array.dtype != np.int32:  # wider types: beyond every packet rather than wrapped
            array = np.asarray(np.clip(array, -1, ABSENT)).astype(np.int32)
        if array.ndim == 0:
            return ffi.new("int32_t *", int(array)), 0
        if array.shape != (len(self),):
            raise ValueError(f"offset: {array.shape} given, ({len(self)},) or one number wanted")
        return ffi.from_buffer("int32_t[]", np.ascontiguousarray(array)), 1

    def u8(self, offset: ArrayLike, missing: int = 0) -> NDArray[np.uint8]:
        """Load a byte per packet; `missing` where it is beyond the packet. uint8[n], a copy."""
        return self._load(offset, 1, missing)

    def u16(self, offset: ArrayLike, missing: int = 0) -> NDArray[np.uint16]:
        """Load a big-endian uint16 per packet; `missing` where it is not wholly in the packet."""
        return self._load(offset, 2, missing)

    def u32(self, offset: ArrayLike, missing: int = 0) -> NDArray[np.uint32]:
        """Load a big-endian uint32 per packet; `missing` where it is not wholly in the packet."""
        return self._load(offset, 4, missing)

    def u64(self, offset: ArrayLike, missing: int = 0) -> NDArray[np.uint64]:
        """Load a big-endian uint64 per packet; `missing` where it is not wholly in the packet."""
        return self._load(offset, 8, missing)

    def bytes_at(self, offset: ArrayLike, width: int) -> NDArray[np.uint8]:
        """Copy `width` bytes per packet from offset on: uint8[n, width], 0 beyond the packet."""
        offsets, step = self._offsets(offset)
        out = np.empty((len(self), width), np.uint8)
        lib.xp_load_bytes(self.c, offsets, step, ffi.from_buffer("uint8_t[]", out), width)
        return out

    def text(self, column: str | NDArray[Any], where: Mask | None = None) -> list[str]:
        r"""Return a column of texts (see `Column.text`) as Python strings; costs per packet.

        Args:
            column: its name, such as "dns_name"; or an array of TEXT that a stage gives.
            where: bool[n], of which packets; None: all.

        Returns:
            One string for each; "" where there is none. What is not ASCII stands as \xNN.
        """
        return [raw.decode("ascii", "backslashreplace") for raw in self._texts(column, where)]

    def numbers(
        self, column: str | NDArray[Any], where: Mask | None = None
    ) -> list[NDArray[np.uint16]]:
        """Return a column of lists of numbers, such as "tls_ciphers"; costs per packet.

        Args:
            column: its name.
            where: bool[n], of which packets; None: all.

        Returns:
            For each packet a copy of its list: uint16, in host order; an empty one for none.
        """
        return [np.frombuffer(raw, ">u2").astype(np.uint16) for raw in self._texts(column, where)]

    def _texts(self, column: str | NDArray[Any], where: Mask | None) -> list[bytes]:
        rows = getattr(self, column) if isinstance(column, str) else column
        if rows.dtype != TEXT:
            raise ValueError(f"{column} is no column of texts")
        if where is not None:
            rows = rows[where]
        texts = ffi.buffer(lib.xp_batch_texts(self.c), lib.xp_batch_n_text(self.c))
        return [texts[at : at + n] for at, n in rows.tolist()]

    def text_bytes(self, column: str, index: int) -> bytes:
        """Return the text of one packet as it stands in the batch."""
        at, n = self._columns[column][index].tolist()
        return bytes(ffi.buffer(lib.xp_batch_texts(self.c) + at, n))

    # Stores: big-endian, in place in the frames, only where the value lies wholly in the packet.

    def put_u8(
        self,
        offset: ArrayLike,
        value: ArrayLike,
        where: Mask | None = None,
        *,
        fix_checksum: bool = False,
    ) -> int:
        """Store a byte per packet; see put_u16."""
        return self._store(offset, value, where, 1, fix_checksum)

    def put_u16(
        self,
        offset: ArrayLike,
        value: ArrayLike,
        where: Mask | None = None,
        *,
        fix_checksum: bool = False,
    ) -> int:
        """Store a big-endian uint16 per packet, in the frame itself.

        Args:
            offset: one number, or int32[n].
            value: one number, or an array of n.
            where: bool[n], which packets; None: all.
            fix_checksum: bring the TCP, UDP, ICMP or ICMPv6 checksum up to date (RFC 1624); the
                chain needs `Headers` before. The IPv4 header's own checksum is not touched.

        Returns:
            In how many packets it was stored; where it does not lie wholly within, it is not.
        """
        return self._store(offset, value, where, 2, fix_checksum)

    def put_u32(
        self,
        offset: ArrayLike,
        value: ArrayLike,
        where: Mask | None = None,
        *,
        fix_checksum: bool = False,
    ) -> int:
        """Store a big-endian uint32 per packet; see put_u16."""
        return self._store(offset, value, where, 4, fix_checksum)

    def _store(
        self,
        offset: ArrayLike,
        value: ArrayLike,
        where: Mask | None,
        width: Literal[1, 2, 4],
        fix_checksum: bool,
    ) -> int:
        offsets, step = self._offsets(offset)
        values = np.asarray(value)
        if values.ndim == 0:
            c_values, value_step = ffi.new("uint64_t *", int(values) % 2**64), 0
        elif values.shape == (len(self),):
            values = np.ascontiguousarray(values.astype(np.uint64))
            c_values, value_step = ffi.from_buffer("uint64_t[]", values), 1
        else:
            raise ValueError(f"value: {values.shape} given, ({len(self)},) or one number wanted")
        mask = ffi.NULL if where is None else self._mask(where)
        n = lib.xp_store(self.c, offsets, step, c_values, value_step, mask, width, fix_checksum)
        return int(n)

    def fill_checksum(self, where: Mask) -> int:
        """Have the TCP or UDP checksum of packets computed anew when they leave.

        For packets of which much was rewritten; `fix_checksum` costs less for a few bytes. NIC or
        kernel compute it where they can (XDP_TX_METADATA, Linux 6.11), else the worker does, from
        the bytes as the last stage left them. The IPv4 header's own checksum is not touched. The
        chain needs `Headers` before.

        Args:
            where: bool[n], which packets.

        Returns:
            In how many it will be: those that have such a checksum and are no fragments.
        """
        return int(lib.xp_want_checksum(self.c, self._mask(where)))

    def want_tx_time(self, where: Mask, tags: ArrayLike | None = None) -> int:
        """Have it told when packets leave, if their verdict will be TX.

        A later batch tells it, in `sent_tag` and `sent_time_ns`. In copy mode the kernel knows the
        time (Linux 6.11), in zero copy a NIC may (XDP_TX_METADATA,
        Documentation/networking/xsk-tx-metadata.rst); else nobody does.

        Args:
            where: bool[n], which packets.
            tags: uint64[n] or one number, by which the stage will know each again; None: `time_ns`,
                the time of arrival.

        Returns:
            Of how many it will be told; 0 where nobody knows.
        """
        values = self.time_ns if tags is None else tags
        tags = np.ascontiguousarray(np.broadcast_to(np.asarray(values), len(self)), np.uint64)
        c_tags = ffi.from_buffer("uint64_t[]", tags)
        return int(lib.xp_want_tx_times(self.c, self._mask(where), c_tags))

    @property
    def sent_tag(self) -> NDArray[np.uint64]:
        """The tags of packets that have left since the batch before: uint64[k], a view.

        Of those that `want_tx_time` asked for, by this stage or another; k has nothing to do with
        how many packets this batch holds, and it may hold none.
        """
        return self._sent(lib.xp_batch_sent_tag)

    @property
    def sent_time_ns(self) -> NDArray[np.uint64]:
        """When each of `sent_tag` left: uint64[k], a view; ns.

        In copy mode by CLOCK_TAI, as the kernel gave up the packet, in zero copy by the NIC's own
        clock. 0: it did not tell.
        """
        return self._sent(lib.xp_batch_sent_time_ns)

    def _sent(self, column: Any) -> NDArray[np.uint64]:
        raw = ffi.buffer(column(self.c), 8 * lib.xp_batch_n_sent(self.c))
        view = np.frombuffer(raw, np.uint64)
        view.flags.writeable = False
        return view

    # Decisions touch only packets that are still undecided.

    def decide(self, where: Mask, verdict: Verdict) -> int:
        """Give the undecided packets of a mask this verdict; return how many that were."""
        return int(lib.xp_decide(self.c, self._mask(where), verdict))

    def drop(self, where: Mask) -> int:
        """Drop the undecided packets of a mask: bool[n]. Returns how many that were."""
        return self.decide(where, DROP)

    def tx(self, where: Mask) -> int:
        """Send the undecided packets of a mask back out of their port. Returns how many."""
        return self.decide(where, TX)

    def pass_(self, where: Mask) -> int:
        """Give the undecided packets of a mask back to the kernel. Returns how many that were."""
        return self.decide(where, PASS)

    def forward(self, where: Mask, port: str | None = None) -> int:
        """Send the undecided packets of a mask out of another port. Returns how many that were.

        Args:
            where: bool[n].
            port: its name; None: the other one, of two.

        Raises:
            ValueError: there is no such port; or which one it is to be cannot be told.
        """
        return int(lib.xp_forward(self.c, self._mask(where), self.port_number(port)))

    def port_number(self, port: str | None) -> int:
        """Return the number of the port to forward to; None: the other one, of two.

        Raises:
            ValueError: there is no such port; or which one it is to be cannot be told.
        """
        if port is None and len(self.ports) == 2:
            return int(1 - lib.xp_batch_port(self.c))
        if port is not None and port in self.ports:
            return self.ports.index(port)
        names = ", ".join(filter(None, self.ports)) or "one without a name"
        raise ValueError(f"forward to port {port!r}: the pipeline's ports are: {names}")

    def _mask(self, where: Mask) -> Any:
        mask = np.asarray(where)
        if mask.dtype != np.bool_ or mask.shape != (len(self),):
            raise ValueError(
                f"mask: {mask.dtype}{list(mask.shape)} given, bool[{len(self)}] wanted"
            )
        return ffi.from_buffer("uint8_t[]", np.ascontiguousarray(mask))

    # The slow path, for tests and for looking at single packets.

    def packet(self, index: int) -> memoryview:
        """Return packet `index` as a writable view of its bytes, valid as long as the batch.

        Of a packet that came in several frames it is a copy, and read-only.
        """
        start, length = int(self.addr[index]), int(self.len[index])
        if self.n_frames[index] > 1:
            copy = bytearray(length)
            lib.xp_batch_read(self.c, index % len(self), ffi.from_buffer(copy), length)
            return memoryview(copy).toreadonly()
        return memoryview(ffi.buffer(self._base + start, length))

    def stream(self, index: int) -> list[tuple[int, bytes]]:
        """Return what comes next in its TCP stream with packet `index`, behind `TcpStreams`.

        Returns:
            (bytes before it that were given up, bytes), in order; [] for nothing. Copies.
        """
        pieces = lib.xp_batch_pieces(self.c) + int(self.tcp_pieces[index])
        n = int(self.tcp_n_pieces[index])
        return [(pieces[k].lost, bytes(ffi.buffer(pieces[k].p, pieces[k].n))) for k in range(n)]

    def load(self, packets: Iterable[bytes], time_ns: int = 0, *, headroom: int = HEADROOM) -> None:
        """Fill the batch with these packets, one behind the other from the memory's start.

        For tests and tools; what the batch held is forgotten. More than `capacity` packets, or
        more bytes than the memory has, is a ValueError.

        Args:
            packets: their bytes.
            time_ns: of their arrival, nanoseconds.
            headroom: bytes that are left free before each (column `headroom`).
        """
        at = 0
        columns = self._columns
        lib.xp_batch_set_n(self.c, 0)
        with self._unlocked():
            for n, packet in enumerate(packets):
                at += headroom
                if n == self.capacity or at + len(packet) > len(self._base):
                    raise ValueError(
                        f"the batch holds {self.capacity} packets, {len(self._base)} bytes"
                    )
                ffi.memmove(self._base + at, packet, len(packet))
                columns["addr"][n], columns["len"][n] = at, len(packet)
                columns["headroom"][n], columns["time_ns"][n] = headroom, time_ns
                columns["verdict"][n] = Verdict.UNDECIDED
                at += -(-len(packet) // 64) * 64
                lib.xp_batch_set_n(self.c, n + 1)
        lib.xp_batch_whole(self.c)

    def place(self, addresses: Sequence[int], lens: Sequence[int], headroom: int = 0) -> None:
        """Say where packets lie that are in the memory already; for tests and tools.

        Args:
            addresses: where each begins, counted from the memory's start.
            lens: bytes of each.
            headroom: bytes before each that are nobody's.
        """
        n = len(addresses)
        with self._unlocked():
            self._columns["addr"][:n], self._columns["len"][:n] = addresses, lens
            self._columns["headroom"][:n] = headroom
        self._columns["verdict"][:n] = Verdict.UNDECIDED
        lib.xp_batch_set_n(self.c, n)
        lib.xp_batch_whole(self.c)

    def keep(self, places: list[int]) -> None:
        """Keep only the packets at these places, in this order; for captures, before any stage.

        In a worker it would lose frames.
        """
        with self._unlocked():
            for name in _PLACE:
                column = self._columns[name]
                column[: len(places)] = column[places]
        lib.xp_batch_set_n(self.c, len(places))
        lib.xp_batch_whole(self.c)

    @contextmanager
    def _unlocked(self) -> Iterator[None]:
        columns = [self._columns[name] for name in _PLACE]
        for column in columns:
            column.flags.writeable = True
        try:
            yield
        finally:
            for column in columns:
                column.flags.writeable = False
