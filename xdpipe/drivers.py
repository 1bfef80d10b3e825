"""What drivers do with AF_XDP that is theirs alone: one row each, with its source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quirks:
    """How a driver differs; the defaults are of one that does not.

    Attributes:
        rx_unit: in zero copy it gives the NIC only so many whole units of a frame; bytes.
        tx_needs_program: a zero-copy socket sends only while an XDP program is attached.
        source: where this can be seen, in the kernel's tree.
    """

    rx_unit: int = 1
    tx_needs_program: bool = False
    source: str = ""


_QUIRKS = {
    # Seen in the test VM on Linux 7.3 (tests/vm) and read in the main line's igb: a packet longer
    # than the NIC was told goes on in the next frame, and igb_clean_rx_irq_zc takes each for a
    # packet of its own.
    "igb": Quirks(
        rx_unit=1024,
        tx_needs_program=True,
        source="drivers/net/ethernet/intel/igb: igb_setup_srrctl (SRRCTL.BSIZEPKT counts KiB), "
        "igb_xsk_pool (no pool without a program), igb_xsk_wakeup (-EINVAL without one)",
    ),
}


def quirks(driver: str) -> Quirks:
    """Return what is peculiar to a driver; of one that is not in the table, nothing.

    Args:
        driver: its name, as ethtool -i tells it.
    """
    return _QUIRKS.get(driver, Quirks())
