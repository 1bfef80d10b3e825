"""DNS messages into columns; core/stages/dns.c finds them, dns_message.c reads them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from xdpipe.batch import COLUMNS, ENUMS
from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.keep import keep_with
from xdpipe.stage import NativeStage
from xdpipe.stages.tcp_streams import TcpStreams

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdpipe.stage import Stage

FOUND = {name: bit for name, (bit, _) in ENUMS["dns_found"].items()}
"""The bits of the column `dns_found` by name: MESSAGE, RESPONSE, QUESTION, EDNS, …"""

FLAGS = {name: bit for name, (bit, _) in ENUMS["dns_flags"].items()}
"""The bits of the column `dns_flags` by name: QR, AA, TC, RD, …"""

MALFORMED = {name: value for name, (value, _) in ENUMS["dns_malformed"].items()}
"""The values of the column `dns_malformed` by name; 0 is none of them."""

_NAME_MAX, _LABEL_MAX, _PORTS_MAX, _BUFFERS_MAX = 255, 63, 8, 65536
_PART = re.compile(r"\\([0-9]{3})|\\([^0-9])|([^\\])", re.DOTALL)
"""A byte of a name: by its number, with a backslash before it, or as it is."""


class Dns(NativeStage):
    r"""Read the DNS messages in packets to and from the given ports (RFC 1035).

    The columns tell of a message's header, its first question, and of EDNS (RFC 6891), for which
    all its records are passed over, up to 512 questions and records; MANY_RECORDS tells of
    messages that have more. What the records say is not looked at. The question's name is text,
    with \DDD for what would not be read as it stands (`batch.text("dns_name")`), and a hash of it,
    to compare many at once:

        wanted = [name_hash("example.com"), name_hash("example.net")]
        batch.drop(np.isin(batch.dns_name_hash, wanted))

    The hash has no secret: who wants to can make two names of one hash. A name has 255 bytes at
    the most. The names of the bits of `dns_found` are in `xdpipe.stages.dns.FOUND`.

    Over UDP a packet is a message. Of a datagram in fragments, and of a packet in several frames,
    the first is read, and the message said to be PARTIAL; what is missing of it is not malformed.
    What contradicts itself is MALFORMED with a reason and counted; nothing is dropped. Packets that
    a capture cut short are no messages: `Headers` calls them malformed.

    Over TCP messages (RFC 7766) are read where the stage `TcpStreams` stands before it, else
    packets with data are counted as `tcp_unread`. A packet's columns tell of the first message that
    ends in it, `dns_n_messages` how many do. Where bytes were lost, the message is passed over
    (`tcp_lost`); where it is not known any more where one begins, or a stream was joined in its
    middle, nothing is read (`tcp_out_of_step`) until a piece is made up of whole messages.

    Every message is counted in `messages`, and in `queries` or `responses` if its header is whole;
    a response is counted by its code, EDNS's bits included, too.

    Args:
        ports: UDP and TCP ports of DNS, 1 to 8 of them. mDNS (5353) and LLMNR (5355) have the same
            messages, but come unasked from every neighbour, and would blur the counts of those to
            a name server; name them where they are wanted.
        n_buffers: messages over TCP in several pieces that are put together at once, 0 to 65536; 64
            KiB each. When all are in use, the message that has been under way for longest, or
            nearly so, gives way (`tcp_no_buffer`). Of each connection that TcpStreams follows
            another 32 bytes are kept.

    Raises:
        XdpipeError: ports that cannot be, or such a number of buffers.
    """

    requires: ClassVar[tuple[str, ...]] = (
        "flags", "l4", "payload", "payload_len", "l4_sport", "l4_dport",
    )  # fmt: skip
    provides: ClassVar[tuple[str, ...]] = tuple(
        column.name for column in COLUMNS.values() if column.provider == "Dns"
    )
    counters: ClassVar[tuple[str, ...]] = (
        "messages", "queries", "responses",
        "noerror", "formerr", "servfail", "nxdomain", "notimp", "refused", "other_rcode",
        "edns", "truncated", "partial", "trailing", "many_records", "no_text",
        "tcp", "tcp_unread", "tcp_no_buffer", "tcp_lost", "tcp_cut", "tcp_out_of_step",
        "malformed", *(f"malformed_{reason.lower()}" for reason in MALFORMED),
    )  # fmt: skip
    function: ClassVar[str] = "xp_stage_dns"

    def __init__(self, ports: Sequence[int] = (53,), *, n_buffers: int = 64) -> None:
        self.ports = tuple(ports) if isinstance(ports, tuple | list) else ()
        if not 1 <= len(self.ports) <= _PORTS_MAX or not all(
            isinstance(port, int) and 1 <= port <= 65535 for port in self.ports
        ):
            raise XdpipeError(f"Dns: ports={ports!r}: 1 to {_PORTS_MAX} ports, such as (53,)")
        if not (isinstance(n_buffers, int) and 0 <= n_buffers <= _BUFFERS_MAX):
            raise XdpipeError(f"Dns: n_buffers={n_buffers!r}: 0 to {_BUFFERS_MAX}")
        self._n_buffers = n_buffers
        self._n_connections = 0
        self._streams: Any = None

    def join(self, earlier: Sequence[Stage]) -> None:
        """Learn from a TcpStreams before it how many connections there may be."""
        followed = [stage.n_connections for stage in earlier if isinstance(stage, TcpStreams)]
        self._n_connections = followed[-1] if followed else 0

    def make_state(self, counters: Any) -> Any:
        """Return the state of the C function; what it points to lives as long as it does."""
        ports = (self.ports * _PORTS_MAX)[:_PORTS_MAX]
        state = ffi.new("struct xp_dns_state *", {"counters": counters, "ports": ports})
        self._streams = None
        if self._n_connections:
            directions = ffi.new("struct xp_dns_direction[]", 2 * self._n_connections)
            memory = ffi.new("uint8_t[]", lib.xp_dns_pool_bytes(self._n_buffers))
            self._streams = ffi.new("struct xp_dns_streams *", {
                "counters": counters + self.counters.index("tcp_no_buffer"),
                "directions": directions, "n_directions": 2 * self._n_connections,
                "pool": lib.xp_dns_pool_init(memory, self._n_buffers),
            })  # fmt: skip
            state.streams = self._streams
            keep_with(state, self._streams, directions, memory)
        return state

    def report(self) -> Mapping[str, Any]:
        """Return how many messages over TCP are being put together."""
        if self._streams is None:
            return {}
        return {"buffers_held": lib.xp_dns_n_held(self._streams)}


def wire_name(name: str) -> bytes:
    r"""Return a name as it stands in a message without compression (RFC 1035, 3.1).

    Args:
        name: labels with dots between them and, if one likes, behind the last one; "." is the root.
            \DDD is the byte of that decimal number, \ before anything else takes its meaning away
            (RFC 1035, 5.1). A name in another script is written as its A-labels (xn--…).

    Raises:
        XdpipeError: that is no name; the message says why.
    """
    labels, at = [bytearray()], 0
    while at < len(name):
        part = _PART.match(name, at)
        if part is None:
            raise XdpipeError(f"DNS name {name!r}: a backslash with nothing, or too little, behind")
        at = part.end()
        number, quoted, plain = part.groups()
        if plain == ".":
            labels.append(bytearray())
            continue
        code = int(number) if number else ord(quoted or plain)
        if code > (255 if number else 127):
            cure = "at most \\255" if number else "not ASCII: write its A-labels, xn--…, or \\DDD"
            raise XdpipeError(f"DNS name {name!r}: {part.group()!r} is {cure}")
        labels[-1].append(code)
    if name == ".":
        return b"\0"
    if len(labels) > 1 and not labels[-1]:
        labels.pop()
    if not all(1 <= len(label) <= _LABEL_MAX for label in labels):
        raise XdpipeError(f"DNS name {name!r}: each label has 1 to {_LABEL_MAX} bytes")
    wire = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    if len(wire) > _NAME_MAX:
        raise XdpipeError(f"DNS name {name!r}: {len(wire)} bytes; {_NAME_MAX} are the most")
    return wire


def name_hash(name: str) -> int:
    """Return what the column `dns_name_hash` holds for this name, in whatever case: a uint64.

    Args:
        name: see `wire_name`; `batch.text("dns_name")` gives names of this kind.

    Raises:
        XdpipeError: that is no name; the message says why.
    """
    wire = wire_name(name)
    return int(lib.xp_dns_name_hash(wire, len(wire)))
