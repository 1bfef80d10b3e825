"""Receiving on one queue of a veth: xdpipe's chains beside DPDK's testpmd, same generator.

The generator has core 0 and does the kernel's work as well (the veth's NAPI runs where packets are
sent): XDP program, redirect, copy to the UMEM. The receiver has core 1. So a receiver that keeps up
shows in packets/s only by how much it holds up the kernel's side; what it costs itself is in the
rows of ns per packet. The XDP programs differ: xdpipe's guards, filters and counts.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness
from testpmd import Testpmd, hugepages

from xdpipe.netns import Namespace, VethEnd, veth_pair
from xdpipe.rundir import RunDir

HERE = Path(__file__).resolve().parent
CHAINS = {"empty": "≥ 1.0", "headers": "≥ 0.97", "array": "≥ 0.85"}


class Wire:
    """Two namespaces and a veth pair with one queue, made anew for each measurement."""

    def __init__(self) -> None:
        self.host, self.client = Namespace(), Namespace()
        veth_pair(
            VethEnd("h0", self.host, mac="02:00:00:00:00:01"),
            VethEnd("c0", self.client, mac="02:00:00:00:00:02"),
            n_queues=1,
        )

    def generate(self, seconds: float) -> dict[str, float]:
        done = self.client.run(
            [sys.executable, str(HERE / "generator.py"), "c0", str(seconds), "--core", "0"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        sent: dict[str, float] = json.loads(done.stdout)
        return sent

    def close(self) -> None:
        self.host.close()
        self.client.close()


def measure_testpmd(seconds: float) -> dict[str, float]:
    wire = Wire()
    with Testpmd(wire.host, "h0") as testpmd:
        before = testpmd.received()
        sent = wire.generate(seconds)
        received = testpmd.received() - before
    wire.close()
    return {"pps": received / sent["seconds"], "lost": 1 - received / sent["sent"]}


def measure_xdpipe(chain: str, seconds: float) -> dict[str, float]:
    wire = Wire()
    file = HERE / "pipelines" / f"{chain}.py"
    popen = wire.host.popen(
        [sys.executable, "-m", "xdpipe.cli", "run", str(file), "--dev", "h0", "--cores", "1",
         "--json"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with wire.host:
        run_dir = RunDir.of(ifindex=_ifindex("h0"))
    while run_dir.ask("status") is None:
        if popen.poll() is not None:
            harness.fail("xdpipe run ended; see above")
    sent = wire.generate(seconds)
    popen.send_signal(signal.SIGINT)
    final: dict[str, Any] = json.loads(popen.communicate(timeout=30)[0])
    wire.close()
    [worker] = final["workers"]
    if final["ledger"]["residual"] or (worker["mode"], worker["attach"]) != ("copy", "native"):
        harness.fail(f"{chain}: residual {final['ledger']['residual']}, {worker['mode']}")
    n = worker["packets"]
    return {
        "pps": n / sent["seconds"],
        "lost": 1 - n / sent["sent"],
        "ns": worker["busy_ns"] / n,
        "blocks": worker["py_blocks"] / n * 1e6,
        "batch": n / worker["batches"],
        "rss": worker["rss_bytes"] / 1e6,
    }


def _ifindex(name: str) -> int:
    from xdpipe.link import Link

    return Link.find(name).index


def main() -> None:
    given = harness.options(__doc__.splitlines()[0])
    contestants: dict[str, harness.Measure] = {"testpmd": lambda: measure_testpmd(given.seconds)}
    for chain in CHAINS:
        contestants[chain] = lambda chain=chain: measure_xdpipe(chain, given.seconds)
    with hugepages():
        results = harness.alternate(contestants, given.rounds, harness.Console(stderr=True))
    peer = "testpmd rxonly"
    theirs = harness.series(results["testpmd"], "pps")
    rows = [
        harness.compare(
            f"rx_{chain}", "packets/s", harness.series(results[chain], "pps"), peer, theirs, aim
        )
        for chain, aim in CHAINS.items()
    ]
    rows += [
        harness.alone(f"user_ns_{chain}", "ns/packet", harness.series(results[chain], "ns"))
        for chain in CHAINS
    ]
    rows += [
        harness.alone(f"lost_{name}", "%", [100 * x for x in harness.series(results[name], "lost")])
        for name in contestants
    ]
    rows.append(
        harness.alone("py_blocks_headers", "blocks/million packets",
                      harness.series(results["headers"], "blocks"), "≤ 0")
    )  # fmt: skip
    rows.append(harness.alone("rss", "MB", harness.series(results["array"], "rss"), "< 150"))
    facts = {"driver": "veth", "mode": "copy, native XDP", "packet": "60 bytes", "queues": "1"}
    harness.report("rx", rows, facts, given)


if __name__ == "__main__":
    main()
