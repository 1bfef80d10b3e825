"""The way back: packets that a worker took and the kernel gets after all.

A worker gives packets back by itself, by running an XDP program whose descriptor it was handed
(bpf/inject.c, core/pass.c). Here is what takes privilege: the program with its map, made by the
supervisor for each queue, and attached where nothing passes (bpf_idle.py).
"""

from __future__ import annotations

import mmap
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.resources import program_source

if TYPE_CHECKING:
    from xdpipe.link import Link


LONGEST = 3400
"""Bytes of a packet that can be given back, about: a page less what the kernel keeps there."""


class WayBack:
    """A program and its map, as a worker has them: by descriptors, which it owns.

    Args:
        program_fd: of the program.
        map_fd: of its map.
        ifindex: number of the interface that packets seem to come by.

    Attributes:
        fds: the two descriptors.
        ifindex: that number.
        c: struct xp_pass.
    """

    def __init__(self, program_fd: int, map_fd: int, ifindex: int) -> None:
        self.fds: tuple[int, ...] = (program_fd, map_fd)
        self.ifindex = ifindex
        self._map = mmap.mmap(map_fd, -(-lib.xp_inject_bytes() // mmap.PAGESIZE) * mmap.PAGESIZE)
        self.c: Any = ffi.new(
            "struct xp_pass *",
            {
                "prog_fd": program_fd, "ifindex": ifindex,
                "inject": ffi.cast("void *", ffi.from_buffer(self._map)),
            },
        )  # fmt: skip

    def probe(self) -> None:
        """Check that packets can be given back.

        Raises:
            XdpipeError: the kernel does not let us.
        """
        result = lib.xp_pass_probe(self.c)
        if result < 0:
            raise XdpipeError(
                f"give packets back to the kernel: {os.strerror(-result)}; verdict PASS takes "
                "Linux 5.19"
            )

    def close(self) -> None:
        """Close the descriptors. The mapping goes when nothing refers to it any more."""
        fds, self.fds = self.fds, ()
        for fd in fds:
            os.close(fd)


class Injector:
    """The program and map of one queue, and what they hang on; all owned.

    Args:
        link: the interface that packets seem to come by.

    Attributes:
        way_back: to be handed to the queue's worker.

    Raises:
        XdpipeError: the kernel has no live frames, or privilege is missing.
    """

    def __init__(self, link: Link) -> None:
        from xdpipe.bpf_cache import compiled
        from xdpipe.bpf_idle import attach_idle
        from xdpipe.bpf_module import Module

        path = Path(program_source("inject.c"))
        with ExitStack() as stack:
            module = stack.enter_context(Module(compiled(path.read_text(), path.parent)))
            with module.map("only") as only:
                only.update(0, link.index.to_bytes(4, sys.byteorder))
            program = stack.enter_context(module.load("inject_packet"))
            shared = stack.enter_context(module.map("inject"))
            attach_idle(program, stack)
            self.way_back = WayBack(os.dup(program.fd), os.dup(shared.fd), link.index)
            stack.callback(self.way_back.close)
            self.way_back.probe()
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Let go of everything. May be called twice."""
        self._stack.close()
