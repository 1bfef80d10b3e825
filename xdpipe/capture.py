"""Read and write capture files through libpcap.

libpcap reads pcap and pcapng, in microseconds and nanoseconds and in either byte order; gzip is
undone here, into a temporary file that has no name, since libpcap reads from files only.

A file that was cut short is no error: what was whole is given, and `truncated` says where it ended.
"""

import contextlib
import ctypes
import os
import stat
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from xdpipe.errors import XdpipeError
from xdpipe.libpcap import ffi, lib

# pcap/pcap.h and pcap/dlt.h
_ERRBUF_SIZE = 256
_PRECISION_NANO = 1
_EN10MB = 1
_END_OF_FILE = -2
# The most that libpcap reads of a packet, and so the snapshot length that cuts nothing.
_MAX_SNAPLEN = 262144

_GZIP = b"\x1f\x8b"
_PCAPNG = b"\n\r\r\n"
_PCAP = 0xA1  # the high byte of the number that a pcap file starts with, in all its variants
_OTHER_COMPRESSIONS = {
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d"),
    b"\xfd7zXZ\0": ("xz", "xz -d"),
    b"BZh": ("bzip2", "bzip2 -d"),
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -d"),
}
# Bytes per step when a file is copied or decompressed, so that its size is no matter.
_CHUNK = 1 << 18

# FILE * of a descriptor, for libpcap to read or write and to close.
_fdopen = ctypes.CDLL(None, use_errno=True).fdopen
_fdopen.restype = ctypes.c_void_p
_fdopen.argtypes = [ctypes.c_int, ctypes.c_char_p]


class Packet(NamedTuple):
    """A packet of a capture.

    Attributes:
        time_ns: nanoseconds since 1970.
        wire_len: its bytes on the wire.
        data: those of them that were captured.
    """

    time_ns: int
    wire_len: int
    data: bytes


@dataclass(frozen=True)
class Truncation:
    """Where and why a capture ended before its time.

    Attributes:
        after_packets: whole packets before it.
        offset: bytes of the file that could be read, before compression.
        reason: in the words of libpcap or zlib.
    """

    after_packets: int
    offset: int
    reason: str

    def __str__(self) -> str:
        return f"after packet {self.after_packets}, at byte {self.offset}: {self.reason}"


class CaptureReader:
    """A capture file, read once from front to end.

    Packets come one by one from iterating, or many in one call of the C core, which takes `handle`
    and `next_ex_address` and whose end must be told with `note_end`. Either way stamps are in
    nanoseconds.

    Attributes:
        path: of the file.
        n_packets: read so far.
        truncated: None, or how the file ended before its time; final once the end was reached.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a capture file.

        Raises:
            XdpipeError: no such file, no permission, or not a capture file.
        """
        self.path = os.fspath(path)
        self.n_packets = 0
        self.truncated: Truncation | None = None
        self._handle: Any = ffi.NULL
        self._ended = False
        self._cut: str | None = None
        try:
            with open(self.path, "rb") as file:
                fd = self._plain(file)
        except OSError as error:
            raise XdpipeError(f"{self.path}: {error.strerror or error}") from error
        stream = _stream(fd, b"rb")
        errbuf = ffi.new("char[]", _ERRBUF_SIZE)
        self._handle = lib.pcap_fopen_offline_with_tstamp_precision(stream, _PRECISION_NANO, errbuf)
        if self._handle == ffi.NULL:
            _close_stream(stream)
            reason = self._cut or ffi.string(errbuf).decode(errors="replace")
            raise XdpipeError(
                f"{self.path}: not a capture file, neither pcap nor pcapng ({reason})"
            )

    def _plain(self, file: IO[bytes]) -> int:
        """Return a descriptor, to be owned by the caller, of what is to be read."""
        start = file.read(len(max(_OTHER_COMPRESSIONS, key=len)))
        if not start:
            raise XdpipeError(f"{self.path}: not a capture file; it is empty")
        for magic, (name, command) in _OTHER_COMPRESSIONS.items():
            if start.startswith(magic):
                raise XdpipeError(
                    f"{self.path}: compressed with {name}; decompress it first, by {command}"
                )
        zipped = start.startswith(_GZIP)
        if not zipped and not _may_be_capture(start):
            raise XdpipeError(f"{self.path}: not a capture file, neither pcap nor pcapng")
        if not zipped and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            return os.dup(file.fileno())
        with tempfile.TemporaryFile(buffering=0) as plain:
            if zipped:
                self._cut = _gunzip(start, file, plain)
            else:  # a pipe: libpcap could read it, but cannot say how far it came
                while start:
                    plain.write(start)
                    start = file.read(_CHUNK)
            os.lseek(plain.fileno(), 0, os.SEEK_SET)
            return os.dup(plain.fileno())

    def close(self) -> None:
        """Close the file; `handle` is dead from then on. May be called twice."""
        handle, self._handle = self._handle, ffi.NULL
        if handle != ffi.NULL:
            lib.pcap_close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", ffi.NULL) != ffi.NULL:
            self.close()

    @property
    def link_type(self) -> str:
        """The short name of its link type, such as `EN10MB`, which is Ethernet."""
        number = lib.pcap_datalink(self._open())
        name = lib.pcap_datalink_val_to_name(number)
        return ffi.string(name).decode() if name != ffi.NULL else f"DLT {number}"

    @property
    def link_type_description(self) -> str:
        """The long name of its link type, such as `Ethernet`."""
        text = lib.pcap_datalink_val_to_description(lib.pcap_datalink(self._open()))
        return ffi.string(text).decode() if text != ffi.NULL else self.link_type

    @property
    def snaplen(self) -> int:
        """The bytes at which longer packets were cut when they were captured."""
        return int(lib.pcap_snapshot(self._open()))

    def require_ethernet(self) -> None:
        """Check that it holds Ethernet frames.

        Raises:
            XdpipeError: it holds something else; the message names it.
        """
        if lib.pcap_datalink(self._open()) != _EN10MB:
            raise XdpipeError(
                f"{self.path}: link type {self.link_type} ({self.link_type_description}); "
                "xdpipe reads Ethernet captures only (EN10MB)"
            )

    def __iter__(self) -> Iterator[Packet]:
        """Yield what is left of the packets: the slow path, an object each, its bytes copied."""
        header = ffi.new("struct pcap_pkthdr **")
        data = ffi.new("unsigned char **")
        while not self._ended:
            status = lib.pcap_next_ex(self._open(), header, data)
            if status != 1:
                self.note_end(status, 0)
                return
            self.n_packets += 1
            stamp = header[0].ts  # tv_usec holds nanoseconds, as asked for when opened
            yield Packet(
                stamp.tv_sec * 1_000_000_000 + stamp.tv_usec,
                header[0].len,
                bytes(ffi.buffer(data[0], header[0].caplen)),
            )

    @property
    def handle(self) -> int:
        """The address of libpcap's `pcap_t`, which stays this object's; valid until `close`."""
        return int(ffi.cast("uintptr_t", self._open()))

    @property
    def next_ex_address(self) -> int:
        """The address of libpcap's `pcap_next_ex`, for C to call with `handle`."""
        return int(ffi.cast("uintptr_t", lib.pcap_next_ex))

    def note_end(self, status: int, n_packets: int) -> None:
        """Take down how a loop over `pcap_next_ex` ended.

        Args:
            status: what it returned in the end: -2 at the end of the file, -1 for an error.
            n_packets: that the loop read, which are added to those read before.
        """
        self.n_packets += n_packets
        self._ended = True
        reason = self._cut
        if status != _END_OF_FILE:
            # A stream cut short ends in a packet cut short more often than not; the first is the
            # cause.
            message = ffi.string(lib.pcap_geterr(self._open())).decode(errors="replace")
            reason = reason or message or "a packet longer than libpcap takes"
        if reason is not None:
            offset = lib.ftell(lib.pcap_file(self._open()))
            self.truncated = Truncation(self.n_packets, offset, reason)

    def _open(self) -> Any:
        if self._handle == ffi.NULL:
            raise XdpipeError(f"{self.path}: closed already")
        return self._handle


class CaptureWriter:
    """A pcap file with nanoseconds, written packet by packet.

    Attributes:
        path: of the file, which is made anew.
        n_packets: written so far.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Make the file.

        Raises:
            XdpipeError: no such directory, no permission.
        """
        self.path = os.fspath(path)
        self.n_packets = 0
        self._handle: Any = ffi.NULL
        self._dumper: Any = ffi.NULL
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise XdpipeError(f"{self.path}: {error.strerror}") from error
        stream = _stream(fd, b"wb")
        self._handle = lib.pcap_open_dead_with_tstamp_precision(
            _EN10MB, _MAX_SNAPLEN, _PRECISION_NANO
        )
        self._dumper = lib.pcap_dump_fopen(self._handle, stream)
        self._header = ffi.new("struct pcap_pkthdr *")
        if self._dumper == ffi.NULL:
            reason = ffi.string(lib.pcap_geterr(self._handle)).decode(errors="replace")
            self.close()
            raise XdpipeError(f"{self.path}: {reason}")

    def write(self, time_ns: int, data: bytes, wire_len: int | None = None) -> None:
        """Write a packet.

        Args:
            time_ns: nanoseconds since 1970; the format ends in 2106.
            data: the bytes that were captured.
            wire_len: the bytes that it had on the wire, where those are more.
        """
        if self._dumper == ffi.NULL:
            raise XdpipeError(f"{self.path}: closed already")
        header = self._header
        header.ts.tv_sec, header.ts.tv_usec = divmod(time_ns, 1_000_000_000)
        header.caplen = len(data)
        header.len = len(data) if wire_len is None else wire_len
        lib.pcap_dump(ffi.cast("unsigned char *", self._dumper), header, ffi.from_buffer(data))
        self.n_packets += 1

    def close(self) -> None:
        """Write out what is buffered and close the file. May be called twice.

        Raises:
            XdpipeError: not all could be written, for a full disk for example.
        """
        dumper, self._dumper = self._dumper, ffi.NULL
        handle, self._handle = self._handle, ffi.NULL
        failed = False
        if dumper != ffi.NULL:
            # a write that failed earlier has thrown its buffer away, and flush finds nothing to do
            failed = lib.pcap_dump_flush(dumper) != 0 or lib.ferror(lib.pcap_dump_file(dumper)) != 0
            lib.pcap_dump_close(dumper)
        if handle != ffi.NULL:
            lib.pcap_close(handle)
        if failed:
            raise XdpipeError(f"{self.path}: could not be written whole; is the disk full?")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _may_be_capture(start: bytes) -> bool:
    """Whether libpcap might read a file that starts so; looked at before much of it is copied."""
    return start.startswith(_PCAPNG[: len(start)]) or _PCAP in (start[:1] + start[3:4])


def _stream(fd: int, mode: bytes) -> Any:
    """Return a `FILE *` that owns the descriptor."""
    address = _fdopen(fd, mode)
    if not address:
        os.close(fd)
        raise XdpipeError(f"fdopen: {os.strerror(ctypes.get_errno())}")
    return ffi.cast("FILE *", address)


def _close_stream(stream: Any) -> None:
    """Close a `FILE *` that libpcap did not take over."""
    fclose = ctypes.CDLL(None).fclose
    fclose.argtypes = [ctypes.c_void_p]
    fclose(int(ffi.cast("uintptr_t", stream)))


def _gunzip(start: bytes, file: IO[bytes], plain: IO[bytes]) -> str | None:
    """Decompress `start` and then `file`, member after member (RFC 1952, 2.2), as far as it goes.

    Returns:
        None, or why it ended before its time.
    """
    data = start
    member = zlib.decompressobj(zlib.MAX_WBITS | 16)
    first = b""
    while True:
        before = member.copy()
        try:
            step = member.decompress(data, _CHUNK)
            plain.write(step)
            if len(first) < 4:
                first += step[:4]
                if len(first) >= 4 and not _may_be_capture(first):
                    return "what is compressed is none"
            data = member.unconsumed_tail
        except zlib.error as error:
            # zlib gave nothing of this step, so it is done again in the smallest ones, up to the
            # damage.
            with contextlib.suppress(zlib.error):
                for n in range(len(data)):
                    plain.write(before.decompress(data[n : n + 1]))
            return f"gzip: {error}"
        if member.eof:
            data = member.unused_data or file.read(_CHUNK)
            if not data.startswith(_GZIP[: len(data)]):
                return None  # padding, which gzip(1) passes over too
            if not data:
                return None
            member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        elif not data:
            data = file.read(_CHUNK)
            if not data:
                plain.write(member.flush())
                return "gzip: the file ends before its compressed stream does"
