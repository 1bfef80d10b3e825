"""A user's function that changes packets: loaded from its file, and called for many packets."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpipe.user_file import import_file, reason, where

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NAME = "edit"
_LONGEST = 262144
"""Bytes; libpcap reads no longer packets."""
_NOT_BESIDE = ("site-packages", "dist-packages")


class Given(NamedTuple):
    """A packet of a capture.

    Attributes:
        number: its place in the capture, from 1.
        time_ns: nanoseconds since 1970.
        wire_len: its bytes on the wire.
        data: those of them that are there.
    """

    number: int
    time_ns: int
    wire_len: int
    data: bytes


class Made(NamedTuple):
    """What became of packets.

    Attributes:
        packets: time (ns), bytes on the wire, bytes; in order.
        n_removed: packets for which nothing came.
        n_added: packets that came beyond one for each.
        modules: of modules beside the file that are imported, the digest by path.
    """

    packets: list[tuple[int, int, bytes]]
    n_removed: int
    n_added: int
    modules: dict[str, str]


class EditError(Exception):
    """The user's file, or its function, failed; one line that begins with file and line."""


class EditFunction:
    """The function `edit` of a Python file: from a packet of scapy's to one, several, or None.

    Args:
        path: of the file, resolved.

    Raises:
        EditError: it does not import, or has no such function.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            module = import_file(path, f"_edit_{path.stem}")
        except (Exception, SystemExit) as error:  # whatever a user's file raises
            raise EditError(self._told(error)) from error
        function = getattr(module, _NAME, None)
        if not callable(function):
            raise EditError(f"{path}: has no function {_NAME}; write: def {_NAME}(packet): …")
        self._function: Callable[[Any], Any] = function
        self._modules: dict[str, str] = {}
        self._n_modules = 0
        from scapy.layers import all as _  # noqa: F401 - every protocol that scapy loads by itself
        from scapy.layers.l2 import Ether
        from scapy.packet import Packet, Raw
        from scapy.utils import EDecimal

        self._decimal = EDecimal
        self._ether, self._raw, self._packet = Ether, Raw, Packet

    def __call__(self, packets: Sequence[Given]) -> Made:
        """Call it for each packet.

        Raises:
            EditError: it raised, or returned something else; the message names the packet.
        """
        made: list[tuple[int, int, bytes]] = []
        n_removed = n_added = 0
        for given in packets:
            try:
                results = self._edit(given)
            except EditError as error:
                raise EditError(f"{error} (packet {given.number})") from error
            except (Exception, SystemExit) as error:  # whatever a user's function raises
                raise EditError(f"{self._told(error)} (packet {given.number})") from error
            n_removed += not results
            n_added += max(len(results) - 1, 0)
            made.extend((given.time_ns, wire_len, data) for wire_len, data in results)
        return Made(made, n_removed, n_added, self._beside())

    def _edit(self, given: Given) -> list[tuple[int, bytes]]:
        """Return what becomes of a packet: bytes on the wire, and bytes."""
        packet = self._parse(given)
        before = bytes(packet)
        result = self._function(packet)
        if result is None:
            return []
        made = []
        for each in result if isinstance(result, list | tuple) else (result,):
            if not isinstance(each, self._packet):
                raise EditError(
                    f"{self._path}: {_NAME} returned {type(each).__name__}: a packet of scapy's, a "
                    "list of them, or None"
                )
            data = bytes(each)
            if len(data) > _LONGEST:
                raise EditError(
                    f"{self._path}: {_NAME} returned {len(data)} bytes; {_LONGEST} are the most"
                )
            # What scapy does not build as it was, and nobody changed, stays as it was.
            made.append((given.wire_len, given.data) if data == before else (len(data), data))
        return made

    def _parse(self, given: Given) -> Any:
        try:
            packet = self._ether(given.data) if given.data else self._raw()
        except Exception:  # scapy's, of what is too short for an Ethernet header
            packet = self._raw(given.data)
        packet.time = self._decimal(given.time_ns) / 1_000_000_000
        packet.wirelen = given.wire_len
        return packet

    def _told(self, error: BaseException) -> str:
        """Return an error as one line, with the place in the user's file that it came from."""
        return f"{where(error, self._path)}: {reason(error)}"

    def _beside(self) -> dict[str, str]:
        """Return the digests of modules that lie beside the file or below, and are imported."""
        if len(sys.modules) != self._n_modules:
            self._n_modules = len(sys.modules)
            for module in list(sys.modules.values()):
                path = Path(getattr(module, "__file__", None) or "/")
                if (
                    path.is_relative_to(self._path.parent)
                    and path != self._path
                    and str(path) not in self._modules
                    and not set(_NOT_BESIDE) & set(path.parts)
                ):
                    self._modules[str(path)] = digest(path)
        return self._modules


def digest(path: Path) -> str:
    """Return the SHA-256 of a file; "" where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
