"""A packet socket, which every link takes; core/traffic/engine_socket.c."""

from __future__ import annotations

import mmap
import socket
from typing import TYPE_CHECKING

from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.traffic.engine import MEMORY, Engine, Lane

if TYPE_CHECKING:
    from xdpipe.link import Link

# linux/socket.h, linux/if_packet.h, asm-generic/socket.h
_SOL_PACKET = 263
_PACKET_QDISC_BYPASS = 20
_SO_SNDBUFFORCE = 32
_SEND_BUFFER = 4 << 20


class SocketEngine(Engine):
    """A packet socket (man 7 packet), past the link's queueing discipline.

    Raises:
        XdpipeError: not permitted (CAP_NET_RAW), or the link is gone.
    """

    name = "socket"

    def __init__(self, link: Link) -> None:
        super().__init__()
        self.mode = "packet socket"
        try:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._open.callback(sock.close)
            sock.bind((link.name, 0))
            sock.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
            sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
        except OSError as error:
            self.close()
            raise XdpipeError(
                f"packet socket on {link.name}: {error.strerror}; it takes CAP_NET_RAW and "
                "CAP_NET_ADMIN"
            ) from error
        memory = mmap.mmap(-1, MEMORY)
        lane = ffi.new("struct xp_socket_lane *", {"fd": sock.fileno()})
        lib.xp_socket_lane_init(lane)
        lane.lane.memory = ffi.from_buffer("uint8_t[]", memory)
        self.lanes.append(Lane(ffi.addressof(lane, "lane"), MEMORY, (lane, memory, sock)))
