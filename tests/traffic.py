"""Captures made for tests: many flows, each packet numbered within its flow."""

import struct
from pathlib import Path

import numpy as np

ETH_IP_UDP = bytes.fromhex("020000000001 020000000002 0800") + bytes.fromhex(
    "4500 0000 0000 4000 40 11 0000 0a010002 0a010001".replace(" ", "")
)


def checksum16(data: np.ndarray) -> np.ndarray:
    """Return the Internet checksum of each row (RFC 1071)."""
    total = data.reshape(len(data), -1, 2).astype(np.uint32)
    words = (total[:, :, 0] << 8 | total[:, :, 1]).sum(axis=1)
    words = (words & 0xFFFF) + (words >> 16)
    words = (words & 0xFFFF) + (words >> 16)
    return (~words & 0xFFFF).astype(">u2")


def numbered_flows(path: Path, n_packets: int, n_flows: int, dport: int, pad: int = 18) -> None:
    """Write a pcap: packet i belongs to flow i % n_flows; payload: flow u32, number u32, zeros.

    A flow is a source address in 10.2.0.0/16 and a source port; UDP checksums are 0 (none).
    """
    i = np.arange(n_packets)
    flow = i % n_flows
    sources = 10 << 24 | 2 << 16 | flow & 0xFFFF
    payload = np.zeros((n_packets, 8 + pad), np.uint8)
    payload[:, :4] = flow.astype(">u4").view(np.uint8).reshape(-1, 4)
    payload[:, 4:8] = (i // n_flows).astype(">u4").view(np.uint8).reshape(-1, 4)
    write_udp(path, sources, 1024 + flow % 50_000, dport, payload)


def flood(
    path: Path, n_packets: int, n_steady: int, share: float, dport: int, payload: bytes = bytes(18)
) -> None:
    """Write a pcap of packets from sources that stay and from ones that are made up.

    Args:
        path: of the pcap.
        n_packets: how many.
        n_steady: sources that stay, in 10.3.0.0/16.
        share: of the packets that are theirs, 0 to 1.
        dport: that all go to.
        payload: of each.
    """
    rng = np.random.default_rng(1)
    steady = 10 << 24 | 3 << 16 | rng.integers(1, n_steady + 1, n_packets)
    made_up = rng.integers(11 << 24, 200 << 24, n_packets)
    sources = np.where(rng.random(n_packets) < share, steady, made_up)
    ports = rng.integers(1024, 65536, n_packets)
    same = np.tile(np.frombuffer(payload, np.uint8), (n_packets, 1))
    write_udp(path, sources, ports, dport, same)


def write_udp(
    path: Path, sources: np.ndarray, sports: np.ndarray, dport: int, payload: np.ndarray
) -> None:
    """Write a pcap of IPv4 packets to 10.1.0.1, a microsecond apart; UDP checksums are 0 (none).

    Args:
        path: of the pcap.
        sources: their addresses, as numbers.
        sports: their source ports.
        dport: their destination port.
        payload: uint8[n, size].
    """
    n_packets, n_payload = payload.shape
    size = len(ETH_IP_UDP) + 8 + n_payload
    rows = np.zeros((n_packets, 16 + size), np.uint8)
    i = np.arange(n_packets)
    header = np.zeros((n_packets, 4), "<u4")
    header[:, 0] = 1_700_000_000 + i // 1_000_000
    header[:, 1] = i % 1_000_000
    header[:, 2] = header[:, 3] = size
    rows[:, :16] = header.view(np.uint8)
    packet = rows[:, 16:]
    packet[:, :34] = np.frombuffer(ETH_IP_UDP, np.uint8)
    packet[:, 16:18] = np.frombuffer(struct.pack(">H", size - 14), np.uint8)
    packet[:, 26:30] = sources.astype(">u4").view(np.uint8).reshape(-1, 4)
    packet[:, 24:26] = checksum16(packet[:, 14:34]).view(np.uint8).reshape(-1, 2)
    ports = np.stack([sports, np.full(n_packets, dport)], axis=1).astype(">u2")
    packet[:, 34:38] = ports.view(np.uint8).reshape(-1, 4)
    packet[:, 38:40] = np.frombuffer(struct.pack(">H", size - 34), np.uint8)
    packet[:, 42:] = payload
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        file.write(rows.tobytes())
