"""What drivers do with AF_XDP that is theirs alone: one row each, with its source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Quirks:
    """How a driver differs; the defaults are of one that does not.

    Attributes:
        rx_unit: in zero copy it gives the NIC only so many whole units of a frame; bytes.
        partial_checksums: packets may come from a program on the same machine, which left their
            checksum to the link, and the link leaves it at that.
        tx_needs_program: a zero-copy socket sends only while an XDP program is attached.
        loses_tx_as_module: built as a module it may lose all that is sent in zero copy.
        source: where this can be seen, in the kernel's tree.
    """

    rx_unit: int = 1
    partial_checksums: bool = False
    tx_needs_program: bool = False
    loses_tx_as_module: bool = False
    source: str = ""


_QUIRKS = {
    # What an skb says of its checksum (CHECKSUM_PARTIAL) is lost with the skb.
    "veth": Quirks(
        partial_checksums=True,
        source="drivers/net/veth.c: veth_xdp_rcv_skb; NETIF_F_HW_CSUM, and nothing computes it",
    ),
    "tun": Quirks(
        partial_checksums=True,
        source="drivers/net/tun.c: tun_build_skb, VIRTIO_NET_HDR_F_NEEDS_CSUM of a guest's packets",
    ),
    # Seen in the test VM on Linux 7.3: with memory filled, nothing that was sent arrived; with the
    # place that the device reads kept free, all did (vm/qemu.py).
    "virtio_net": Quirks(
        loses_tx_as_module=True,
        source="drivers/net/virtio_net.c: xsk_hdr, the header of each packet sent in zero copy, is "
        "mapped for the device where it lies, in the module, whose memory cannot be mapped so",
    ),
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


def caveat(name: str, driver: str, mode: str) -> str:
    """Return what a user is to know of an interface in the mode obtained; empty: nothing.

    Args:
        name: of the interface.
        driver: its driver.
        mode: `zerocopy` or `copy`.
    """
    is_module = Path(f"/sys/module/{driver}/initstate").exists()
    if mode == "zerocopy" and is_module and quirks(driver).loses_tx_as_module:
        return (
            f"{name}: {driver} as a module may lose all packets that are sent in zero copy, from "
            "one boot to the next (a defect of Linux up to 7.3); if none arrive, use --mode copy"
        )
    return ""


def quirks(driver: str) -> Quirks:
    """Return what is peculiar to a driver; of one that is not in the table, nothing.

    Args:
        driver: its name, as ethtool -i tells it.
    """
    return _QUIRKS.get(driver, Quirks())
