"""What becomes of packets, over a veth: given back to the kernel, and sent back beside testpmd.

The generator has core 0, with the kernel's receive work; the receiver has core 1. PASS has no peer:
nobody else gives packets back. They go to a UDP socket of the host that nobody reads, so the whole
of the receiving stack is in the figure. What is sent back is counted where it arrives, at the
generator's end, of which the sender's core does the work as well: as it came (testpmd's io), and
with its addresses swapped (testpmd's macswap swaps those of Ethernet; xdpipe parses the headers and
swaps those of IP and the ports as well, so what comes back is another flow to that end's stack).
FORWARD sends it out of another port, to a third namespace, as testpmd's io does with two ports.
Captures, by the stage Record and by xdpipe tap, are compared with dumpcap's by the packets/s at
which none is lost (lossless.py). There the sender's core is the limit: before dumpcap it carries
the kernel's way to a packet socket, before xdpipe the way to an AF_XDP socket.
"""

import socket

import harness
from lossless import measure_lossless
from running import RunningPipeline
from testpmd import Testpmd, hugepages
from wire import Wire

HOST = "10.9.0.1"  # where the generator's packets go
PORT = 9
PEERS = {"io": "io", "swap": "macswap"}  # by chain, testpmd's mode
CAPTURES = ("record", "tap")


def measure_pass(seconds: float) -> dict[str, float]:
    wire = Wire()
    wire.host.run(["ip", "address", "add", f"{HOST}/8", "dev", "h0"])
    with wire.host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind((HOST, PORT))
        running = RunningPipeline(wire.host, "pass")
        pid = running.wait_ready()["workers"][0]["pid"]
        waited_before = harness.waited(pid)
        sent = wire.generate(seconds)
        waited = harness.waited(pid) - waited_before
        final = running.end()
    wire.close()
    ledger, [worker] = final["ledger"], final["workers"]
    if ledger["residual"] or ledger["passed"] != worker["packets"]:
        harness.fail(f"residual {ledger['residual']}, {ledger['passed']} of {worker['packets']}")
    return {
        "pps": ledger["passed"] / sent["seconds"],
        "ns": worker["busy_ns"] / worker["packets"],
        "waited": max(waited, sent["waited"]) / sent["seconds"],
    }


def measure_sent(chain: str, seconds: float) -> dict[str, float]:
    """By TX back to where it came from or, with `cross`, by FORWARD to the far end."""
    crossing = chain == "cross"
    end = "f0" if crossing else "c0"
    wire = Wire(crossing=crossing)
    devs = ("near=h0", "far=h1") if crossing else ("h0",)
    running = RunningPipeline(wire.host, chain, devs)
    pid = running.wait_ready()["workers"][0]["pid"]
    before, waited_before = wire.arrived(end), harness.waited(pid)
    sent = wire.generate(seconds)
    waited = harness.waited(pid) - waited_before
    final = running.end()
    arrived = wire.arrived(end) - before
    wire.close()
    if final["ledger"]["residual"]:
        harness.fail(f"residual {final['ledger']['residual']}")
    return {
        "pps": arrived / sent["seconds"],
        "waited": max(waited, sent["waited"]) / sent["seconds"],
    }


def measure_testpmd(mode: str, seconds: float, *, crossing: bool = False) -> dict[str, float]:
    wire = Wire(crossing=crossing)
    end = "f0" if crossing else "c0"
    with Testpmd(wire.host, ("h0", "h1") if crossing else ("h0",), mode) as testpmd:
        before, waited_before = wire.arrived(end), harness.waited(testpmd.pid)
        sent = wire.generate(seconds)
        waited = harness.waited(testpmd.pid) - waited_before
    arrived = wire.arrived(end) - before
    wire.close()
    return {
        "pps": arrived / sent["seconds"],
        "waited": max(waited, sent["waited"]) / sent["seconds"],
    }


def main() -> None:
    given = harness.options(__doc__.splitlines()[0])
    contestants: dict[str, harness.Measure] = {"pass": lambda: measure_pass(given.seconds)}
    for chain, mode in PEERS.items():
        contestants[chain] = lambda chain=chain: measure_sent(chain, given.seconds)
        contestants[f"testpmd {mode}"] = lambda mode=mode: measure_testpmd(mode, given.seconds)
    contestants["cross"] = lambda: measure_sent("cross", given.seconds)
    crossing = "testpmd io 2 ports"
    contestants[crossing] = lambda: measure_testpmd("io", given.seconds, crossing=True)
    for name in (*CAPTURES, "dumpcap"):
        contestants[name] = lambda name=name: measure_lossless(name, given.seconds)
    with hugepages():
        results = harness.alternate(contestants, given.rounds, harness.Console(stderr=True))
    rows = [
        harness.alone("pass", "pkt/s", harness.series(results["pass"], "pps"), "≥ 1000000"),
        harness.alone("pass_ns", "ns/pkt", harness.series(results["pass"], "ns")),
        *(
            harness.compare(
                f"tx_{chain}", "pkt/s", harness.series(results[chain], "pps"), f"testpmd {mode}",
                harness.series(results[f"testpmd {mode}"], "pps"), "≥ 1.0",
            )
            for chain, mode in PEERS.items()
        ),
        harness.compare(
            "forward", "pkt/s", harness.series(results["cross"], "pps"), crossing,
            harness.series(results[crossing], "pps"), "≥ 1.0",
        ),
        *(
            harness.compare(
                name, "pkt/s", harness.series(results[name], "pps"), "dumpcap",
                harness.series(results["dumpcap"], "pps"), "≥ 3.0",
            )
            for name in CAPTURES
        ),
    ]  # fmt: skip
    facts = {"driver": "veth", "mode": "copy, native XDP", "packet": "60 bytes", "queues": "1"}
    facts["disturbance"] = harness.disturbance(results)
    harness.report("verdicts", rows, facts, given)


if __name__ == "__main__":
    main()
