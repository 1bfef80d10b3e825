"""Ask and set what an interface's driver knows, in the calling thread's namespace.

By ioctl SIOCETHTOOL, with the structures of linux/ethtool.h. The ioctl rather than the netlink
family, since it is there on every kernel and needs no privilege to ask.
"""

import ctypes
import errno
import fcntl
import socket
import struct
from dataclasses import dataclass

from xdpipe.errors import XdpipeError

# linux/sockios.h, linux/if.h
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCETHTOOL = 0x8946
_IFF_UP = 0x1
_IFNAMSIZ = 16

# linux/ethtool.h
_GDRVINFO = 0x03
_GCHANNELS = 0x3C
_STXCSUM = 0x17
_STSO = 0x1F
_SGSO = 0x24
_GFLAGS = 0x25
_SFLAGS = 0x26
_GGRO = 0x2B
_SGRO = 0x2C

# enum ethtool_flags
_FLAG_TXVLAN = 1 << 7
_FLAG_RXVLAN = 1 << 8

# struct ethtool_drvinfo: cmd, driver, version, fw_version, bus_info, erom_version, reserved2, five
# sizes.
_DRVINFO = struct.Struct("=I32s32s32s32s32s12s5I")
# struct ethtool_channels: cmd, max_{rx,tx,other,combined}, {rx,tx,other,combined}_count.
_CHANNELS = struct.Struct("=9I")
_VALUE = struct.Struct("=2I")


@dataclass(frozen=True)
class Channels:
    """How many queues the driver runs at present."""

    n_rx: int
    n_tx: int


def driver(name: str) -> str:
    """Return the name of the interface's driver, or an empty string where it tells none (`lo`)."""
    answer = _ask(name, _DRVINFO.pack(_GDRVINFO, b"", b"", b"", b"", b"", b"", 0, 0, 0, 0, 0))
    if answer is None:
        return ""
    text: bytes = _DRVINFO.unpack(answer)[1]
    return text.split(b"\0", 1)[0].decode()


def channels(name: str) -> Channels | None:
    """Return the queues that the driver runs, or None where the driver does not tell."""
    answer = _ask(name, _CHANNELS.pack(_GCHANNELS, *[0] * 8))
    if answer is None:
        return None
    n_rx, n_tx, _, n_combined = _CHANNELS.unpack(answer)[5:]
    return Channels(n_rx + n_combined, n_tx + n_combined)


def set_offloads(name: str, *, on: bool) -> None:
    """Switch TX checksums, TSO, GSO, GRO and VLAN tags; what the driver lacks is passed over.

    VLAN tags count among them, since one that is offloaded travels beside the packet, where XDP
    sees none.

    Raises:
        XdpipeError: no such interface, or missing privilege (CAP_NET_ADMIN).
    """
    # Segmentation needs checksums: the kernel drops TSO by itself when checksums go off, and
    # refuses TSO while they are off.
    commands = [_STXCSUM, _STSO, _SGSO, _SGRO] if on else [_STSO, _SGSO, _SGRO, _STXCSUM]
    for command in commands:
        _ask(name, _VALUE.pack(command, on))
    answer = _ask(name, _VALUE.pack(_GFLAGS, 0))
    if answer is not None:
        vlan = _FLAG_TXVLAN | _FLAG_RXVLAN
        flags = _VALUE.unpack(answer)[1] & ~vlan
        _ask(name, _VALUE.pack(_SFLAGS, flags | vlan if on else flags))


def get_gro(name: str) -> bool:
    """Return whether GRO is on."""
    answer = _ask(name, _VALUE.pack(_GGRO, 0))
    return answer is not None and bool(_VALUE.unpack(answer)[1])


def set_gro(name: str, *, on: bool) -> None:
    """Switch GRO on or off."""
    _ask(name, _VALUE.pack(_SGRO, on))


def takes_vlan_tags(name: str) -> bool:
    """Return whether the interface takes VLAN tags out of the packets that it receives."""
    answer = _ask(name, _VALUE.pack(_GFLAGS, 0))
    return answer is not None and bool(_VALUE.unpack(answer)[1] & _FLAG_RXVLAN)


def is_up(name: str) -> bool | None:
    """Return whether somebody set an interface up, in a few us; None: there is none of that name.

    Args:
        name: of an interface of the calling thread's network namespace.
    """
    request = bytearray(struct.pack("=16sH14x", _encode(name), 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, _SIOCGIFFLAGS, request)
        except OSError:
            return None
    (flags,) = struct.unpack_from("=H", request, _IFNAMSIZ)
    return bool(flags & _IFF_UP)


def set_up(name: str) -> None:
    """Set an interface up.

    Raises:
        XdpipeError: no such interface, or missing privilege (CAP_NET_ADMIN).
    """
    request = bytearray(struct.pack("=16sH14x", _encode(name), 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, _SIOCGIFFLAGS, request)
            (flags,) = struct.unpack_from("=H", request, _IFNAMSIZ)
            struct.pack_into("=H", request, _IFNAMSIZ, flags | _IFF_UP)
            fcntl.ioctl(sock, _SIOCSIFFLAGS, request)
        except OSError as error:
            raise XdpipeError(f"set {name} up: {error.strerror}") from error


def _ask(name: str, command: bytes) -> bytes | None:
    """Return the answer to one command, or None where the driver has no such thing."""
    # struct ifreq holds a pointer to the command's structure, which the kernel fills in place.
    buffer = ctypes.create_string_buffer(command, len(command))
    request = struct.pack("16sP", _encode(name), ctypes.addressof(buffer)).ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, _SIOCETHTOOL, request)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                return None
            raise XdpipeError(f"ethtool {name}: {error.strerror}") from error
    return buffer.raw


def _encode(name: str) -> bytes:
    encoded = name.encode()
    if len(encoded) >= _IFNAMSIZ:
        raise XdpipeError(f"{name}: no such interface; a name has at most {_IFNAMSIZ - 1} bytes")
    return encoded
