"""bpf(2): the system call, its errors, descriptors, and maps.

One syscall with a union of structs (union bpf_attr in linux/bpf.h); those that xdpipe uses are
below, as far as their fields are used: the kernel takes what is missing at the end as zero. Objects
are file descriptors, and live while one is open, a link holds them, or another object refers to
them.

Programs are in bpf_program.py, links in bpf_link.py, the compiler in bpf_compile.py.
"""

import ctypes
import errno
import os
import platform
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from xdpipe.errors import XdpipeError

# linux/bpf.h, enum bpf_cmd
_MAP_CREATE = 0
_MAP_LOOKUP_ELEM = 1
_MAP_UPDATE_ELEM = 2
_MAP_DELETE_ELEM = 3
_OBJ_GET_INFO_BY_FD = 15

# enum bpf_map_type
MAP_TYPE_HASH = 1
_MAP_TYPE_ARRAY = 2
MAP_TYPE_LPM_TRIE = 11

BPF_F_NO_PREALLOC = 1

# The system call's number is the architecture's own.
_SYS_BPF = {"x86_64": 321, "ppc64le": 361, "s390x": 351}.get(platform.machine(), 280)

_libc = ctypes.CDLL(None, use_errno=True)
_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64


class _MapCreate(ctypes.Structure):
    _fields_ = (
        ("map_type", _U32), ("key_size", _U32), ("value_size", _U32), ("max_entries", _U32),
        ("map_flags", _U32), ("inner_map_fd", _U32), ("numa_node", _U32),
        ("map_name", ctypes.c_char * 16),
    )  # fmt: skip


class _MapElement(ctypes.Structure):
    _fields_ = (("map_fd", _U32), ("key", _U64), ("value", _U64), ("flags", _U64))


class _InfoByFd(ctypes.Structure):
    _fields_ = (("bpf_fd", _U32), ("info_len", _U32), ("info", _U64))


class MapInfo(ctypes.Structure):
    """struct bpf_map_info as far as the flags."""

    _fields_ = (
        ("type", _U32), ("id", _U32), ("key_size", _U32), ("value_size", _U32),
        ("max_entries", _U32), ("map_flags", _U32),
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


def get_info(fd: int, info: ctypes.Structure, what: str) -> None:
    """Have the kernel fill in what it knows of an object, as far as the structure goes."""
    size = ctypes.sizeof(info)
    call(_OBJ_GET_INFO_BY_FD, _InfoByFd(fd, size, ctypes.addressof(info)), what)


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


@dataclass(frozen=True)
class MapSpec:
    """How a map is made.

    Attributes:
        name: in the source.
        map_type: enum bpf_map_type.
        key_size: bytes.
        value_size: bytes.
        n_entries: at the most.
        flags: BPF_F_*.
        fields: of a value that is a struct, their names in order.
    """

    name: str
    map_type: int
    key_size: int
    value_size: int
    n_entries: int
    flags: int
    fields: tuple[str, ...]


class Map(Descriptor):
    """A map; what it has of entries is for 32-bit keys: array, per-CPU array, XSKMAP.

    Attributes:
        info: what the kernel says of it.
        id: the kernel's number for it.
        value_size: bytes of a value, as declared in C.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.info = MapInfo()
        get_info(fd, self.info, "ask for a map")
        self.id: int = self.info.id
        self.value_size: int = self.info.value_size

    @classmethod
    def make(cls, spec: MapSpec) -> Self:
        """Make a map; others see the first 15 characters of its name.

        Raises:
            BpfError: not permitted, or refused.
        """
        attributes = _MapCreate(
            spec.map_type, spec.key_size, spec.value_size, spec.n_entries, spec.flags,
            map_name=spec.name.encode()[:15],
        )  # fmt: skip
        return cls(call(_MAP_CREATE, attributes, f"make the map {spec.name}"))

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


def n_possible_cpus() -> int:
    """Return how many values an entry of a per-CPU map has.

    /sys/devices/system/cpu/possible holds ranges, such as `0-3,8-11`.
    """
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
        ranges = [part.split("-") for part in file.read().strip().split(",")]
    return sum(int(part[-1]) - int(part[0]) + 1 for part in ranges)
