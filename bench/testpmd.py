"""DPDK's testpmd over AF_XDP in copy mode: the peer for receiving and for sending back."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import fail

from xdpipe.netns import Namespace

HUGEPAGES = Path("/proc/sys/vm/nr_hugepages")
N_HUGEPAGES = 256  # of 2 MiB


@contextmanager
def hugepages() -> Iterator[None]:
    """Have huge pages for the while, as many as testpmd needs."""
    before = int(HUGEPAGES.read_text())
    HUGEPAGES.write_text(str(max(before, N_HUGEPAGES)))
    try:
        if int(HUGEPAGES.read_text()) < N_HUGEPAGES:
            fail(f"only {HUGEPAGES.read_text().strip()} huge pages of {N_HUGEPAGES}; free memory")
        yield
    finally:
        HUGEPAGES.write_text(str(before))


class Testpmd:
    """testpmd on one queue of an interface, its forwarding on core 1; a context manager.

    hugetlbfs is mounted in a mount namespace of its own, so nothing of it stays.

    Without busy polling (busy_budget=0; 64 is the driver's default): the default fell more often
    into a slow mode of 2.3 M/s. Burst 32 to 512, 512 to 4096 descriptors, a larger mbuf cache and
    force_copy made no difference that shows beside that between runs, 5 of each; the sender's core
    was the limit in all of them.
    """

    def __init__(
        self, namespace: Namespace, devs: tuple[str, ...] = ("h0",), mode: str = "rxonly"
    ) -> None:
        """Start.

        Args:
            namespace: that the interfaces lie in.
            devs: one interface, or two between which packets go.
            mode: `rxonly`, `io` or `macswap`.
        """
        vdevs = " ".join(
            f"--vdev=net_af_xdp{number},iface={dev},start_queue=0,queue_count=1,busy_budget=0"
            for number, dev in enumerate(devs)
        )
        command = (
            "mount -t hugetlbfs none /dev/hugepages && "
            "exec stdbuf -oL dpdk-testpmd -l 0,1 --main-lcore 0 "
            f"--no-pci --in-memory {vdevs} "
            f"-- --interactive --forward-mode={mode} --nb-cores=1 --rxq=1 --txq=1 --burst=64 "
            "--rxd=2048 --txd=2048 --total-num-mbufs=16384 --no-flush-rx "
            "--record-core-cycles"
        )
        Path("/dev/hugepages").mkdir(exist_ok=True)
        self._popen = namespace.popen(
            ["unshare", "--mount", "bash", "-c", command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._ask("start", f"{mode} packet forwarding")

    def _ask(self, command: str, until: str) -> str:
        """Send a command, return what is said up to a line that holds `until`."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(command + "\n")
        self._popen.stdin.flush()
        said = ""
        for line in self._popen.stdout:
            said += line
            if until in line:
                return said
        fail(f"testpmd ended: {said.strip().splitlines()[-1:]}")
        return said

    def received(self) -> int:
        """Return how many packets it has received so far."""
        said = self._ask("show port stats 0", "Tx-pps")
        found = re.search(r"RX-packets:\s+(\d+)", said)
        if found is None:
            fail(f"testpmd said: {said}")
            return 0
        return int(found[1])

    @property
    def pid(self) -> int:
        return self._popen.pid

    def user_ns(self) -> float:
        """Return the ns per packet of those polls that found packets."""
        assert self._popen.stdin is not None
        self._popen.stdin.write("show fwd stats all\n")
        said = self._ask("show port stats 0", "Tx-pps")
        found = re.search(r"CPU cycles/packet=([\d.]+).* at (\d+) MHz", said)
        if found is None:
            fail(f"testpmd said: {said}")
            return 0.0
        return float(found[1]) / float(found[2]) * 1e3

    def __enter__(self) -> "Testpmd":
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.communicate("stop\nquit\n", timeout=20)
