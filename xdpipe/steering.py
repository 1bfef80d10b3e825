"""Which packets are taken: the filter, the guard, and the XDP program that applies them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from xdpipe import sets
from xdpipe.errors import XdpipeError
from xdpipe.guard import Guard, SshPeer
from xdpipe.resources import program_source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from xdpipe.bpf import Descriptor, Map, MapSpec
    from xdpipe.bpf_link import XdpLink
    from xdpipe.bpf_program import Program
    from xdpipe.sets import KeySet

__all__ = ["Guard", "SshPeer", "SteerCounters", "SteerProgram", "Steering"]

_TRACEPOINT = "xdp_redirect_err"


@dataclass(frozen=True)
class Steering:
    """Which packets a pipeline takes.

    Args:
        filter: in tcpdump's language (pcap-filter(7)); empty: everything.
        guard: whatever the filter says, the kernel keeps what this host's own connections live by
            (ARP, neighbour discovery, SSH and more, see bpf/steer.c), and what cannot be parsed.
            False, for what stands between two others, as a bridge does: only the SSH session that
            the pipeline is started from. With named ports the interface is promiscuous then, so
            that it receives what is addressed to those others.
        sets: sets of addresses that have a say after guard and filter, by name: DropSet, PassSet,
            TakeSet. They are looked in in this order, and the first that has a packet's address
            decides. Stages add to them (`self.sets[name].add(batch.src[mask])`), and so does
            `xdpipe set`.
    """

    filter: str = ""
    guard: bool = True
    sets: Mapping[str, KeySet] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sets.check(self.sets)
        if not isinstance(self.filter, str):
            raise XdpipeError(
                f"Steering({self.filter!r}): the filter is text, such as 'udp dst port 53'"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return it as what JSON can say."""
        declared = {name: sets.to_dict(each) for name, each in self.sets.items()}
        return {"filter": self.filter, "guard": self.guard, "sets": declared}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Make it from what `to_dict` gave."""
        declared = {name: sets.from_dict(each) for name, each in fields["sets"].items()}
        return cls(fields["filter"], fields["guard"], declared)


@dataclass(frozen=True)
class SteerCounters:
    """What the program did with the packets so far.

    seen = sum(to_kernel) + set_dropped + redirected

    Attributes:
        seen: packets.
        to_kernel: passed to the kernel, by reason.
        set_dropped: dropped, since an address was in a set of those to drop.
        redirected: handed to a socket, as the program decided.
        redirect_failed: of those, lost since the socket was not bound, or to another queue.
        redirect_dropped: of those, lost at the socket, which counts them itself (XDP_STATISTICS).
        redirect_errors_known: False where the kernel's tracepoint could not be used, so that the
            two above are 0 for want of knowledge.
    """

    seen: int
    to_kernel: dict[str, int]
    set_dropped: int
    redirected: int
    redirect_failed: int
    redirect_dropped: int
    redirect_errors_known: bool


_KFUNCS = {
    "bpf_xdp_metadata_rx_hash": "XP_KFUNC_HASH",
    "bpf_xdp_metadata_rx_timestamp": "XP_KFUNC_TIME",
    "bpf_xdp_metadata_rx_vlan_tag": "XP_KFUNC_VLAN",
}
"""Functions of the kernel that tell what a NIC knows, and what bpf/steer.c calls them."""
_FIRST_KFUNC = 1 << 28
"""Calls of helpers from this number on, which there are not, become calls of those."""


class SteerProgram:
    """The XDP program with its maps and its link, all owned; a context manager.

    Args:
        steering: which packets are taken.
        guard: what the kernel keeps nevertheless; None: the filter alone decides.
        n_queues: of the interface.
        multi_buffer: packets may come in several buffers (XDP_HAS_FRAGS, Linux 5.18).
        set_maps: the maps of the steering's sets, by the sets' names; another program may have the
            same. Not owned.
        hints_of: number of the interface whose hints (bpf/hints.h) go along with each packet; the
            program can then be attached to that one only, and in native mode. 0: none.

    Attributes:
        redirect_errors_known: see SteerCounters.

    Raises:
        FilterError: the filter is none.
        XdpipeError: the program cannot be compiled or loaded; privilege or a package is missing.
    """

    def __init__(
        self,
        steering: Steering,
        guard: Guard | None,
        n_queues: int,
        *,
        multi_buffer: bool = False,
        set_maps: Mapping[str, Map] | None = None,
        hints_of: int = 0,
    ) -> None:
        # libpcap, bcc and pyroute2 are slow to import, and a worker needs none of them.
        from xdpipe.bpf import BpfError
        from xdpipe.bpf_cache import compiled
        from xdpipe.bpf_module import Module
        from xdpipe.bpf_program import (
            PROG_TYPE_RAW_TRACEPOINT,
            XDP_DEV_BOUND_ONLY,
            XDP_HAS_FRAGS,
            open_raw_tracepoint,
        )
        from xdpipe.btf import function_ids

        self._n_queues = n_queues
        self._link: XdpLink | None = None
        self._owned: list[Descriptor] = []
        self.redirect_errors_known = False
        path = Path(program_source("steer.c"))
        kfuncs = function_ids(_KFUNCS) if hints_of else {}
        prologue = _prologue(
            steering, guard, n_queues, multi_buffer=multi_buffer, hints=bool(hints_of),
            kfuncs=kfuncs,
        )  # fmt: skip
        flags = XDP_HAS_FRAGS if multi_buffer else 0
        flags |= XDP_DEV_BOUND_ONLY if hints_of else 0
        try:
            given = {
                set_map_name(number): (set_maps or {})[name]
                for number, name in enumerate(steering.sets)
            }
            with Module(compiled(prologue + path.read_text(), path.parent), given) as module:

                def take_map(name: str) -> Map:
                    self._owned.append(taken := module.map(name))
                    return taken

                self._xsks_map = take_map("xsks_map")
                self._counters = take_map("steer_counters")
                self._errors = take_map("redirect_errors")
                self._fields = module.fields("steer_counters")
                self._set_names = tuple(steering.sets)
                if steering.sets:
                    self._set_hits = take_map("set_hits")
                self._program: Program = module.load(
                    "steer", flags=flags, ifindex=hints_of,
                    kfuncs={_FIRST_KFUNC + number: number for number in kfuncs.values()},
                )  # fmt: skip
                self._owned.append(self._program)
                with module.map("redirect_map_id") as map_id:
                    map_id.update(0, struct.pack("=I", self._xsks_map.id))
                try:
                    with module.load(
                        "count_redirect_errors", name="redirect_errors",
                        prog_type=PROG_TYPE_RAW_TRACEPOINT,
                    ) as program:  # fmt: skip
                        self._owned.append(open_raw_tracepoint(_TRACEPOINT, program))
                    self.redirect_errors_known = True
                except BpfError:
                    pass
        except BaseException:
            self.close()
            raise

    def attach(self, ifindex: int, ifname: str, mode: str = "auto") -> str:
        """Attach to an interface of the calling thread's network namespace.

        Returns:
            The mode obtained, `native` or `generic`.

        Raises:
            XdpipeError: see XdpLink.
        """
        from xdpipe.bpf_link import XdpLink

        self._link = XdpLink(self._program, ifindex, ifname, mode)
        return self._link.mode

    def take(self, queue: int, xsk_fd: int) -> None:
        """Hand the packets of a queue to a socket from now on."""
        self._check(queue)
        self._xsks_map.update(queue, struct.pack("=I", xsk_fd))

    def release(self, queue: int) -> None:
        """Leave the packets of a queue to the kernel from now on."""
        self._check(queue)
        self._xsks_map.delete(queue)

    def _check(self, queue: int) -> None:
        if not 0 <= queue < self._n_queues:
            raise XdpipeError(f"queue {queue}: the program has {self._n_queues}, from 0")

    def counters(self) -> SteerCounters:
        """Read the counters, summed over CPUs (and queues). They may move while being read."""
        counts = dict(zip(self._fields, self._sum(self._counters, 0), strict=True))
        failed = dropped = 0
        for queue in range(self._n_queues if self.redirect_errors_known else 0):
            more_failed, more_dropped = self._sum(self._errors, queue)
            failed += more_failed
            dropped += more_dropped
        return SteerCounters(
            seen=counts.pop("seen"),
            redirected=counts.pop("redirected"),
            set_dropped=counts.pop("set_dropped"),
            to_kernel=counts,
            redirect_failed=failed,
            redirect_dropped=dropped,
            redirect_errors_known=self.redirect_errors_known,
        )

    def set_hits(self) -> dict[str, int]:
        """Return how many packets each set decided about, by its name."""
        return {
            name: self._sum(self._set_hits, number)[0]
            for number, name in enumerate(self._set_names)
        }

    def _sum(self, of: Map, key: int) -> list[int]:
        rows = [struct.unpack(f"={len(row) // 8}Q", row) for row in of.lookup_per_cpu(key)]
        return [sum(column) for column in zip(*rows, strict=True)]

    def run(self, packet: bytes, queue: int = 0, ifindex: int = 0) -> int:
        """Have the kernel run the program on a packet (BPF_PROG_TEST_RUN).

        It counts like any other, and goes nowhere. It has 14 bytes or more; of longer ones the
        program sees 3520.

        Args:
            packet: an Ethernet frame.
            queue: that it came by; other than 0 needs an interface.
            ifindex: of the interface that it came by; 0: none in particular.

        Returns:
            The XDP action: XDP_PASS 2, XDP_REDIRECT 4.
        """
        return self._program.test_run(packet, queue=queue, ingress_ifindex=ifindex).action

    def detach(self) -> None:
        """Detach from the interface; no packet meets the program any more."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def close(self) -> None:
        """Detach, and free the program and its maps. May be called twice."""
        self.detach()
        while self._owned:
            self._owned.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _prologue(
    steering: Steering,
    guard: Guard | None,
    n_queues: int,
    *,
    multi_buffer: bool,
    hints: bool,
    kfuncs: Mapping[str, int],
) -> str:
    """Return the C that stands before bpf/steer.c; it is described there."""
    from xdpipe.filter import Filter

    lines = ['#include "load.h"', Filter(steering.filter).to_c(), f"#define XP_N_QUEUES {n_queues}"]
    if guard is not None and (guard.lifelines or guard.ssh_peers):
        peers: dict[int, list[str]] = {4: [], 6: []}
        for peer in guard.ssh_peers:
            packed = peer.address.packed
            words = [f"{word:#x}u" for word in struct.unpack(f"!{len(packed) // 4}I", packed)]
            peers[peer.address.version].append(f"X({', '.join(words)}, {peer.server_port})")
        lines += [
            "#define XP_GUARD",
            f"#define XP_LIFELINES {int(guard.lifelines)}",
            f"#define XP_SSH_PEERS4(X) {' '.join(peers[4])}",
            f"#define XP_SSH_PEERS6(X) {' '.join(peers[6])}",
        ]
    if steering.sets:
        lines += _sets_to_c(list(steering.sets.values()))
    if multi_buffer:
        lines.append("#define XP_FRAGS")
    if hints:
        lines.append("#define XP_HINTS")
        lines += [
            f"#define {_KFUNCS[name]} {_FIRST_KFUNC + number}" for name, number in kfuncs.items()
        ]
    return "\n".join(lines) + "\n"


def set_map_name(number: int) -> str:
    """Return what the map of a steering's set of that number is called in C."""
    return f"set_{number}"


def set_map_spec(number: int, declared: KeySet) -> MapSpec:
    """Return how the map of a set is made, as C declares it."""
    from xdpipe.bpf import BPF_F_NO_PREALLOC, MAP_TYPE_HASH, MAP_TYPE_LPM_TRIE, MapSpec

    kind, key_size = (MAP_TYPE_LPM_TRIE, 20) if declared.prefixes else (MAP_TYPE_HASH, 16)
    name = set_map_name(number)
    return MapSpec(name, kind, key_size, 8, declared.capacity, BPF_F_NO_PREALLOC, ())


def _sets_to_c(declared: list[KeySet]) -> list[str]:
    """Return the maps of sets and the function that looks in them; see bpf/sets.h."""
    lines = ['#include "sets.h"', "#define XP_SETS"]
    look = []
    for number, each in enumerate(declared):
        name = set_map_name(number)
        map_type, key = ("lpm_trie", "prefix") if each.prefixes else ("hash", "address")
        at = f"&found.{each.match}" + ("" if each.prefixes else ".address")
        lines.append(
            f'BPF_F_TABLE("{map_type}", struct xp_{key}, u64, {name}, {each.capacity}, 1);'
        )
        says = f"return XP_SET_{each.kind.upper()};"
        wanted = "matched"
        if each.kind == "take":
            says, wanted = "matched = XP_SET_TAKEN;", "!matched"
        look += [
            f"\tif ({wanted}) {{",
            f"\t\tu64 *until = {name}.lookup({at});",
            f"\t\tint number = {number};",
            "\t\tif (until && (!*until || bpf_ktime_get_ns() < *until)) {",
            "\t\t\tu64 *hits = set_hits.lookup(&number);",
            "\t\t\tif (hits)",
            "\t\t\t\t(*hits)++;",
            f"\t\t\t{says}",
            "\t\t}",
            "\t}",
        ]
    lines += [
        f"BPF_PERCPU_ARRAY(set_hits, u64, {len(declared)});",
        "static __always_inline int xp_look_in_sets(void *data, void *data_end, int matched)",
        "{",
        "\tstruct xp_addresses found = {};",
        "\tif (xp_find_addresses(data, data_end, &found))",
        "\t\treturn matched;",
        *look,
        "\treturn matched;",
        "}",
    ]
    return lines
