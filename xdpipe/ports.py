"""All the interfaces that a pipeline runs on, as the supervisor has them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xdpipe.errors import XdpipeError
from xdpipe.ledger import Ledger
from xdpipe.link import Link
from xdpipe.port import Port
from xdpipe.process import Process
from xdpipe.run_options import RunOptions, choose_cores
from xdpipe.rundir import State, network_namespace
from xdpipe.umem import Geometry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import ExitStack

    from xdpipe.worker_handle import WorkerHandle


class Ports:
    """The ports: as the options name them, and once `order` was called, in the pipeline's order.

    Args:
        options: how the pipeline runs.

    Raises:
        XdpipeError: there is no such interface, or it is down.
    """

    def __init__(self, options: RunOptions) -> None:
        self._ports: list[Port] = []
        for name, dev in options.devs.items():
            link = Link.find(dev)
            link.require_up()
            self._ports.append(Port(name, link, options))

    def __iter__(self) -> Iterator[Port]:
        return iter(self._ports)

    @property
    def first(self) -> Port:
        """The port whose directory has the pipeline's control socket."""
        return self._ports[0]

    def complete(self, options: RunOptions) -> RunOptions:
        """Choose queues and cores where none are named, and check those that are.

        Raises:
            XdpipeError: an interface has them not, or there are too few.
        """
        links = [port.link for port in self]
        queues = options.queues or tuple(links[0].queues)
        for link in links:
            if not options.queues and link.queues != links[0].queues:
                raise XdpipeError(
                    f"{links[0].name} has {links[0].n_rx_queues} queues and {link.name} "
                    f"{link.n_rx_queues}; give them as many (ethtool -L DEV combined N), or say "
                    "which are to be served: --queues"
                )
            link.check_queues(queues)
        allowed = sorted(os.sched_getaffinity(0))
        cores = options.cores or choose_cores(len(queues), allowed)
        if len(cores) != len(queues):
            raise XdpipeError(
                f"{len(queues)} queues and {len(cores)} cores: name a core for each queue"
            )
        return replace(options, queues=queues, cores=cores)

    def geometry(self, options: RunOptions) -> Geometry:
        """Return frames that hold what comes by any port, and as many for each as is asked for.

        Raises:
            XdpipeError: see Geometry.for_link.
        """
        found = [
            Geometry.for_link(
                port.link, options.frame_size, huge_pages=options.huge_pages, multi_buffer=True
            )
            for port in self
        ]
        largest = max(found, key=lambda each: (each.multi_buffer, each.frame_size))
        return replace(largest, n_frames=options.n_frames).for_ports(len(found))

    def claim(self, stack: ExitStack) -> None:
        """Make sure that no other pipeline runs on any of them, until the stack is closed.

        Raises:
            XdpipeError: one does.
        """
        for port in self:
            port.claim(stack)

    def write_state(self, file: str, handles: Sequence[WorkerHandle]) -> None:
        """Write down for others what runs here."""
        path = Path(file)
        for port in self:
            port.run_dir.write(
                State(
                    name=path.stem,
                    file=str(path.resolve()),
                    dev=port.link.name,
                    ifindex=port.link.index,
                    devs=tuple(each.link.name for each in self),
                    netns=network_namespace(),
                    supervisor=Process.of(os.getpid()),
                    workers=tuple(h.process for h in handles if h.state != "new"),
                )
            )

    def order(self, names: Sequence[str], file: str) -> None:
        """Put them in the pipeline's order.

        Raises:
            XdpipeError: it has other ports than there are interfaces for.
        """
        given = {port.name: port for port in self}
        if sorted(names) != sorted(given):
            options = " ".join(f"--dev {name}=DEV" if name else "--dev DEV" for name in names)
            raise XdpipeError(f"{file}: say of each of its ports which interface it is: {options}")
        self._ports = [given[name] for name in names]

    def bind_mode(self, wanted: str) -> str:
        """Return what to ask of bind: the first port's socket decides for those of the others.

        Raises:
            XdpipeError: see Attached.bind_mode.
        """
        from xdpipe.netdev import has_zero_copy

        modes = [port.attached.bind_mode(wanted) for port in self]
        if "copy" in modes:
            return "copy"
        if modes[0] == "auto" and len(modes) > 1:
            return "zerocopy" if all(has_zero_copy(port.link) for port in self) else "copy"
        return modes[0]

    def redirect(self, handle: WorkerHandle) -> None:
        """Have the packets of its queue, of each port, go to a worker's sockets."""
        for port, socket in zip(self, handle.sockets, strict=True):
            port.program.take(handle.queue, socket.xsk.fd)

    def release(self, handle: WorkerHandle) -> None:
        """Leave the packets of its queue, of each port, to the kernel."""
        for port in self:
            port.program.release(handle.queue)

    def ledgers(self, handles: Sequence[WorkerHandle]) -> list[Ledger]:
        """Sum up what came by each port and what went out."""
        return [port.ledger(handles, number) for number, port in enumerate(self)]

    def detach(self) -> None:
        """Detach the programs: no packet meets them any more."""
        for port in self:
            port.program.detach()
