"""The ledger: what the queues delivered, and what became of it, to the last packet."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from xdpipe.steering import SteerCounters
    from xdpipe.xsk import XskStatistics

VERDICTS = {
    "DROP": "verdict_drop",
    "TX": "verdict_tx",
    "PASS": "verdict_pass",
    "FORWARD": "verdict_forward",
    "INVALID": "verdict_invalid",
    "LOST_WITH_WORKER": "verdict_lost",
}
"""What a received packet ends in, and the worker's counter for it."""


@dataclass(frozen=True)
class Ledger:
    """Sums over queues: every packet stands in one place, or `residual` is not 0.

    Of a port, or of all.

    seen = to_kernel + set_dropped + redirect_failed + redirected   by the XDP program
    redirected = kernel_drops + received                   by the kernel, by the workers
    received = sum of verdicts                             by the workers
    TX + forwarded = sent + refused                        by the workers
    FORWARD = forwarded                                    of all ports, by the workers
    PASS = passed + pass_refused                           by the program that gives them back

    Attributes:
        seen: packets that the program saw.
        to_kernel: packets that the program passed to the kernel, by reason.
        set_dropped: packets that the program dropped, since an address was in a DropSet.
        redirect_failed: packets whose redirect failed because the socket was not bound there.
        redirected: packets handed to the sockets.
        kernel_drops: packets that the kernel dropped at the sockets, by XDP_STATISTICS counter.
        received: packets that workers took from the rx rings.
        verdicts: packets by verdict.
        forwarded: packets that came by other ports, to be sent by this one.
        sent: packets that the kernel sent.
        refused: packets to be sent that were not, by reason.
        passed: packets given back to the kernel.
        pass_refused: packets to be given back that were not, by reason.
    """

    seen: int
    to_kernel: Mapping[str, int]
    set_dropped: int
    redirect_failed: int
    redirected: int
    kernel_drops: Mapping[str, int]
    received: int
    verdicts: Mapping[str, int]
    forwarded: int
    sent: int
    refused: Mapping[str, int]
    passed: int
    pass_refused: Mapping[str, int]

    @classmethod
    def close_books(
        cls,
        program: SteerCounters,
        queues: Iterable[tuple[Mapping[str, int], XskStatistics]],
    ) -> Ledger:
        """Sum up.

        Args:
            program: the XDP program's counters.
            queues: each worker's counters of the port, and its socket's statistics.
        """
        totals: dict[str, int] = {}
        drops = {"rx_dropped": 0, "rx_ring_full": 0}
        for counters, statistics in queues:
            for name, value in counters.items():
                totals[name] = totals.get(name, 0) + value
            for name, value in statistics.drops.items():
                drops[name] += value
        get = totals.get
        refused = {
            "no_room": get("tx_no_room", 0),
            "device": get("tx_dropped", 0),
            "abandoned": get("tx_abandoned", 0),
        }
        return cls(
            seen=program.seen,
            to_kernel=dict(program.to_kernel),
            set_dropped=program.set_dropped,
            redirect_failed=program.redirect_failed,
            redirected=program.redirected - program.redirect_failed,
            kernel_drops=drops,
            received=get("received", 0),
            verdicts={name: get(counter, 0) for name, counter in VERDICTS.items()},
            forwarded=get("forwarded", 0),
            sent=get("tx_completed", 0) - get("tx_dropped", 0),
            refused=refused,
            passed=get("passed", 0),
            pass_refused={
                "too_long": get("pass_too_long", 0),
                "kernel": get("pass_failed", 0),
            },
        )

    @classmethod
    def total(cls, ports: Sequence[Ledger]) -> Ledger:
        """Add up the ports'."""

        def add(values: list[Any]) -> Any:
            if isinstance(values[0], int):
                return sum(values)
            return {key: sum(value[key] for value in values) for key in values[0]}

        names = [field.name for field in fields(cls)]
        return cls(**{name: add([getattr(port, name) for port in ports]) for name in names})

    @property
    def residual(self) -> int:
        """Packets that stand nowhere, over all equations, of all ports; 0 when quiet."""
        to_kernel = sum(self.to_kernel.values())
        return (
            abs(self.seen - to_kernel - self.set_dropped - self.redirect_failed - self.redirected)
            + abs(self.redirected - sum(self.kernel_drops.values()) - self.received)
            + abs(self.received - sum(self.verdicts.values()))
            + abs(self.verdicts["TX"] + self.forwarded - self.sent - sum(self.refused.values()))
            + abs(self.verdicts["FORWARD"] - self.forwarded)
            + abs(self.verdicts["PASS"] - self.passed - sum(self.pass_refused.values()))
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` shows under `ledger`."""
        return {**self.port_to_dict(), "residual": self.residual}

    def port_to_dict(self) -> dict[str, Any]:
        """Return what `--json` shows of one port: what it forwards is in the others' books."""
        return {
            "seen": self.seen,
            "to_kernel": dict(self.to_kernel),
            "set_dropped": self.set_dropped,
            "redirect_failed": self.redirect_failed,
            "redirected": self.redirected,
            "kernel_drops": dict(self.kernel_drops),
            "received": self.received,
            "verdicts": dict(self.verdicts),
            "forwarded": self.forwarded,
            "sent": self.sent,
            "refused": dict(self.refused),
            "passed": self.passed,
            "pass_refused": dict(self.pass_refused),
        }
