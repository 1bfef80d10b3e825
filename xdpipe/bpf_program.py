"""Programs by bpf(2): load them, run them on a packet, ask who they are, open tracepoints.

The structures are those of union bpf_attr and of linux/bpf.h, as far as their fields are used. No
call depends on the network namespace of the caller, but a run with an interface does.
"""

import ctypes
import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from xdpipe.bpf import BpfError, Descriptor, call, get_info

# linux/bpf.h, enum bpf_cmd
_PROG_LOAD = 5
_PROG_TEST_RUN = 10
_PROG_GET_FD_BY_ID = 13
_RAW_TRACEPOINT_OPEN = 17

# enum bpf_prog_type, enum bpf_attach_type
PROG_TYPE_XDP: Final = 6
PROG_TYPE_RAW_TRACEPOINT: Final = 17
ATTACH_TYPE_XDP: Final = 37

# Program flags and flags of BPF_PROG_TEST_RUN
XDP_HAS_FRAGS: Final = 1 << 5
XDP_DEV_BOUND_ONLY: Final = 1 << 6
TEST_XDP_LIVE_FRAMES: Final = 1 << 1

# enum xdp_action
XDP_PASS: Final = 2
XDP_REDIRECT: Final = 4

_LICENSE = b"Dual BSD/GPL"
_LOG_SIZE = 1 << 20  # bytes
_LOG_LINES = 6  # of the verifier, told in a message

_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64

PASS = bytes.fromhex("b700000002000000 9500000000000000")
"""A program that passes everything: r0 = XDP_PASS; exit (RFC 9669, 4.2 and 4.3)."""


_INSTRUCTION = struct.Struct("=BBhi")  # code, registers, offset, immediate (RFC 9669, 3.1)
_CALL = 0x85
_LOAD_64 = 0x18  # takes two instructions
# linux/bpf.h, as source registers
_PSEUDO_MAP_FD = 1
_PSEUDO_KFUNC_CALL = 2


def call_kfuncs(bytecode: bytes, ids: Mapping[int, int]) -> bytes:
    """Direct calls of helpers that there are not to functions of the kernel.

    Args:
        bytecode: a program.
        ids: by the helper's number, the function's type number (xdpipe.btf).
    """
    out = bytearray(bytecode)
    for at in range(0, len(out), _INSTRUCTION.size):
        code, registers, _, number = _INSTRUCTION.unpack_from(out, at)
        if code == _CALL and registers >> 4 == 0 and number in ids:
            _INSTRUCTION.pack_into(out, at, code, _PSEUDO_KFUNC_CALL << 4, 0, ids[number])
    return bytes(out)


def renumber_maps(bytecode: bytes, numbers: Mapping[int, int]) -> bytes:
    """Put other numbers in the place of those by which a program refers to its maps."""
    out = bytearray(bytecode)
    at = 0
    while at < len(out):
        code, registers, offset, number = _INSTRUCTION.unpack_from(out, at)
        if code == _LOAD_64 and registers >> 4 == _PSEUDO_MAP_FD:
            _INSTRUCTION.pack_into(out, at, code, registers, offset, numbers[number])
        at += _INSTRUCTION.size * (2 if code == _LOAD_64 else 1)
    return bytes(out)


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


class XdpMd(ctypes.Structure):
    """struct xdp_md, the context of BPF_PROG_TEST_RUN; `data_end` is the length of the packet."""

    _fields_ = (
        ("data", _U32), ("data_end", _U32), ("data_meta", _U32), ("ingress_ifindex", _U32),
        ("rx_queue_index", _U32), ("egress_ifindex", _U32),
    )  # fmt: skip


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

        The kernel takes 14 bytes or more. What is beyond a page less headroom (256 bytes) and
        tailroom (320, struct skb_shared_info), so beyond 3520 bytes, lies in further buffers, which
        a program does not see between `data` and `data_end`.

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
    get_info(program.fd, info, "ask for a program")
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
