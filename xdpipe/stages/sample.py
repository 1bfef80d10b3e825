"""Take one packet in n, or one flow in n; core/stages/sample.c does it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from xdpipe.action import action
from xdpipe.core._core import ffi
from xdpipe.errors import XdpipeError
from xdpipe.stage import NativeStage

if TYPE_CHECKING:
    from xdpipe.verdict import Verdict

_FUNCTIONS = {"packet": "xp_stage_sample_packets", "flow": "xp_stage_sample_flows"}


class Sample(NativeStage):
    """Decide or mark one packet in n, or all packets of one flow in n, and decide the others.

    Per packet the number of packets between two samples is random, 0 to 2n - 2 and n - 1 on
    average, so that traffic which comes in a rhythm does not fall into step with it (RFC 3176, 2).
    Per flow, both directions of a flow are in or out, and all its fragments; packets without IP
    are one flow. `Headers` must come before.

    Nobody who does not know the seed can tell what will be taken. With the same seed the same
    flows are taken by all queues and in each run, and, over the same packets in the same order,
    the same packets. Without one, each queue takes others: give one where the two directions of a
    flow may come by different queues. It has 100 bytes of memory.

    Args:
        n: one in so many, 1 to 2**32.
        per: "packet" or "flow".
        verdict: for those that are taken, if undecided: DROP, TX, PASS or FORWARD.
        otherwise: the same for the others.
        mark: for those that are taken, 0 to 2**32 - 1; others keep theirs.
        seed: 0 to 2**128 - 1; None: from the system, anew for each queue.

    Raises:
        XdpipeError: no such n, per, verdict, mark or seed; or nothing is to be done.
    """

    counters: ClassVar[tuple[str, ...]] = ("sampled", "other")

    def __init__(
        self,
        n: int,
        per: Literal["packet", "flow"] = "packet",
        *,
        verdict: Verdict | None = None,
        otherwise: Verdict | None = None,
        mark: int | None = None,
        seed: int | None = None,
    ) -> None:
        if not (isinstance(n, int) and 1 <= n <= 1 << 32):
            raise XdpipeError(f"Sample: n={n!r}: one in 1 to 2**32")
        if per not in _FUNCTIONS:
            raise XdpipeError(f"Sample: per={per!r}: 'packet' or 'flow'")
        if seed is not None and not (isinstance(seed, int) and 0 <= seed < 1 << 128):
            raise XdpipeError(f"Sample: seed={seed!r}: a number from 0 to 2**128 - 1, or None")
        if verdict is None and otherwise is None and mark is None:
            raise XdpipeError("Sample: nothing would happen: give verdict, otherwise or mark")
        self._n, self._seed = n, seed
        self._sampled = action("Sample", verdict, mark)
        self._other = action("Sample", otherwise)
        # Both are said to each of its instances.
        self.function = _FUNCTIONS[per]  # type: ignore[misc]
        if per == "flow":
            self.requires = ("flow_hash",)  # type: ignore[misc]

    def make_state(self, counters: Any) -> Any:
        """Return the state of the C function."""
        secret = os.urandom(16) if self._seed is None else self._seed.to_bytes(16, "little")
        return ffi.new(
            "struct xp_sample_state *",
            {
                "counters": counters, "secret": np.frombuffer(secret, "<u8").tolist(),
                "n": self._n, "sampled": self._sampled, "other": self._other,
                "acts_on_others": self._other["verdict"] != 0,
            },
        )  # fmt: skip
