"""What values a field of a scapy layer takes: numbers, addresses or texts."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from xdpipe.errors import XdpipeError


@dataclass(frozen=True)
class FieldKind:
    """A field, by what it holds.

    Attributes:
        what: `number`, `ipv4`, `ipv6`, `mac` or `text`.
        size: bits; 0: a text, as long as it is.
        signed: a number below 0 where the highest bit is set.
        plain: a text whose bytes stand as they are, so that any will do.
        field: scapy's field, which knows names of values.
        layer: scapy's layer.
    """

    what: str
    size: int
    field: Any
    layer: Any
    signed: bool = False
    plain: bool = False

    def number(self, text: str) -> int:
        """Read a value: 53, 0x35, 10.0.0.1, 02:00:00:00:00:01, or a name that scapy knows (SA).

        Raises:
            XdpipeError: it is none.
        """
        try:
            if self.what in ("ipv4", "ipv6"):
                version = ipaddress.IPv4Address if self.what == "ipv4" else ipaddress.IPv6Address
                return int(version(text))
            if self.what == "mac":
                parts = text.split(":")
                if len(parts) != 6:
                    raise ValueError
                return int.from_bytes(bytes(int(part, 16) for part in parts))
            number = self._plain_number(text)
        except (ValueError, KeyError, OverflowError, TypeError):
            raise XdpipeError(f"{text!r} is no {_WANTED[self.what]}") from None
        if not 0 <= number < 1 << self.size:
            raise XdpipeError(f"{text} is beyond the field's {self.size} bits")
        return number

    def _plain_number(self, text: str) -> int:
        try:
            return int(text, 0)
        except ValueError:
            value = self.field.any2i(self.layer, text)
            return int(value)

    def scapy(self, value: int | bytes) -> Any:
        """Return a value as scapy takes it."""
        if isinstance(value, bytes):
            return value
        if self.what == "ipv4":
            return str(ipaddress.IPv4Address(value))
        if self.what == "ipv6":
            return str(ipaddress.IPv6Address(value))
        if self.what == "mac":
            return ":".join(f"{byte:02x}" for byte in value.to_bytes(6))
        if self.signed and value >> (self.size - 1):
            return value - (1 << self.size)
        return value


_WANTED = {
    "number": "number, and no name that scapy knows here",
    "ipv4": "IPv4 address",
    "ipv6": "IPv6 address",
    "mac": "MAC address",
}


def kind_of(layer: Any, name: str) -> FieldKind | None:
    """Return what a layer's field holds; None: something that cannot be varied, such as a list."""
    from scapy import fields

    field = layer.get_field(name)
    while isinstance(field, fields.MultipleTypeField) or hasattr(field, "fld"):
        if isinstance(field, fields.MultipleTypeField):
            field, _ = field._find_fld_pkt_val(layer, layer.getfieldval(name))
        else:
            field = field.fld
    if isinstance(field, fields.IPField):
        return FieldKind("ipv4", 32, field, layer)
    if isinstance(field, fields.IP6Field):
        return FieldKind("ipv6", 128, field, layer)
    if isinstance(field, fields.MACField):
        return FieldKind("mac", 48, field, layer)
    if isinstance(field, fields._BitField):
        return FieldKind("number", abs(field.size), field, layer)
    if isinstance(field, fields.StrField):
        plain = type(field).__name__ in ("StrField", "StrLenField", "StrFixedLenField")
        return FieldKind("text", 0, field, layer, plain=plain)
    if getattr(field, "islist", False) or getattr(field, "holds_packets", False):
        return None
    fmt = str(getattr(field, "fmt", ""))
    if fmt[-1:] in tuple("BbHhIiQqLl") and fmt[:-1] in ("!", ">", "", "<", "@"):
        return FieldKind("number", 8 * field.sz, field, layer, signed=fmt[-1].islower())
    return None
