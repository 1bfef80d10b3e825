"""bpf(2): load programs, run them, open tracepoints, read and write maps.

One syscall with a union of structs (union bpf_attr in linux/bpf.h); those that xdpipe uses are
below, as far as their fields are used: the kernel takes what is missing at the end as zero. Objects
are file descriptors, and live while one is open, a link holds them, or another object refers to
them. None depends on the network namespace of the caller, but BPF_PROG_TEST_RUN with an interface.
"""

import ctypes
import errno
import os
import platform
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from xdpipe.errors import XdpipeError

# linux/bpf.h, enum bpf_cmd
_MAP_CREATE = 0
_MAP_LOOKUP_ELEM = 1
_MAP_UPDATE_ELEM = 2
_MAP_DELETE_ELEM = 3
_PROG_LOAD = 5
_PROG_TEST_RUN = 10
_PROG_GET_FD_BY_ID = 13
_OBJ_GET_INFO_BY_FD = 15
_RAW_TRACEPOINT_OPEN = 17

# enum bpf_prog_type, enum bpf_attach_type, enum bpf_map_type
PROG_TYPE_XDP: Final = 6
PROG_TYPE_RAW_TRACEPOINT: Final = 17
ATTACH_TYPE_XDP: Final = 37
_MAP_TYPE_ARRAY = 2

# Program flags and flags of BPF_PROG_TEST_RUN
XDP_HAS_FRAGS: Final = 1 << 5
TEST_XDP_LIVE_FRAMES: Final = 1 << 1

# enum xdp_action
XDP_PASS: Final = 2
XDP_REDIRECT: Final = 4

# The system call's number is the architecture's own.
_SYS_BPF = {"x86_64": 321, "ppc64le": 361, "s390x": 351}.get(platform.machine(), 280)
_LICENSE = b"Dual BSD/GPL"
_LOG_SIZE = 1 << 20
_LOG_LINES = 6  # of the verifier, told in a message

_libc = ctypes.CDLL(None, use_errno=True)
_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64


class _MapCreate(ctypes.Structure):
    _fields_ = (("map_type", _U32), ("key_size", _U32), ("value_size", _U32), ("n_entries", _U32))


class _MapElement(ctypes.Structure):
    _fields_ = (("map_fd", _U32), ("key", _U64), ("value", _U64), ("flags", _U64))


class _ProgLoad(ctypes.Structure):
    _fields_ = (
        ("prog_type", _U32), ("insn_cnt", _U32), ("insns", _U64), ("license", _U64),
        ("log_level", _U32), ("log_size", _U32), ("log_buf", _U64), ("kern_version", _U32),
        ("prog_flags", _U32), ("prog_name", ctypes.c_char * 16), ("prog_ifindex", _U32),
        ("expected_attach_type", _U32),
    )  # fmt: skip


class _TestRun(ctypes.Structure):
    _fields_ = (
        ("prog_fd", _U32), ("retval", _U32), ("data_size_in", _U32), ("data_size_out", _U32),
        ("data_in", _U64), ("data_out", _U64), ("repeat", _U32), ("duration", _U32),
        ("ctx_size_in", _U32), ("ctx_size_out", _U32), ("ctx_in", _U64), ("ctx_out", _U64),
        ("flags", _U32), ("cpu", _U32), ("batch_size", _U32),
    )  # fmt: skip


class _GetFd(ctypes.Structure):
    _fields_ = (("id", _U32), ("next_id", _U32), ("open_flags", _U32))


class _InfoByFd(ctypes.Structure):
    _fields_ = (("bpf_fd", _U32), ("info_len", _U32), ("info", _U64))


class _RawTracepoint(ctypes.Structure):
    _fields_ = (("name", _U64), ("prog_fd", _U32))


class _ProgInfo(ctypes.Structure):
    """struct bpf_prog_info as far as the name."""

    _fields_ = (
        ("type", _U32), ("id", _U32), ("tag", ctypes.c_uint8 * 8), ("jited_len", _U32),
        ("xlated_len", _U32), ("jited", _U64), ("xlated", _U64), ("load_time", _U64),
        ("created_by_uid", _U32), ("n_map_ids", _U32), ("map_ids", _U64),
        ("name", ctypes.c_char * 16),
    )  # fmt: skip


class _MapInfo(ctypes.Structure):
    """struct bpf_map_info as far as the sizes."""

    _fields_ = (
        ("type", _U32), ("id", _U32), ("key_size", _U32), ("value_size", _U32),
        ("max_entries", _U32),
    )  # fmt: skip


class XdpMd(ctypes.Structure):
    """struct xdp_md, the context of BPF_PROG_TEST_RUN; `data_end` is the length of the packet."""

    _fields_ = (
        ("data", _U32), ("data_end", _U32), ("data_meta", _U32), ("ingress_ifindex", _U32),
        ("rx_queue_index", _U32), ("egress_ifindex", _U32),
    )  # fmt: skip


class BpfError(XdpipeError):
    """A call of bpf(2) that failed.

    Attributes:
        errno: the kernel's.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.errno = number


def call(command: int, attributes: ctypes.Structure, what: str) -> int:
    """Call bpf(2), again after a signal.

    Args:
        command: BPF_*, enum bpf_cmd.
        attributes: the command's part of union bpf_attr.
        what: is being done, for the message.

    Raises:
        BpfError: it failed.
    """
    size = ctypes.sizeof(attributes)
    while True:
        result: int = _libc.syscall(_SYS_BPF, command, ctypes.byref(attributes), size)
        if result >= 0:
            return result
        number = ctypes.get_errno()
        if number == errno.EPERM:
            raise BpfError(
                f"{what}: not permitted; run as root, or with CAP_BPF and CAP_NET_ADMIN "
                "(and CAP_PERFMON for tracepoints)",
                number,
            )
        if number == errno.ENOSYS:
            raise BpfError(f"{what}: this kernel has no bpf(2), CONFIG_BPF_SYSCALL", number)
        if number != errno.EINTR:
            raise BpfError(f"{what}: {os.strerror(number)}", number)


def require_privilege() -> None:
    """Check that programs and maps can be made, by making a small map.

    Raises:
        BpfError: not permitted.
    """
    os.close(call(_MAP_CREATE, _MapCreate(_MAP_TYPE_ARRAY, 4, 4, 1), "load an eBPF program"))


class Descriptor:
    """A BPF object by its file descriptor, which it owns; a context manager.

    Attributes:
        fd: close-on-exec, as the kernel makes them; -1 once closed.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Close the descriptor. May be called twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Map(Descriptor):
    """A map with 32-bit keys: array, per-CPU array, XSKMAP.

    Attributes:
        id: the kernel's number for it.
        value_size: bytes of a value, as declared in C.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        info = _MapInfo()
        call(_OBJ_GET_INFO_BY_FD, _info_by_fd(fd, info), "ask for a map")
        self.id: int = info.id
        self.value_size: int = info.value_size

    def _element(self, key: int, value: ctypes.Array[ctypes.c_char] | None) -> _MapElement:
        self._key = _U32(key)  # kept until the call is over
        address = ctypes.addressof(value) if value is not None else 0
        return _MapElement(self.fd, ctypes.addressof(self._key), address, 0)

    def lookup(self, key: int) -> bytes:
        """Return the value of an array's entry, in host byte order."""
        value = ctypes.create_string_buffer(self.value_size)
        call(_MAP_LOOKUP_ELEM, self._element(key, value), f"read map entry {key}")
        return value.raw

    def lookup_per_cpu(self, key: int) -> list[bytes]:
        """Return the values of a per-CPU array's entry, one for each possible CPU."""
        size = (self.value_size + 7) & ~7
        value = ctypes.create_string_buffer(size * n_possible_cpus())
        call(_MAP_LOOKUP_ELEM, self._element(key, value), f"read map entry {key}")
        return [value.raw[at : at + self.value_size] for at in range(0, len(value.raw), size)]

    def update(self, key: int, value: bytes) -> None:
        """Write an entry."""
        buffer = ctypes.create_string_buffer(value, self.value_size)
        call(_MAP_UPDATE_ELEM, self._element(key, buffer), f"write map entry {key}")

    def delete(self, key: int) -> None:
        """Remove an entry; one that is not there is no error."""
        try:
            call(_MAP_DELETE_ELEM, self._element(key, None), f"delete map entry {key}")
        except BpfError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                raise


@dataclass(frozen=True)
class TestRun:
    """What BPF_PROG_TEST_RUN gave.

    Attributes:
        action: the program's return value, XDP_*; 0 in live frames mode.
        data: the packet as the program left it.
        duration_ns: of one run, the mean over `repeat`; nanoseconds.
    """

    __test__ = False  # not for pytest

    action: int
    data: bytes
    duration_ns: int


class Program(Descriptor):
    """A loaded program."""

    @classmethod
    def load(
        cls,
        bytecode: bytes,
        name: str,
        *,
        prog_type: int = PROG_TYPE_XDP,
        flags: int = 0,
        ifindex: int = 0,
    ) -> Self:
        """Load a program.

        Args:
            bytecode: instructions of eBPF, 8 bytes each; the maps in it are descriptors.
            name: up to 15 bytes, seen by others.
            prog_type: PROG_TYPE_*.
            flags: such as XDP_HAS_FRAGS.
            ifindex: of the interface that the program is bound to, with XDP_DEV_BOUND_ONLY.

        Raises:
            BpfError: not permitted, or the verifier refused; the message ends with its last lines.
        """
        code = ctypes.create_string_buffer(bytecode, len(bytecode))
        license_name = ctypes.create_string_buffer(_LICENSE)
        attributes = _ProgLoad(
            prog_type=prog_type, insn_cnt=len(bytecode) // 8, insns=ctypes.addressof(code),
            license=ctypes.addressof(license_name), prog_flags=flags, prog_name=name.encode(),
            prog_ifindex=ifindex,
            expected_attach_type=ATTACH_TYPE_XDP if prog_type == PROG_TYPE_XDP else 0,
        )  # fmt: skip
        what = f'load program "{name}"'
        try:
            return cls(call(_PROG_LOAD, attributes, what))
        except BpfError as error:
            if error.errno == errno.EPERM:
                raise
        # Once more, with the verifier's log: writing it costs time that the first try saves.
        log = ctypes.create_string_buffer(_LOG_SIZE)
        attributes.log_level, attributes.log_size = 1, _LOG_SIZE
        attributes.log_buf = ctypes.addressof(log)
        try:
            return cls(call(_PROG_LOAD, attributes, what))
        except BpfError as error:
            lines = log.value.decode(errors="replace").strip().splitlines()
            said = "; ".join(line.strip() for line in lines[-_LOG_LINES:]) or "nothing"
            raise BpfError(f"{error}; the kernel's verifier says: {said}", error.errno) from None

    def test_run(
        self,
        packet: bytes,
        *,
        ingress_ifindex: int = 0,
        queue: int = 0,
        repeat: int = 1,
        flags: int = 0,
        batch_size: int = 0,
    ) -> TestRun:
        """Run an XDP program on a packet (net/bpf/test_run.c, bpf_prog_test_run_xdp).

        The kernel takes 14 bytes or more, and for programs without XDP_HAS_FRAGS at most a page
        less headroom (256) and tailroom (320 for struct skb_shared_info): 3520 bytes.

        Args:
            packet: handed to the program, in a buffer of the kernel's own.
            ingress_ifindex: interface it came by, in the caller's network namespace; 0: none.
            queue: of that interface; needs one.
            repeat: how many times.
            flags: TEST_XDP_LIVE_FRAMES, to have done what the program returns.
            batch_size: packets at a time in live frames mode; 0 means 64.

        Raises:
            BpfError: refused.
        """
        data_in = ctypes.create_string_buffer(packet, len(packet))
        attributes = _TestRun(
            prog_fd=self.fd, data_size_in=len(packet), data_in=ctypes.addressof(data_in),
            repeat=repeat, flags=flags, batch_size=batch_size,
        )  # fmt: skip
        live = flags & TEST_XDP_LIVE_FRAMES
        data_out = ctypes.create_string_buffer(0 if live else len(packet) + 4096)
        if not live:
            attributes.data_out, attributes.data_size_out = (
                ctypes.addressof(data_out), len(data_out)
            )  # fmt: skip
        if ingress_ifindex or live:
            context = XdpMd(
                data_end=len(packet), ingress_ifindex=ingress_ifindex, rx_queue_index=queue
            )
            attributes.ctx_in = ctypes.addressof(context)
            attributes.ctx_size_in = ctypes.sizeof(context)
        call(_PROG_TEST_RUN, attributes, f"run a program on a packet of {len(packet)} bytes")
        out = data_out.raw[: 0 if live else attributes.data_size_out]
        return TestRun(attributes.retval, out, attributes.duration)


@dataclass(frozen=True)
class ProgramInfo:
    """The kernel's number and name for a program."""

    id: int
    name: str


def program_info(program: Program) -> ProgramInfo:
    """Ask who a program is."""
    info = _ProgInfo()
    call(_OBJ_GET_INFO_BY_FD, _info_by_fd(program.fd, info), "ask for a program")
    return ProgramInfo(info.id, info.name.decode(errors="replace"))


def program_by_id(number: int) -> ProgramInfo:
    """Ask who the program of that number is.

    Raises:
        BpfError: it is gone (ENOENT), or not permitted.
    """
    with Program(call(_PROG_GET_FD_BY_ID, _GetFd(number), f"find program {number}")) as program:
        return program_info(program)


def open_raw_tracepoint(name: str, program: Program) -> Descriptor:
    """Have a program run at a tracepoint of the kernel until the descriptor is closed.

    Raises:
        BpfError: there is no such tracepoint (ENOENT), or not permitted.
    """
    text = ctypes.create_string_buffer(name.encode())
    attributes = _RawTracepoint(ctypes.addressof(text), program.fd)
    return Descriptor(call(_RAW_TRACEPOINT_OPEN, attributes, f"attach to the tracepoint {name}"))


def _info_by_fd(fd: int, info: ctypes.Structure) -> _InfoByFd:
    return _InfoByFd(fd, ctypes.sizeof(info), ctypes.addressof(info))


def n_possible_cpus() -> int:
    """Return how many values an entry of a per-CPU map has.

    /sys/devices/system/cpu/possible holds ranges, such as `0-3,8-11`.
    """
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
        ranges = [part.split("-") for part in file.read().strip().split(",")]
    return sum(int(part[-1]) - int(part[0]) + 1 for part in ranges)
