"""An interface that a pipeline runs on, as the supervisor has it."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from xdpipe.attach import attach
from xdpipe.busy_poll import InterruptsOff, put_back
from xdpipe.drivers import caveat
from xdpipe.errors import XdpipeError
from xdpipe.ledger import Ledger
from xdpipe.link_watch import LinkWatch
from xdpipe.queue_socket import QueueSocket
from xdpipe.rundir import RunDir

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import ExitStack

    from xdpipe.bpf import Map
    from xdpipe.link import Link
    from xdpipe.run_options import RunOptions
    from xdpipe.steering import Steering
    from xdpipe.umem import Geometry
    from xdpipe.worker_handle import WorkerHandle


# linux/if_packet.h
_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _PACKET_MR_PROMISC = 263, 1, 1


class Port:
    """One interface: the program on it, and what the workers' sockets there have in common.

    Args:
        name: the pipeline's name for it; empty where there is one port.
        link: the interface.
        options: how the pipeline runs.

    Attributes:
        link: as it was last looked at.
        run_dir: where others find that a pipeline runs there.
    """

    def __init__(self, name: str, link: Link, options: RunOptions) -> None:
        self.name = name
        self.link = link
        self._options = options
        self.run_dir = RunDir.of(link.index)

    @property
    def label(self) -> str:
        """Its name and the interface's, to be told."""
        return f"{self.name}={self.link.name}" if self.name else self.link.name

    def claim(self, stack: ExitStack) -> None:
        """Make sure that no other pipeline runs there, until the stack is closed.

        Raises:
            XdpipeError: one does.
        """
        claim = self.run_dir.claim()
        if claim is None:
            other = self.run_dir.read()
            who = (
                f"{other.name} runs there (pid {other.supervisor.pid})" if other else "starts there"
            )
            name = self.link.name
            raise XdpipeError(f"{name}: the pipeline {who}; end it with: xdpipe down {name}")
        stack.callback(os.close, claim)
        put_back(self.run_dir.path)  # after one that was killed
        stack.callback(self.run_dir.remove)
        if self._options.busy_poll:
            stack.callback(InterruptsOff(self.link.name, self.run_dir.path).close)

    def attach(
        self,
        steering: Steering,
        geometry: Geometry,
        tell: Callable[[str], None],
        stack: ExitStack,
        *,
        wants_hints: bool,
        passes: bool,
        leaves: bool,
        set_maps: Mapping[str, Map],
    ) -> None:
        """Load the program and attach it until the stack is closed; see xdpipe.attach.

        Raises:
            XdpipeError: it cannot be done.
        """
        self.steering = steering
        self._needs_way_back = passes
        self.attached = attach(
            self.link, steering, self._options, tell, multi_buffer=geometry.multi_buffer,
            wants_hints=wants_hints, leaves=leaves, set_maps=set_maps,
        )  # fmt: skip
        stack.callback(self.attached.close)
        if self.name and not steering.guard:
            stack.callback(_promiscuous(self.link).close)
        self.program = self.attached.program
        self.attached.tell_limits(tell, passes=passes, leaves=leaves)

    def socket(self, queue: int) -> QueueSocket:
        """Return what a worker serves of a queue here, not made yet.

        Raises:
            XdpipeError: packets cannot be given back, and the pipeline needs that.
        """
        injector = self.attached.injector(needed=self._needs_way_back)
        return QueueSocket(self.link, queue, self._options, injector, hints=self.attached.hints)

    def watch(
        self, timeout_s: float, interrupted: Callable[[], bool], geometry: Geometry
    ) -> LinkWatch:
        """Wait until the carrier is there, and watch the interface from then on.

        Some NICs reset their link at attach: igb has it back after 3 s.
        """
        self.link = self.link.with_carrier(timeout_s, interrupted)
        self._watch = LinkWatch(self.link, geometry)
        return self._watch

    def caveat(self, mode: str) -> str:
        """What a user is to know of it in the mode obtained; empty: nothing."""
        return caveat(self.link.name, self.link.driver, mode)

    def changes(self) -> tuple[list[str], bool]:
        """Return what is different on the interface, in a line each, and whether it is gone."""
        lines = self._watch.changes()
        if self._watch.link is not None:
            self.link = self._watch.link
        return lines, self._watch.link is None

    def ledger(self, handles: Sequence[WorkerHandle], number: int) -> Ledger:
        """Sum up what came by here and what went out.

        Args:
            handles: the workers.
            number: of the port.
        """
        # the workers first: what comes in between shows as waiting, not as gone astray
        queues = [
            (handle.page.read_port(number), handle.sockets[number].statistics())
            for handle in handles
        ]
        return Ledger.close_books(self.program.counters(), queues)

    def status(self, ledger: Ledger) -> dict[str, Any]:
        """Return what `--json` shows of it under `ports`."""
        return {
            "name": self.name,
            "dev": self.link.name,
            "driver": self.link.driver,
            "filter": self.steering.filter,
            "attach": self.attached.mode,
            "hints": self.attached.hints,
            **ledger.port_to_dict(),
        }


def _promiscuous(link: Link) -> socket.socket:
    """Have a NIC receive what is addressed to others as well, as a bridge's do.

    For as long as the socket is open that is returned; it receives nothing itself (packet(7),
    PACKET_ADD_MEMBERSHIP). The kernel counts who wants it, and forgets those that die.
    """
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    wanted = struct.pack("=iHH8x", link.index, _PACKET_MR_PROMISC, 0)
    sock.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, wanted)
    return sock
