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
    size = len(ETH_IP_UDP) + 8 + 8 + pad
    rows = np.zeros((n_packets, 16 + size), np.uint8)
    i = np.arange(n_packets)
    flow = (i % n_flows).astype(">u4")
    header = np.zeros((n_packets, 4), "<u4")
    header[:, 0] = 1_700_000_000 + i // 1_000_000
    header[:, 1] = i % 1_000_000
    header[:, 2] = header[:, 3] = size
    rows[:, :16] = header.view(np.uint8)
    packet = rows[:, 16:]
    packet[:, :34] = np.frombuffer(ETH_IP_UDP, np.uint8)
    packet[:, 16:18] = np.frombuffer(struct.pack(">H", size - 14), np.uint8)
    packet[:, 26:28] = (10, 2)
    packet[:, 28:30] = flow.view(np.uint8).reshape(-1, 4)[:, 2:]
    packet[:, 24:26] = checksum16(packet[:, 14:34]).view(np.uint8).reshape(-1, 2)
    ports = np.stack([1024 + flow % 50_000, np.full(n_packets, dport)], axis=1).astype(">u2")
    packet[:, 34:38] = ports.view(np.uint8).reshape(-1, 4)
    packet[:, 38:40] = np.frombuffer(struct.pack(">H", size - 34), np.uint8)
    packet[:, 42:46] = flow.view(np.uint8).reshape(-1, 4)
    packet[:, 46:50] = (i // n_flows).astype(">u4").view(np.uint8).reshape(-1, 4)
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        file.write(rows.tobytes())
