"""Send distinct packets out of a link as fast as one core can, by the kernel's live frames.

Run inside a private network namespace:
`python generator.py DEV SECONDS [--pps N] [--size N] [--core N]`.
Prints `{"sent": …, "seconds": …, "waited": …}`, waited being the seconds for which
somebody else had its core. What it sends: UDP to 10.9.0.1 port 9, 4096 flows.

An AF_XDP receiver in copy mode takes more than AF_XDP TX in copy mode can send on this side, so a
benchmark of receivers needs this.
"""

import argparse
import json
import math
import os
import struct
import time
from contextlib import ExitStack
from pathlib import Path

from harness import waited

from xdpipe.bpf_cache import compiled
from xdpipe.bpf_idle import attach_idle
from xdpipe.bpf_link import XdpLink
from xdpipe.bpf_module import Module
from xdpipe.bpf_program import PASS, TEST_XDP_LIVE_FRAMES, Program
from xdpipe.link import Link
from xdpipe.resources import program_source

N_FLOWS = 4096
BATCH = 64  # frames that the kernel hands on at once, as a NIC's NAPI poll would
PER_CALL = 256  # a veth's ring has room for 256


def template(size: int) -> bytes:
    """Return an Ethernet frame of `size` bytes with an IPv4 header whose checksum is right."""
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size - 14, 0, 0, 64, 17, 0,
                     bytes([10, 2, 0, 0]), bytes([10, 9, 0, 1]))  # fmt: skip
    total = sum(struct.unpack(">10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    ip = ip[:10] + struct.pack(">H", checksum) + ip[12:]
    udp = struct.pack(">HHHH", 1024, 9, size - 34, 0)
    ethernet = bytes.fromhex("020000000001 020000000002 0800".replace(" ", ""))
    return (ethernet + ip + udp).ljust(size, b"\0")


class Generator:
    """What sends out of a link of the calling thread's private namespace; a context manager.

    A NIC's driver sends what is redirected to it only while it has a program itself
    (ndo_xdp_xmit of igb and virtio_net), so it gets one that passes everything; a veth and a tap
    need none.
    """

    def __init__(self, dev: str, size: int = 60) -> None:
        link, loopback = Link.find(dev), Link.find("lo")
        path = Path(program_source("generate.c"))
        head = f"#define XP_OUT_IFINDEX {link.index}\n#define XP_N_FLOWS {N_FLOWS}\n"
        self._packet, self._ingress = template(size), loopback.index
        self._open = ExitStack()
        with Module(compiled(head + path.read_text(), path.parent)) as module:
            self._program = self._open.enter_context(module.load("generate"))
        attach_idle(self._program, self._open)
        if link.driver not in ("veth", "tun"):
            nothing = self._open.enter_context(Program.load(PASS, "pass"))
            self._open.enter_context(XdpLink(nothing, link.index, dev, "native"))

    def generate(
        self, seconds: float, pps: float = math.inf, pause_s: float = 0.0
    ) -> dict[str, float]:
        """Send for so many seconds, at most so many packets/s; return how many, and the time.

        Args:
            seconds: how long.
            pps: packets/s.
            pause_s: how long it sleeps when it is ahead. 0: not at all, since waking up may take
                longer than a call; for who has a core to itself.
        """
        sent, waited_before = 0, waited(os.getpid())
        start = now = time.perf_counter()
        while now - start < seconds:
            self._program.test_run(
                self._packet, ingress_ifindex=self._ingress, repeat=PER_CALL,
                flags=TEST_XDP_LIVE_FRAMES, batch_size=BATCH,
            )  # fmt: skip
            sent += PER_CALL
            now = time.perf_counter()
            while now - start < sent / pps:
                if pause_s:
                    time.sleep(pause_s)
                now = time.perf_counter()
        waiting = waited(os.getpid()) - waited_before
        return {"sent": sent, "seconds": now - start, "waited": waiting}

    def __enter__(self) -> "Generator":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dev")
    parser.add_argument("seconds", type=float)
    parser.add_argument(
        "--pps", type=float, default=math.inf, help="as fast as it can if not given"
    )
    parser.add_argument("--size", type=int, default=60, help="bytes without the FCS")
    parser.add_argument("--core", type=int, default=0)
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    with Generator(options.dev, options.size) as generator:
        print(json.dumps(generator.generate(options.seconds, options.pps)))


if __name__ == "__main__":
    main()
