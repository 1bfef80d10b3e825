"""What drivers do with AF_XDP that is theirs alone: one row each, with its source.

Paths are those of the kernel's tree, read in Linux 7.3 unless another version is named; what the
test VM shows (docs/vm.md) is said so.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quirks:
    """How a driver differs; the defaults are of one that does not.

    Attributes:
        rx_unit: in zero copy it gives the NIC only so many whole units of a frame; bytes.
        resets_link: attach and zero-copy bind take the link down for seconds.
        tx_needs_program: a zero-copy socket sends only while an XDP program is attached.
        source: where this can be seen.
    """

    rx_unit: int = 1
    resets_link: bool = False
    tx_needs_program: bool = False
    source: str = ""


_QUIRKS = {
    "igb": Quirks(
        rx_unit=1024,
        resets_link=True,
        tx_needs_program=True,
        source="drivers/net/ethernet/intel/igb: igb_setup_srrctl (SRRCTL.BSIZEPKT is in KiB, and "
        "a longer packet goes on in the next frame, as a packet of its own), igb_xdp_setup and "
        "igb_xsk_pool_enable (igb_down or igb_close, then up), igb_xsk_wakeup (-ENXIO without "
        "a program)",
    ),
    "igc": Quirks(
        rx_unit=1024,
        resets_link=True,
        tx_needs_program=True,
        source="drivers/net/ethernet/intel/igc: igc_configure_rx_ring (SRRCTL.BSIZEPKT), "
        "igc_xdp_set_prog, igc_xsk_wakeup; as igb, not tried",
    ),
}


def quirks(driver: str) -> Quirks:
    """Return what is peculiar to a driver; of one that is not in the table, nothing.

    Args:
        driver: its name, as ethtool -i tells it.
    """
    return _QUIRKS.get(driver, Quirks())
