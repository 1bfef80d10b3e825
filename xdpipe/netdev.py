"""What an interface offers AF_XDP sockets, by the kernel's netlink family `netdev`.

Documentation/netlink/specs/netdev.yaml; of the calling thread's network namespace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from xdpipe.link import Link

# enum netdev_xsk_flags (linux/netdev.h)
XSK_TX_TIMESTAMP: Final = 1
XSK_TX_CHECKSUM: Final = 2

# enum netdev_xdp_act
_NDO_XMIT: Final = 4
_XSK_ZEROCOPY: Final = 8

_DEV_GET = 1


def xsk_features(link: Link) -> int:
    """Return what the driver does for packets that leave in zero copy: XSK_* bits.

    0 where the kernel (before Linux 6.8) or the driver does none of it.
    """
    return _ask(link, "NETDEV_A_DEV_XSK_FEATURES") or 0


def has_zero_copy(link: Link) -> bool:
    """Return whether the driver says that it has zero copy; the kernel tells from Linux 6.3 on."""
    return bool((_ask(link, "NETDEV_A_DEV_XDP_FEATURES") or 0) & _XSK_ZEROCOPY)


def takes_frames(link: Link) -> bool | None:
    """Return whether it sends frames that another XDP program redirects to it.

    A veth does while its other end has a native XDP program, or GRO. None: the kernel does not
    tell; it does from Linux 6.3 on.
    """
    features = _ask(link, "NETDEV_A_DEV_XDP_FEATURES")
    return None if features is None else bool(features & _NDO_XMIT)


def _ask(link: Link, attribute: str) -> int | None:
    """Return a number that the kernel tells of an interface; None: it tells of no interface."""
    from pyroute2.netlink import NLM_F_REQUEST, genlmsg
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.generic import GenericNetlinkSocket

    class Device(genlmsg):  # type: ignore[misc] # pyroute2 has no types
        nla_map = (
            ("NETDEV_A_DEV_UNSPEC", "none"),
            ("NETDEV_A_DEV_IFINDEX", "uint32"),
            ("NETDEV_A_DEV_PAD", "none"),
            ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
            ("NETDEV_A_DEV_XDP_ZC_MAX_SEGS", "uint32"),
            ("NETDEV_A_DEV_XDP_RX_METADATA_FEATURES", "uint64"),
            ("NETDEV_A_DEV_XSK_FEATURES", "uint64"),
        )

    request = Device()
    request["cmd"], request["version"] = _DEV_GET, 1
    request["attrs"] = [("NETDEV_A_DEV_IFINDEX", link.index)]
    try:
        with GenericNetlinkSocket() as netlink:
            netlink.bind("netdev", Device)
            [answer] = netlink.nlm_request(request, msg_type=netlink.prid, msg_flags=NLM_F_REQUEST)
    except NetlinkError:
        return None
    return int(answer.get_attr(attribute) or 0)
