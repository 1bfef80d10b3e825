"""Attach a program where nothing passes.

A program that is attached nowhere costs 24 ms of RCU waiting at each run in live frames mode, since
each then changes the kernel's XDP dispatcher (bpf_prog_test_run_xdp in net/bpf/test_run.c).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdpipe.bpf_program import Program


def attach_idle(program: Program, stack: ExitStack) -> None:
    """Attach a program to `lo` of a namespace of its own, until the stack is closed."""
    from xdpipe.bpf_link import XdpLink
    from xdpipe.link import Link
    from xdpipe.netns import Namespace

    namespace = Namespace()
    stack.callback(namespace.close)
    with namespace:
        stack.enter_context(XdpLink(program, Link.find("lo").index, "lo", "generic"))
