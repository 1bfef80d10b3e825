"""How the steering program comes to an interface, and what follows from how it came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpipe import ethtool
from xdpipe.errors import XdpipeError
from xdpipe.inject import LONGEST, Injector
from xdpipe.steering import Guard, Steering, SteerProgram

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xdpipe.bpf import Map
    from xdpipe.link import Link
    from xdpipe.run_options import RunOptions


@dataclass(frozen=True)
class Attached:
    """The program on an interface.

    Attributes:
        link: the interface.
        program: owned by this object.
        mode: `native` or `generic`.
        hints: what the NIC tells of a packet goes along with it.
    """

    link: Link
    program: SteerProgram
    mode: str
    hints: bool

    def bind_mode(self, wanted: str) -> str:
        """Return what to ask of bind.

        A driver binds a zero-copy socket without looking whether its own XDP runs the program, but
        generic XDP cannot fill it (xsk_generic_rcv): nothing would ever be received.

        Args:
            wanted: `auto`, `zerocopy` or `copy`.

        Raises:
            XdpipeError: zero copy is wanted, and the program is attached in generic mode.
        """
        if self.mode == "native":
            return wanted
        if wanted == "zerocopy":
            raise XdpipeError(
                f"{self.link.name}: zero copy needs the program in native mode, and it is "
                "attached in generic mode; use --mode auto or copy"
            )
        return "copy"

    def injector(self, *, needed: bool) -> Injector | None:
        """Return what a worker gives packets back by; None where there is no way back.

        In generic mode there is none: packets that come back to the stack there meet the program
        once more (do_xdp_generic in net/core/dev.c), and would go round in circles.

        Raises:
            XdpipeError: there is none, and it is needed.
        """
        try:
            if self.mode != "native":
                raise XdpipeError(
                    f"{self.link.name} runs the program in generic mode, in which packets that are "
                    "given back to the kernel would meet it again"
                )
            return Injector(self.link)
        except XdpipeError as error:
            if needed:
                raise XdpipeError(f"default=PASS: {error}") from error
            return None

    def tell_limits(self, tell: Callable[[str], None], *, passes: bool, leaves: bool) -> None:
        """Tell what will not be counted, or not be given back as it came.

        Args:
            tell: told in a line each.
            passes: packets that no stage decides are given back.
            leaves: they are given back or sent.
        """
        if not self.program.redirect_errors_known:
            tell(
                "this kernel lets nobody watch failed redirects (tracepoint xdp_redirect_err): "
                "a packet lost so would show as residual"
            )
        if passes and self.link.mtu > LONGEST - 14:
            tell(
                f"{self.link.name} has an MTU of {self.link.mtu}: packets of more than some "
                f"{LONGEST} bytes cannot be given back to the kernel, and are dropped and counted; "
                f"lower it with: ip link set {self.link.name} mtu 3000"
            )
        if leaves and not self.hints and ethtool.takes_vlan_tags(self.link.name):
            tell(
                f"{self.link.name} takes VLAN tags out of packets, and what is sent or given back "
                f"goes without; switch that off with: ethtool -K {self.link.name} rxvlan off"
            )

    def close(self) -> None:
        """Detach, and free the program."""
        self.program.close()


def attach(
    link: Link,
    steering: Steering,
    options: RunOptions,
    tell: Callable[[str], None],
    *,
    multi_buffer: bool,
    wants_hints: bool,
    leaves: bool,
    set_maps: Mapping[str, Map],
) -> Attached:
    """Load the program and attach it; with what the NIC tells if that is wanted and works.

    A program that asks the NIC is bound to it, and such a one the kernel does not attach in generic
    mode (dev_xdp_attach in net/core/dev.c).

    Args:
        link: the interface.
        steering: which packets are taken.
        options: how the pipeline runs.
        tell: told in a line what cannot be had.
        multi_buffer: packets may come in several buffers.
        wants_hints: a stage wants to know what the NIC tells.
        leaves: packets that no stage decides are sent or given back, with the VLAN tags that the
            NIC took out.
        set_maps: see SteerProgram.

    Raises:
        XdpipeError: see SteerProgram.
    """

    def load(mode: str, hints_of: int) -> Attached:
        guard = Guard.present(lifelines=steering.guard) if options.guard else None
        program = SteerProgram(
            steering, guard, link.n_rx_queues, multi_buffer=multi_buffer, set_maps=set_maps,
            hints_of=hints_of,
        )  # fmt: skip
        try:
            obtained = program.attach(link.index, link.name, mode)
        except BaseException:
            program.close()
            raise
        return Attached(link, program, obtained, hints_of != 0)

    if wants_hints or (leaves and ethtool.takes_vlan_tags(link.name)):
        try:
            if options.attach == "generic":
                raise XdpipeError("the program is attached in generic mode")
            return load("native", link.index)
        except XdpipeError as error:
            if wants_hints:
                tell(f"{link.name} tells nothing of its packets (columns nic_…): {error}")
    return load(options.attach, 0)
