"""Zero copy beside copy mode and DPDK's testpmd, in the test VM, on one queue of igb and of virtio.

On the host this starts the VM (vm/) with NICs that hang on taps, runs itself in it with --inside,
and sends to the taps when it is asked to, more than anyone takes: what counts is what is received.
In the VM the receiver has CPU 1, with the NIC's interrupts.

The host's cores are shared by that CPU, by QEMU, which carries the packets, and by the sender; and
without KVM each instruction of the guest is emulated. So rates mean nothing but beside each other,
and where zero copy is so fast that QEMU's carrying is the limit, its ratio comes out too small. The
rows of CPU time are what CPU 1 spends on a packet, all in all (interrupts, driver, XDP program,
worker, and what the host takes from it). testpmd has none, since it spins.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import harness
from generator import Generator
from running import RunningPipeline
from testpmd import Testpmd, hugepages

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from vm.cache import VmError
from vm.inside import find_nic, take_nic
from vm.session import Wanted, run
from xdpipe.link import Link
from xdpipe.netns import Namespace, VethEnd

KINDS = ("igb", "virtio")
SIZES = (60, 1400)  # bytes without the FCS
OFFERED_PPS = 600_000  # about twice what is received
PACKAGES = ("dpdk-dev", "librte-net-af-xdp25")
MAC = "02:00:00:00:00:01"
OUT = Path("/out")
ANSWER_S = 30.0
SETTLE_S = 0.5  # for what is still on its way when the sender has ended


# In the VM


def ask(request: dict[str, float | str]) -> dict[str, float]:
    """Have the host send; return what it sent. Both ways by files in a shared directory."""
    _write(OUT / "ask", request)
    answer, deadline = OUT / "answer", time.monotonic() + ANSWER_S
    while not answer.exists():
        if time.monotonic() > deadline:
            harness.fail("the host does not answer")
        time.sleep(0.02)
    said: dict[str, float] = json.loads(answer.read_text())
    answer.unlink()
    return said


def busy_s() -> float:
    """Return for how many seconds CPU 1 has not been idle (proc(5), /proc/stat)."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == "cpu1":
            idle = int(ticks[3]) + int(ticks[4])
            return time.monotonic() - idle / os.sysconf("SC_CLK_TCK")
    return 0.0


def _write(path: Path, what: object) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(what))
    part.rename(path)


class Nic:
    """A NIC of the VM, as `h0` in a namespace of its own, with one queue."""

    def __init__(self, kind: str, tap: str) -> None:
        self.host, self._tap = Namespace(), tap
        nic = find_nic(kind, MAC)
        if nic is None:
            harness.fail(f"this VM has no {kind}")
        device = Path(f"/sys/class/net/{nic.name}/device").resolve()
        # of virtio that is the device on the PCI device
        self._irqs = next(
            p / "msi_irqs" for p in (device, device.parent) if (p / "msi_irqs").exists()
        )
        take_nic(nic, VethEnd("h0", self.host), n_queues=1)

    def settle(self) -> None:
        """Wait for the carrier, which goes at each attach, and have its interrupts on CPU 1."""
        with self.host:
            Link.find("h0").with_carrier(ANSWER_S, lambda: False)
        for irq in self._irqs.iterdir():
            Path(f"/proc/irq/{irq.name}/smp_affinity_list").write_text("1")

    def send(self, size: int, seconds: float) -> dict[str, float]:
        """Have packets sent to it; keep off CPU 1 meanwhile."""
        os.sched_setaffinity(0, {0})
        said = ask({"dev": self._tap, "size": size, "seconds": seconds})
        os.sched_setaffinity(0, {0, 1})
        time.sleep(SETTLE_S)
        return said

    def received_by_xdpipe(self, mode: str, seconds: float) -> dict[str, float]:
        running = RunningPipeline(self.host, "empty", mode=mode)
        running.wait_ready()
        self.settle()
        figures, before = {}, 0
        for size in SIZES:
            busy_before = busy_s()
            sent = self.send(size, seconds)
            busy = busy_s() - busy_before
            [worker] = running.wait_ready()["workers"]
            n, before = worker["packets"] - before, worker["packets"]
            figures[str(size)] = n / sent["seconds"]
            figures[f"{size}_ns"] = busy / n * 1e9
        final = running.end()
        [worker] = final["workers"]
        if final["ledger"]["residual"] or (worker["mode"], worker["attach"]) != (mode, "native"):
            harness.fail(f"residual {final['ledger']['residual']}, {worker['mode']}")
        return figures

    def received_by_testpmd(self, seconds: float) -> dict[str, float]:
        with Testpmd(self.host) as testpmd:
            self.settle()
            figures, before = {}, testpmd.received()
            for size in SIZES:
                sent = self.send(size, seconds)
                now = testpmd.received()
                figures[str(size)] = (now - before) / sent["seconds"]
                before = now
            # its driver takes what it gets, and does not say which that is
            shown = self.host.run(["ss", "-f", "xdp", "-e"], capture_output=True, text=True)
            if "zc:1" not in shown.stdout:
                harness.fail("testpmd did not get zero copy")
        return figures


def inside(rounds: int, seconds: float) -> None:
    """Measure, and leave the results for the host."""
    contestants: dict[str, harness.Measure] = {}
    with hugepages():
        for place, kind in enumerate(KINDS):
            nic = Nic(kind, f"fed{place}")
            for mode in ("zerocopy", "copy"):
                contestants[f"{kind} {mode}"] = (
                    lambda nic=nic, mode=mode: nic.received_by_xdpipe(mode, seconds)
                )  # fmt: skip
            contestants[f"{kind} testpmd"] = lambda nic=nic: nic.received_by_testpmd(seconds)
        results = harness.alternate(contestants, rounds, harness.Console(stderr=True))
    _write(OUT / "results", results)


# On the host


def serve(namespace: Namespace, out: Path) -> None:
    """Send when the VM asks for it."""
    with namespace:
        while True:
            asked = out / "ask"
            if not asked.exists():
                time.sleep(0.02)
                continue
            request = json.loads(asked.read_text())
            asked.unlink()
            with Generator(request["dev"], request["size"]) as generator:
                _write(out / "answer", generator.generate(request["seconds"], OFFERED_PPS, 2e-4))


def outside() -> None:
    """Start the VM, let it measure, and tell what came of it."""
    given = harness.options(__doc__.splitlines()[0])

    with tempfile.TemporaryDirectory() as name:
        wanted = Wanted(
            KINDS, n_queues=1, out=Path(name), packages=PACKAGES, fed=True
        )  # fmt: skip
        command = [
            "python",
            "bench/zero_copy.py",
            "--inside",
            str(given.rounds),
            str(given.seconds),
        ]
        try:
            done = run(wanted, command, serve)
        except VmError as error:
            harness.fail(str(error))
        if done.status or done.trouble:
            harness.fail(f"in the VM: exit code {done.status} {' '.join(done.trouble)}")
        results = json.loads(Path(name, "results").read_text())
    rows = []
    for kind in KINDS:
        for size in SIZES:
            zero_copy, copy, testpmd = (
                harness.series(results[f"{kind} {name}"], str(size))
                for name in ("zerocopy", "copy", "testpmd")
            )
            name = f"{kind}_{size}"
            rows.append(harness.compare(name, "pkt/s", zero_copy, "copy", copy, "≥ 1.5"))
            rows.append(harness.compare(name, "pkt/s", zero_copy, "testpmd", testpmd, "≥ 0.9"))
            zero_copy, copy = (
                harness.series(results[f"{kind} {name}"], f"{size}_ns")
                for name in ("zerocopy", "copy")
            )
            rows.append(harness.compare(f"{name}_cpu", "ns/pkt", zero_copy, "copy", copy, "≤ 0.67"))
    facts = {
        "accelerator": done.accelerator, "VM's kernel": done.release, "queues": "1",
        "mode": "zero copy, native XDP", "offered": f"{OFFERED_PPS} pkt/s",
    }  # fmt: skip
    harness.report("zero_copy", rows, facts, given)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(int(sys.argv[2]), float(sys.argv[3]))
    else:
        outside()
