"""The steering program, loaded once a module."""

import socket
from collections.abc import Iterator

import pytest
from steered import GUARD, Steered, unbound_xsk

from xdpipe.steering import Steering, SteerProgram


@pytest.fixture(scope="session")
def xsk() -> Iterator[socket.socket]:
    """Return an AF_XDP socket; an XSKMAP takes it though it is bound to nothing."""
    with unbound_xsk() as xsk:
        yield xsk


@pytest.fixture(scope="module")
def guarded(xsk: socket.socket) -> Iterator[Steered]:
    """Return a program that takes everything but what the guard keeps."""
    with SteerProgram(Steering(""), GUARD, 1) as program:
        program.take(0, xsk.fileno())
        yield Steered(program)


@pytest.fixture(scope="module")
def unguarded(xsk: socket.socket) -> Iterator[Steered]:
    """Return a program that takes DNS queries, by the filter alone."""
    with SteerProgram(Steering("udp dst port 53"), None, 1) as program:
        program.take(0, xsk.fileno())
        yield Steered(program)
