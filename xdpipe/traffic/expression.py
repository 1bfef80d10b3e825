"""Scapy expressions, such as `IP(dst="10.0.0.2")/UDP(dport=53)`, evaluated to packets.

What may stand in one: scapy's packet classes by name, calls, `/` and `*`, constants, lists, tuples
and the few functions below. An expression is what its user types; this is to catch mistakes early
and say where they are, and is no wall against who means harm.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import importlib
import inspect
import itertools
import logging
import random
from typing import TYPE_CHECKING, Any

from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_PACKETS = 4096
"""That one expression may be."""

SRC_MAC, DST_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
SRC4, DST4 = "192.0.2.1", "198.51.100.1"
SRC6, DST6 = "2001:db8::1", "2001:db8:1::1"
"""What stands where scapy would ask this machine's routes and neighbours (RFC 5737, RFC 3849)."""

_BUILTINS = {f.__name__: f for f in (bytes, bytearray, range, len, int, str, ord, chr)}
_FUNCTIONS = ("fragment", "fragment6", "hex_bytes", "Net", "Net6")
_CONTRIB = {
    "ERSPAN": "erspan", "ERSPAN_II": "erspan", "ERSPAN_III": "erspan", "GENEVE": "geneve",
    "GTP_U_Header": "gtp", "IGMP": "igmp", "IGMPv3": "igmpv3", "MPLS": "mpls", "NSH": "nsh",
}  # fmt: skip
"""Layers that scapy keeps apart, by the module of scapy.contrib: loaded where they are named."""
_NODES = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Call, ast.Name, ast.Constant, ast.List, ast.Tuple,
    ast.Dict, ast.keyword, ast.Load, ast.Div, ast.Mult, ast.Add, ast.Sub, ast.BitOr, ast.BitAnd,
    ast.LShift, ast.USub, ast.Subscript, ast.Slice, ast.Starred,
)  # fmt: skip


@functools.cache
def names() -> dict[str, Any]:
    """Return what may be named in an expression: scapy's layers, and a few functions."""
    logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
    from scapy import all as scapy_all
    from scapy.packet import Packet

    found: dict[str, Any] = {
        name: value
        for name, value in vars(scapy_all).items()
        if inspect.isclass(value) and issubclass(value, Packet)
    }
    found.update({name: getattr(scapy_all, name) for name in _FUNCTIONS})
    for name in ("fragment", "fragment6"):  # they build, and so compute checksums
        found[name] = _settled(found[name])
    return {**_BUILTINS, **found}


def _settled(function: Any) -> Any:
    """Return a function of a packet whose addresses are said before."""

    def call(packet: Any, *args: Any, **kwargs: Any) -> Any:
        packet = packet.copy()
        _settle(packet)
        return function(packet, *args, **kwargs)

    return call


def packets(text: str) -> list[Any]:
    """Evaluate an expression.

    Returns:
        Scapy packets, each from Ethernet on: one; or several, where the expression is a list, or a
        field has a list, a network or a range, which scapy takes for one packet for each.

    Raises:
        XdpipeError: it is not such an expression; the message says at which character.
    """
    known = names()
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise _wrong(text, (error.offset or 1) - 1, error.msg) from None
    for node in ast.walk(tree):
        at = getattr(node, "col_offset", 0)
        if not isinstance(node, _NODES):
            raise _wrong(text, at, f"no {type(node).__name__} may stand in a template")
        if isinstance(node, ast.Name) and node.id in _CONTRIB and node.id not in known:
            module = importlib.import_module(f"scapy.contrib.{_CONTRIB[node.id]}")
            known[node.id] = getattr(module, node.id)
        if isinstance(node, ast.Name) and node.id not in known:
            near = difflib.get_close_matches(node.id, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            if node.id.startswith("Rand"):
                hint = "; say --vary LAYER.FIELD=random"
            raise _wrong(text, at, f"scapy has no layer {node.id}{hint}")
    try:
        code = compile(tree, "<template>", "eval")
        with _repeatable():
            value = eval(code, {"__builtins__": {}}, known)
            made = list(itertools.islice(_each(value), MOST_PACKETS + 1))
    except XdpipeError as error:
        raise _wrong(text, 0, str(error)) from None
    except Exception as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, AttributeError):
            reason = f"there is no field {reason}"
        elif isinstance(error, KeyError):
            reason = f"there is no value of the name {reason}"
        raise _wrong(text, _place(error), reason) from None
    if len(made) > MOST_PACKETS:
        raise _wrong(text, 0, f"more than {MOST_PACKETS:,} packets; let --vary make them")
    if not made:
        raise _wrong(text, 0, "no packet")
    return made


@contextlib.contextmanager
def _repeatable() -> Iterator[None]:
    """Have what scapy fills in at random (a DHCPv6 transaction) be the same each time."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


def _wrong(text: str, at: int, reason: str) -> XdpipeError:
    near = text.strip()[at : at + 24]
    where = f" at character {at + 1}, {near!r}" if at else ""
    return XdpipeError(f"template {text!r}{where}: {reason}")


def _place(error: BaseException) -> int:
    """Return the column in the expression where it was raised; 0 if it cannot be told."""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == "<template>":
            positions = list(code.co_positions())
            return positions[trace.tb_lasti // 2][2] or 0
        trace = trace.tb_next
    return 0


def _each(value: Any) -> Any:
    """Yield each packet of what an expression gave, ready to be built."""
    from scapy.packet import Packet

    if isinstance(value, Packet):
        for packet in value:
            yield from_ethernet(packet)
    elif isinstance(value, list | tuple) or type(value).__name__ == "PacketList":
        for item in value:
            yield from _each(item)
    elif isinstance(value, bytes):
        from scapy.packet import Raw

        yield Raw(value)
    else:
        raise XdpipeError(f"a packet is wanted, this gives {type(value).__name__}")


def from_ethernet(packet: Any) -> Any:
    """Return a copy with Ethernet in front, and fixed values where scapy would ask the machine."""
    from scapy.layers.l2 import Dot1AD, Dot1Q, Dot3, Ether
    from scapy.packet import Raw

    packet = packet.copy()
    if not isinstance(packet, Ether | Dot3 | Raw):
        ether = Ether()
        if isinstance(packet, Dot1AD):
            ether.type = 0x88A8
        elif isinstance(packet, Dot1Q):
            ether.type = 0x8100
        packet = ether / packet
    if packet.raw_packet_cache is None:  # else dissected bytes: all is said
        _settle(packet)
    return packet


def _settle(packet: Any) -> None:
    """Set the addresses that scapy would ask the machine for."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import ARP, Dot3, Ether

    for layer in packet.iterpayloads():
        if isinstance(layer, Ether | Dot3):
            _default(layer, src=SRC_MAC, dst=DST_MAC)
        elif isinstance(layer, IP):
            _default(layer, src=SRC4, dst=DST4)
        elif isinstance(layer, IPv6):
            _default(layer, src=SRC6, dst=DST6)
        elif isinstance(layer, ARP):
            _default(layer, hwsrc=SRC_MAC, psrc=SRC4, pdst=DST4)


def _default(layer: Any, **values: str) -> None:
    """Set fields that are not said, unless the payload says (mDNS has an address of its own)."""
    for name, value in values.items():
        if layer.fields.get(name) is not None or name in layer.overloaded_fields:
            continue
        field = layer.get_field(name)
        field = getattr(field, "fld", field)
        bound = getattr(field, "dst_from_pkt", lambda _: None)(layer)
        if bound in (None, "127.0.0.1", "::1"):
            layer.setfieldval(name, value)
