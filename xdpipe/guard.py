"""What the kernel keeps whatever the filter says: the operator's lifelines."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class SshPeer:
    """The other side of an SSH session that is served by this host.

    Attributes:
        address: of the client.
        server_port: on this host.
    """

    address: IPv4Address | IPv6Address
    server_port: int


@dataclass(frozen=True)
class Guard:
    """What the kernel keeps whatever the filter says, beside the kinds that bpf/steer.c lists.

    Attributes:
        ssh_peers: sessions to keep.
        lifelines: keep those kinds, and what cannot be parsed; False: the sessions alone.
    """

    ssh_peers: tuple[SshPeer, ...] = ()
    lifelines: bool = True

    @classmethod
    def present(
        cls,
        environment: Mapping[str, str] | None = None,
        ancestors: Callable[[], Iterator[Mapping[str, str]]] | None = None,
        *,
        lifelines: bool = True,
    ) -> Self:
        """Find the SSH session that we run in.

        sshd puts it into SSH_CONNECTION (ssh(1)); sudo drops that, so the processes that started us
        are asked as well.

        Args:
            environment: ours; os.environ unless given.
            ancestors: returns the environments of the processes that started us, nearest first.
            lifelines: see Guard.
        """
        found: dict[SshPeer, None] = {}
        ours = os.environ if environment is None else environment
        for variables in (ours, *(ancestors or _ancestor_environments)()):
            peer = _ssh_peer(variables.get("SSH_CONNECTION", ""))
            if peer is not None:
                found[peer] = None
        return cls(tuple(found), lifelines)


def _ssh_peer(connection: str) -> SshPeer | None:
    """Read `client-address client-port server-address server-port`."""
    words = connection.split()
    if len(words) != 4 or not words[3].isdecimal() or not 0 < int(words[3]) < 65536:
        return None
    try:
        address = ip_address(words[0].partition("%")[0])  # an address may come with its interface
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return SshPeer(mapped or address, int(words[3]))


def _ancestor_environments() -> Iterator[Mapping[str, str]]:
    """Yield the environments that our ancestors were started with, as far as we may read them."""
    pid = os.getppid()
    while pid > 0:
        try:
            entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            return
        yield dict(os.fsdecode(entry).partition("=")[::2] for entry in entries if b"=" in entry)
        # pid (comm) state ppid …; comm may hold anything (proc(5))
        pid = int(status.rpartition(")")[2].split()[1])
