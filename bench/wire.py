"""A veth pair to measure over: a generator on one end, the receiver on the other."""

import json
import math
import subprocess
import sys
from pathlib import Path

from xdpipe.netns import Namespace, VethEnd, veth_pair

HERE = Path(__file__).resolve().parent


class Wire:
    """Two namespaces and a veth pair with one queue, made anew for each measurement.

    Args:
        crossing: a third namespace, `far`, with a pair from the host's `h1` to its `f0`.
    """

    def __init__(self, *, crossing: bool = False) -> None:
        self.host, self.client, self.far = Namespace(), Namespace(), Namespace()
        veth_pair(
            VethEnd("h0", self.host, mac="02:00:00:00:00:01"),
            VethEnd("c0", self.client, mac="02:00:00:00:00:02"),
            n_queues=1,
        )
        self._ends = {"c0": self.client}
        if crossing:
            veth_pair(VethEnd("h1", self.host), VethEnd("f0", self.far), n_queues=1)
            self._ends["f0"] = self.far

    def arrived(self, end: str = "c0") -> int:
        """Return how many packets have come to an end: back to the generator's, or to `f0`."""
        shown = self._ends[end].run(
            ["ip", "-json", "-s", "link", "show", end], stdout=subprocess.PIPE
        )
        return int(json.loads(shown.stdout)[0]["stats64"]["rx"]["packets"])

    def generate(self, seconds: float, pps: float = math.inf) -> dict[str, float]:
        done = self.client.run(
            # from its start, which is compiling, on its own core
            ["taskset", "--cpu-list", "0", sys.executable, str(HERE / "generator.py"), "c0",
             str(seconds), "--core", "0", "--pps", str(pps)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        sent: dict[str, float] = json.loads(done.stdout)
        return sent

    def close(self) -> None:
        for namespace in (self.host, self.client, self.far):
            namespace.close()
