"""Receiving on one queue of a veth: xdpipe's chains beside DPDK's testpmd, same generator.

The generator has core 0 and does the kernel's work as well (the veth's NAPI runs where packets are
sent): XDP program, redirect, copy to the UMEM. The receiver has core 1. So a receiver that keeps up
shows in packets/s only by how much it holds up the kernel's side; what it costs itself is in the
rows of ns per packet. The XDP programs differ: xdpipe's guards, filters and counts.

Of ns per packet there is no ratio: testpmd counts its polls that found packets, whole; xdpipe's
`busy_ns` begins after the receive that ended a wait, so leaves that receive out.
"""

import socket
import time

import harness
from generator import template
from running import RunningPipeline
from testpmd import Testpmd, hugepages
from wire import Wire

CHAINS = {"empty": "≥ 1.0", "headers": "≥ 0.97", "array": "≥ 0.85"}


def measure_testpmd(seconds: float) -> dict[str, float]:
    wire = Wire()
    with Testpmd(wire.host) as testpmd:
        before, waited_before = testpmd.received(), harness.waited(testpmd.pid)
        sent = wire.generate(seconds)
        waited = harness.waited(testpmd.pid) - waited_before
        received, user_ns = testpmd.received() - before, testpmd.user_ns()
    wire.close()
    return {
        "pps": received / sent["seconds"],
        "lost": 1 - received / sent["sent"],
        "ns": user_ns,
        "waited": max(waited, sent["waited"]) / sent["seconds"],
    }


def measure_xdpipe(chain: str, seconds: float) -> dict[str, float]:
    wire = Wire()
    running = RunningPipeline(wire.host, chain)
    pid = running.wait_ready()["workers"][0]["pid"]
    waited_before = harness.waited(pid)
    sent = wire.generate(seconds)
    waited = harness.waited(pid) - waited_before
    final = running.end()
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
        "waited": max(waited, sent["waited"]) / sent["seconds"],
    }


def measure_start() -> dict[str, float]:
    """Start under light traffic; return the seconds until the first packet was received."""
    wire = Wire()
    began = time.perf_counter()
    running = RunningPipeline(wire.host, "headers")
    with wire.client.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as sock:
        sock.bind(("c0", 0))

        def received() -> bool:
            sock.send(template(60))
            status = running.status()
            return status is not None and status["workers"][0]["packets"] > 0

        running.wait(received)
    seconds = time.perf_counter() - began
    running.end()
    wire.close()
    return {"seconds": seconds}


def main() -> None:
    given = harness.options(__doc__.splitlines()[0])
    contestants: dict[str, harness.Measure] = {"testpmd": lambda: measure_testpmd(given.seconds)}
    for chain in CHAINS:
        contestants[chain] = lambda chain=chain: measure_xdpipe(chain, given.seconds)
    contestants["start"] = measure_start
    with hugepages():
        results = harness.alternate(contestants, given.rounds, harness.Console(stderr=True))
    peer = "testpmd"
    theirs = harness.series(results["testpmd"], "pps")
    rows = [
        harness.compare(
            f"rx_{chain}", "pkt/s", harness.series(results[chain], "pps"), peer, theirs, aim
        )
        for chain, aim in CHAINS.items()
    ]
    rows += [
        harness.alone(f"user_ns_{name}", "ns/pkt", harness.series(results[name], "ns"))
        for name in ("testpmd", *CHAINS)
    ]
    rows += [
        harness.alone(f"lost_{name}", "%", [100 * x for x in harness.series(results[name], "lost")])
        for name in ("testpmd", *CHAINS)
    ]
    rows.append(
        harness.alone("py_blocks", "/M pkt",
                      harness.series(results["headers"], "blocks"), "≤ 0")
    )  # fmt: skip
    rows.append(
        harness.alone("start_to_packet", "s", harness.series(results["start"], "seconds"),
                      "< 3")
    )  # fmt: skip
    rows.append(harness.alone("rss", "MB", harness.series(results["array"], "rss"), "< 150"))
    facts = {"driver": "veth", "mode": "copy, native XDP", "packet": "60 bytes", "queues": "1"}
    facts["disturbance"] = harness.disturbance(results)
    harness.report("rx", rows, facts, given)


if __name__ == "__main__":
    main()
