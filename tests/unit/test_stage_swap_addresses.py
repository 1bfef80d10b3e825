"""SwapAddresses: packets go back to where they came from, and the columns say so."""

import numpy as np
import pytest
from made_packets import KINDS, MALFORMED, WAS, partial
from scapy.compat import raw

from rewritten import bytes_of, check_columns, counts, parsed
from xdpipe.core._core import lib
from xdpipe.errors import XdpipeError
from xdpipe.stages import Headers, SwapAddresses

BACK = {
    "eth_src": WAS["eth_dst"], "eth_dst": WAS["eth_src"], "src4": WAS["dst4"], "dst4": WAS["src4"],
    "src6": WAS["dst6"], "dst6": WAS["src6"], "sport": WAS["dport"], "dport": WAS["sport"],
}  # fmt: skip


def test_it_is_as_if_the_packet_had_been_made_so() -> None:
    """With source routes and home addresses as well, of which a checksum covers others."""
    kinds = [kind for kind in KINDS if kind != "ARP"]
    batch = parsed(raw(KINDS[kind](WAS)) for kind in kinds)
    hashes = batch.flow_hash.tolist()
    stage = SwapAddresses()
    stage.process(batch)
    for kind, packet in zip(kinds, bytes_of(batch), strict=True):
        assert packet == raw(KINDS[kind](BACK)), kind
    check_columns(batch)
    assert batch.flow_hash.tolist() == hashes
    assert counts(stage) == {"swapped": len(kinds), "left_alone": 0}
    stage.process(batch)
    assert bytes_of(batch) == [raw(KINDS[kind](WAS)) for kind in kinds]


def test_what_is_malformed_or_no_ip_is_left_alone() -> None:
    packets = [*MALFORMED.values(), raw(KINDS["ARP"](WAS))]
    batch = parsed(packets)
    stage = SwapAddresses()
    stage.process(batch)
    assert bytes_of(batch) == packets
    assert counts(stage) == {"swapped": 0, "left_alone": len(packets)}


def test_only_undecided_packets_with_the_mark() -> None:
    packets = [raw(KINDS["IPv4 UDP"](WAS))] * 3
    batch = parsed(packets)
    batch.drop(np.array([True, False, False]))
    batch.mark[:] = [5, 5, 0]
    SwapAddresses(only=5).process(batch)
    assert [packet != packets[0] for packet in bytes_of(batch)] == [False, True, False]
    with pytest.raises(XdpipeError, match="SwapAddresses: only='5': a mark"):
        SwapAddresses(only="5")  # type: ignore[arg-type]


def test_a_checksum_that_the_link_was_to_fill_in_is_right_as_the_packet_leaves() -> None:
    kinds = ["IPv4 TCP", "IPv4 UDP", "IPv6 TCP", "IPv6 UDP"]
    batch = parsed((partial(KINDS[kind](WAS)) for kind in kinds), partial=True)
    SwapAddresses().process(batch)
    assert bytes_of(batch) == [partial(KINDS[kind](BACK)) for kind in kinds]
    Headers().process(batch)  # once more: it is due all the same
    assert batch.checksum_due.all()
    lib.xp_fill_checksums(batch.c)
    assert bytes_of(batch) == [raw(KINDS[kind](BACK)) for kind in kinds]
