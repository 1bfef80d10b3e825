"""Steering and guard as values: what travels, and how the present SSH session is found."""

import json
from collections.abc import Iterator, Mapping
from ipaddress import ip_address

import pytest

from xdpipe.steering import Guard, SshPeer, Steering

PEER = SshPeer(ip_address("198.51.100.7"), 2222)


def none() -> Iterator[Mapping[str, str]]:
    return iter(())


def test_steering_travels_as_json() -> None:
    steering = Steering("udp dst port 53")
    assert Steering.from_dict(json.loads(json.dumps(steering.to_dict()))) == steering


@pytest.mark.parametrize(
    ("connection", "peers"),
    [
        ("198.51.100.7 50000 192.0.2.1 2222", [("198.51.100.7", 2222)]),
        ("2001:db8::7 50000 2001:db8::1 22", [("2001:db8::7", 22)]),
        ("fe80::7%eth0 50000 fe80::1%eth0 22", [("fe80::7", 22)]),
        ("::ffff:198.51.100.7 50000 ::ffff:192.0.2.1 22", [("198.51.100.7", 22)]),
        ("", []),
        ("UNKNOWN 65535 UNKNOWN 65535", []),
        ("198.51.100.7 50000 192.0.2.1", []),
        ("198.51.100.7 50000 192.0.2.1 ssh", []),
        ("198.51.100.7 50000 192.0.2.1 0", []),
        ("198.51.100.7 50000 192.0.2.1 65536", []),
    ],
)
def test_ssh_connection_is_read(connection: str, peers: list[tuple[str, int]]) -> None:
    guard = Guard.present({"SSH_CONNECTION": connection}, none)
    assert guard.ssh_peers == tuple(SshPeer(ip_address(address), port) for address, port in peers)


def test_session_is_found_in_an_ancestor_when_sudo_dropped_it() -> None:
    def ancestors() -> Iterator[Mapping[str, str]]:
        yield {"SUDO_USER": "ada"}
        yield {"SSH_CONNECTION": "198.51.100.7 50000 192.0.2.1 2222"}
        yield {"PATH": "/bin"}

    assert Guard.present({}, ancestors).ssh_peers == (PEER,)


def test_session_that_is_found_twice_is_kept_once_and_another_beside_it() -> None:
    ours = {"SSH_CONNECTION": "198.51.100.7 50000 192.0.2.1 2222"}

    def ancestors() -> Iterator[Mapping[str, str]]:
        yield ours
        yield {"SSH_CONNECTION": "203.0.113.9 50000 192.0.2.1 2222"}

    guard = Guard.present(ours, ancestors)
    assert guard.ssh_peers == (PEER, SshPeer(ip_address("203.0.113.9"), 2222))


def test_real_ancestors_can_be_read() -> None:
    assert Guard.present({}).ssh_peers == Guard.present({}).ssh_peers
