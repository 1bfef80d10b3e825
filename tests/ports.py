"""Sockets over one UMEM, on several queues or interfaces, worked on by hand."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from hosts import CLIENT4, HOST4, Bench, until
from xdpipe.core._core import ffi, lib
from xdpipe.link import Link
from xdpipe.steering import Steering, SteerProgram
from xdpipe.umem import Umem
from xdpipe.xsk import Xsk

AF_XDP = 44  # linux/socket.h; Python's socket has no name for it
PORT = 9
N_EACH = 64
"""Frames that each socket begins with."""


class Port:
    """A socket on a queue of a host's h0, over a UMEM that may be others' as well."""

    def __init__(self, bench: Bench, queue: int, umem: Umem, shares_with: Xsk | None) -> None:
        self.bench, self.queue = bench, queue
        with bench.host:
            self.link = Link.find("h0")
            self.xsk = Xsk.open(umem, shares_with)

    def begin(self, program: SteerProgram, addresses: list[int], mode: str) -> str:
        """Give it frames, bind it, and have packets redirected to it; return the mode obtained."""
        given = ffi.new("uint64_t[]", addresses)
        fill = ffi.addressof(self.xsk.c, "fill")
        assert lib.xp_fill_submit(fill, given, len(addresses)) == len(addresses)
        with self.bench.host:
            obtained = self.xsk.bind(self.link, self.queue, mode)
        program.take(self.queue, self.xsk.fd)
        return obtained

    def receive(self) -> list[tuple[int, int]]:
        """Take what is on the rx ring: address and length of each packet."""
        addresses, lens = ffi.new("uint64_t[]", N_EACH), ffi.new("uint32_t[]", N_EACH)
        n = lib.xp_rx_consume(ffi.addressof(self.xsk.c, "rx"), addresses, lens, N_EACH)
        return [(addresses[i], lens[i]) for i in range(n)]

    def send(self, packets: list[tuple[int, int]]) -> None:
        addresses = ffi.new("uint64_t[]", [address for address, _ in packets])
        lens = ffi.new("uint32_t[]", [length for _, length in packets])
        tx = ffi.addressof(self.xsk.c, "tx")
        assert lib.xp_tx_submit(tx, addresses, lens, len(packets)) == len(packets)
        with socket.socket(AF_XDP, socket.SOCK_RAW, 0, os.dup(self.xsk.fd)) as sock:
            sock.send(b"", socket.MSG_DONTWAIT)

    def completed(self) -> list[int]:
        addresses = ffi.new("uint64_t[]", N_EACH)
        n = lib.xp_completion_consume(ffi.addressof(self.xsk.c, "completion"), addresses, N_EACH)
        return [addresses[i] for i in range(n)]


@contextmanager
def steered(bench: Bench) -> Iterator[SteerProgram]:
    with bench.host:
        link = Link.find("h0")
        with SteerProgram(Steering(f"udp dst port {PORT}"), None, link.n_rx_queues) as program:
            program.attach(link.index, link.name)
            yield program


@contextmanager
def shared(umem: Umem, where: list[tuple[Bench, int]], mode: str = "copy") -> Iterator[list[Port]]:
    """Have a socket on each of these queues; the first N_EACH frames are the first one's."""
    with ExitStack() as stack:
        programs = {
            id(bench): stack.enter_context(steered(bench))
            for bench in {id(bench): bench for bench, _ in where}.values()
        }
        ports: list[Port] = []
        modes = set()
        for number, (bench, queue) in enumerate(where):
            port = Port(bench, queue, umem, ports[0].xsk if ports else None)
            stack.callback(port.xsk.close)
            ports.append(port)
            frames = range(number * N_EACH, (number + 1) * N_EACH)
            addresses = [lib.xp_frame_addr(umem.c, frame) for frame in frames]
            modes.add(port.begin(programs[id(bench)], addresses, mode))
        assert modes == {mode}
        for port in ports:  # which may go at attach and bind, and be back seconds later
            with port.bench.host:
                port.link.with_carrier(60, lambda: False)
        yield ports


def send(bench: Bench, n: int) -> None:
    """Send datagrams from the client, each from a port of its own, so that all queues get some."""
    for _ in range(n):
        with bench.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
            sock.bind((CLIENT4, 0))
            sock.sendto(b"%032d" % n, (HOST4, PORT))


def receive_all(ports: list[Port], n: int) -> list[list[tuple[int, int]]]:
    """Return what comes by each port as soon as that is n packets in all."""
    got: list[list[tuple[int, int]]] = [[] for _ in ports]

    def all_there() -> bool:
        for packets, port in zip(got, ports, strict=True):
            packets += port.receive()
        return sum(map(len, got)) >= n

    until(all_there, f"{n} packets")
    return got


def check_own_frames(umem: Umem, got: list[list[tuple[int, int]]], n: int) -> None:
    """Each of n packets from `send` lies whole in a frame of the port that it came by."""
    assert sum(map(len, got)) == n
    for number, packets in enumerate(got):
        assert packets, f"nothing came by port {number}"
        for address, length in packets:
            assert address // umem.geometry.frame_size // N_EACH == number
            assert umem.memory[address : address + length].endswith(b"%032d" % n)


def check_forwarding(umem: Umem, ports: list[Port], source: Bench, target: Bench) -> None:
    """What came by any but the last port goes out of the last, in its frame, and comes back."""
    with target.client.call(
        lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    ) as heard:
        heard.bind(("c0", 0x0800))
        heard.settimeout(20)
        send(source, 20)
        packets = [packet for got in receive_all(ports[:-1], 20) for packet in got]
        sent = sorted(bytes(umem.memory[a : a + n]) for a, n in packets)
        ports[-1].send(packets)
        assert sorted(heard.recv(2048) for _ in range(20)) == sent
    done: list[int] = []

    def all_back() -> bool:
        done.extend(ports[-1].completed())
        return len(done) == 20

    until(all_back, "their frames come back")
    assert sorted(done) == sorted(address for address, _ in packets)
