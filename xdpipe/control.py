"""Messages between supervisor and worker, and between a command and a supervisor."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST = 1 << 20
"""Bytes of the longest message."""
_MAX_FDS = 253
"""What the kernel lets one message carry (SCM_MAX_FD)."""


class ControlClosed(XdpipeError):
    """The other side is gone."""


class Control:
    """One end of a connection that carries JSON objects and, with them, descriptors.

    SOCK_SEQPACKET keeps messages whole. Owns its socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, LONGEST)

    @classmethod
    def pair(cls) -> tuple[Control, socket.socket]:
        """Return our end, and the socket to hand to a child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    def fileno(self) -> int:
        """Return the descriptor, to wait on it."""
        return self.sock.fileno()

    def send(self, kind: str, body: Any = None, fds: tuple[int, ...] = ()) -> None:
        """Send one message; what is too long is replaced by an error that says so.

        Raises:
            ControlClosed: the other side is gone.
        """
        data = json.dumps([kind, body], default=str).encode()
        try:
            try:
                socket.send_fds(self.sock, [data], fds)
            except OSError as error:
                if not isinstance(error, ConnectionError) and len(data) > 4096:
                    text = f"{kind}: {len(data)} bytes are too long for a message"
                    self.sock.send(json.dumps(["error", text]).encode())
                else:
                    raise
        except OSError as error:
            raise ControlClosed(f"control connection: {error}") from error

    def receive(self, timeout_s: float | None = None) -> tuple[str, Any, list[int]]:
        """Wait for one message: its kind, its body, and the descriptors, owned by the caller.

        Raises:
            ControlClosed: the other side is gone.
            TimeoutError: nothing came within timeout_s.
        """
        self.sock.settimeout(timeout_s)
        try:
            data, fds, _, _ = self._receive()
        except ConnectionError as error:
            raise ControlClosed(f"control connection: {error}") from error
        if not data:
            raise ControlClosed("control connection: closed by the other side")
        try:
            kind, body = json.loads(data)
        except (ValueError, TypeError, RecursionError) as error:
            for fd in fds:
                os.close(fd)
            raise ControlClosed(f"control connection: no message: {error}") from error
        return str(kind), body, list(fds)

    def _receive(self) -> tuple[bytes, list[int], int, Any]:
        """Receive what there is, also if the other side has gone without having read all of ours.

        The kernel says so once, ECONNRESET, before it gives what the other side had sent
        (sock_error in __skb_try_recv_datagram, net/core/datagram.c).
        """
        try:
            return socket.recv_fds(self.sock, LONGEST, _MAX_FDS)
        except ConnectionResetError:
            return socket.recv_fds(self.sock, LONGEST, _MAX_FDS)

    def receive_plain(self, timeout_s: float | None = None) -> tuple[str, Any]:
        """Wait for one message from somebody who has no descriptors to give; close any.

        Raises:
            ControlClosed: the other side is gone, or sends what is no message.
            TimeoutError: nothing came within timeout_s.
        """
        kind, body, fds = self.receive(timeout_s)
        for fd in fds:
            os.close(fd)
        return kind, body

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()


def answer_for(control: Control, work: Callable[[], None]) -> int:
    """Do the work of a child process, and tell the other side what is wrong.

    Returns:
        The exit code.
    """
    try:
        work()
    except ControlClosed:
        return 1
    except XdpipeError as error:
        with suppress(ControlClosed):
            control.send("error", str(error))
        return 1
    return 0
