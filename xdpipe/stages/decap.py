"""The packet within a tunnel; core/stages/decap.c finds it, core/parse.c parses it."""

from __future__ import annotations

from typing import Any, ClassVar

from xdpipe.batch import COLUMNS, ENUMS
from xdpipe.core._core import ffi
from xdpipe.errors import XdpipeError
from xdpipe.stage import NativeStage
from xdpipe.stages.headers import Headers

TUNNELS = {name: value for name, (value, _) in ENUMS["tunnels"].items()}
"""The values of the column `tunnels` by name; 0 is none of them."""

DECAP_MALFORMED = {name: value for name, (value, _) in ENUMS["decap_malformed"].items()}
"""The values of the column `decap_malformed` by name; 0 is none of them."""

_KINDS = {name.lower(): value for name, value in TUNNELS.items()}
_MAX_DEPTH = COLUMNS["tunnels"].width


class Decap(NativeStage):
    """Enter tunnels, and have all columns of Headers speak of the innermost packet reached.

    VXLAN (RFC 7348), Geneve (RFC 8926, options skipped), GRE version 0 (RFC 2784, RFC 2890) with
    Ethernet, IPv4, IPv6, ARP or MPLS in it, ERSPAN type I, II and III, GTP-U (3GPP TS 29.281; IP in
    T-PDUs, extension headers skipped), IP in IP (RFC 2003), IPv6 in IPv4 (RFC 4213), both in IPv6
    (RFC 2473). UDP tunnels are told by the destination port.

    A packet in which a tunnel was entered has the flag TUNNEL; `n_tunnels`, `tunnels`, `tunnel_id`
    say which, `inner` is where the innermost packet begins; of the outermost IP header `outer_src`,
    `outer_dst` and `outer_l3` are left. Offsets count from the first byte of the whole packet, as
    ever. `flow_hash` is that of the inner packet. If that one is malformed, the columns say of it
    what Headers says of such a packet. A tunnel header that contradicts itself is not entered: the
    columns go on to speak of the packet around it, and `decap_malformed` has the reason. Fragments
    are not entered either.

    Stages behind that rewrite a packet by these columns rewrite the inner one: `fix_checksum` and
    `fill_checksum` bring the inner checksum up to date, which leaves a checksum around it (of UDP,
    of GRE) right as well if the inner one was right before: what it covers sums up to the same
    again. An inner UDP checksum of 0, or bytes that no inner checksum covers, have nothing of the
    kind. Checksums that are due of the outer packet are filled in as it is entered, those of the
    inner one by the worker, not the NIC. `SwapAddresses` leaves such packets alone.

    Args:
        kinds: of tunnels to enter, of "vxlan", "geneve", "gre", "erspan", "gtpu", "ipip", "6in4",
            "4in6", "6in6"; none: all.
        depth: so many tunnels are entered at the most, 1 to 4. All that the columns have room for
            unless told otherwise: what is nested deeper than a stage looks hides from it, and the
            depth costs nothing where there is none. Packets with more are counted (`deeper`).
        vxlan_port: UDP port of VXLAN.
        geneve_port: UDP port of Geneve.
        gtpu_port: UDP port of GTP-U.

    Raises:
        XdpipeError: there is no such kind, depth or port; or two have the same port.
    """

    requires: ClassVar[tuple[str, ...]] = Headers.provides
    provides: ClassVar[tuple[str, ...]] = tuple(
        column.name for column in COLUMNS.values() if column.provider == "Decap"
    )
    counters: ClassVar[tuple[str, ...]] = (
        "decapsulated", *_KINDS, "deeper", "partial_checksum", "inner_malformed", "malformed",
        *(f"malformed_{reason.lower()}" for reason in DECAP_MALFORMED),
    )  # fmt: skip
    function: ClassVar[str] = "xp_stage_decap"

    def __init__(
        self,
        *kinds: str,
        depth: int = _MAX_DEPTH,
        vxlan_port: int = 4789,
        geneve_port: int = 6081,
        gtpu_port: int = 2152,
    ) -> None:
        for kind in kinds:
            if kind not in _KINDS:
                known = ", ".join(_KINDS)
                raise XdpipeError(f"Decap: no kind of tunnel {kind!r}; there are {known}")
        if not (isinstance(depth, int) and 1 <= depth <= _MAX_DEPTH):
            raise XdpipeError(f"Decap: depth={depth!r}: 1 to {_MAX_DEPTH}")
        ports = {"vxlan_port": vxlan_port, "geneve_port": geneve_port, "gtpu_port": gtpu_port}
        for name, port in ports.items():
            if not (isinstance(port, int) and 1 <= port <= 65535):
                raise XdpipeError(f"Decap: {name}={port!r}: 1 to 65535")
        if len(set(ports.values())) < len(ports):
            told = ", ".join(f"{name}={port}" for name, port in ports.items())
            raise XdpipeError(f"Decap: {told}: each has a port of its own")
        bits = sum(1 << _KINDS[kind] for kind in set(kinds or _KINDS))
        self._options = {"kinds": bits, "depth": depth, **ports}

    def make_state(self, counters: Any) -> Any:
        """Return the state of the C function."""
        return ffi.new("struct xp_decap_state *", {"counters": counters, **self._options})
