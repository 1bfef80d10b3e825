"""The demonstration: a name server under abuse, and a pipeline that guards it.

    clients (a namespace)                                host (a namespace)
      dig, an honest one            wire0 ===== guard0     XDP program, 2 queues
      a flood, replayed                                    a worker per queue: examples/dns_guard.py
                                                           dnsmasq, reached over TCP

Everything lives in private network namespaces and in processes that die with this one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from xdpipe import view
from xdpipe.errors import XdpipeError
from xdpipe.libpcap import DLT_EN10MB
from xdpipe.netns import Namespace, VethEnd, veth_pair
from xdpipe.resources import example

if TYPE_CHECKING:
    from rich.console import Console

SERVER = "10.53.0.1"
CLIENTS = "10.53.0.0/16"
NAME, ANSWER = "www.example.com", "192.0.2.80"
FLOOD_PPS = 50_000
HONEST_PER_S = 5


class HonestClient:
    """Runs dig again and again, as a person's resolver would, and counts right answers."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, name="honest-client")
        self.asked = 0
        self.answered = 0

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def _ask_on(self) -> None:
        while not self._stop.wait(1 / HONEST_PER_S):
            self.asked += 1
            self.answered += self.ask() == ANSWER

    def ask(self) -> str:
        """Ask once and return what dig answers."""
        done = self._namespace.run(
            ["dig", "+short", "+tries=3", "+time=1", f"@{SERVER}", NAME, "A"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False,
        )  # fmt: skip
        # dig tells on stdout, behind ;, of a try that was lost before the one that was answered
        return "\n".join(line for line in done.stdout.splitlines() if not line.startswith(";"))

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()


def flood() -> tuple[int, int]:
    """Make a capture of abuse, crafted by scapy, in memory.

    Returns:
        A descriptor of it, and how many packets it has.

    A third each: ANY queries and plain queries from one client each that floods, and responses
    nobody asked for from many.
    """
    from scapy.layers.dns import DNS, DNSQR, DNSRR
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether
    from scapy.utils import PcapWriter

    packets = []
    for i in range(400):
        ether = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
        reflector = f"10.53.{2 + i % 200}.{1 + i % 250}"
        query = UDP(sport=1024 + i, dport=53)
        question = DNSQR(qname=f"host{i % 7}.example.com", qtype="A")
        answer = DNSRR(rrname="example.com", type="TXT", rdata="x" * 200)
        packets += [
            ether / IP(src="10.53.1.66", dst=SERVER) / query
            / DNS(qd=DNSQR(qname="example.com", qtype="ALL")),
            ether / IP(src="10.53.1.77", dst=SERVER) / query / DNS(qd=question),
            ether / IP(src=reflector, dst=SERVER) / UDP(sport=53, dport=53)
            / DNS(qr=1, qd=DNSQR(qname="example.com", qtype="TXT"), an=answer),
        ]  # fmt: skip
    fd = os.memfd_create("flood.pcap")
    with PcapWriter(os.fdopen(os.dup(fd), "wb"), linktype=DLT_EN10MB) as writer:
        writer.write(packets)
    return fd, len(packets)


def _need(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise XdpipeError(
            f"the demonstration needs {' and '.join(missing)}; "
            "install them with: apt-get install bind9-dnsutils dnsmasq-base util-linux"
        )


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_demo(duration: float, console: Console, *, show: bool) -> dict[str, Any]:
    """Run the demonstration and return the pipeline's final status, with `demo` beside.

    Args:
        duration: seconds of traffic.
        console: where to draw.
        show: draw the live table and the final report.

    Raises:
        XdpipeError: not root, or a program is missing.
    """
    from xdpipe.foreground import supervise
    from xdpipe.run_options import RunOptions

    _need("dig", "dnsmasq", "setpriv")
    with ExitStack() as stack:
        host = Namespace()
        stack.callback(host.close)
        clients = Namespace()
        stack.callback(clients.close)
        veth_pair(
            VethEnd("guard0", host, [f"{SERVER}/16"], mac="02:00:00:00:00:01"),
            # veth leaves checksums to a NIC that is not there, unless told to fill them in
            VethEnd("wire0", clients, ["10.53.0.2/16"], mac="02:00:00:00:00:02", offloads=False),
        )
        stack.enter_context(host)
        server = host.popen(
            [
                "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root",
                "--group=root",
                "--pid-file=", "--no-resolv", "--no-hosts", "--bind-interfaces",
                f"--listen-address={SERVER}", f"--host-record={NAME},{ANSWER}",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        stack.callback(_end, server)
        capture, n_flood = flood()
        stack.callback(os.close, capture)
        loops = max(1, round(duration * FLOOD_PPS / n_flood))
        honest = HonestClient(clients)
        stack.callback(honest.stop)

        def begin() -> None:
            honest.start()
            replay = clients.popen(
                [
                    sys.executable, "-P", "-m", "xdpipe", "replay", f"/proc/self/fd/{capture}",
                    "--dev", "wire0", "--queues", "0-1", "--pps", str(FLOOD_PPS),
                    "--loop", str(loops),
                ],
                pass_fds=[capture], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(_end, replay)

        if show:
            console.print(
                "Two private network namespaces, joined by a veth pair with 2 queues. A name "
                f"server listens on {SERVER}, and examples/dns_guard.py guards it: "
                f"{FLOOD_PPS:,} packets/s of abuse come in, while one honest client asks "
                f"{HONEST_PER_S} times a second, for {duration:.0f} s."
            )
        options = RunOptions(file=example("dns_guard.py"), devs={"": "guard0"}, queues=(0, 1))
        final: dict[str, Any] = supervise(
            options, duration, console if show else None, begin=begin, end=honest.stop
        )
        final["demo"] = {"honest_asked": honest.asked, "honest_answered": honest.answered}
    if show:
        console.print(view.final(final))
        console.print(
            f"\nThe honest client asked {honest.asked} times and got {honest.answered} right "
            "answers: its queries came back truncated, so it asked again over TCP, which the guard "
            "leaves to the kernel and its name server."
        )
    return final
