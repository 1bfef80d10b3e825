"""The columns of a batch, for readers and type checkers; written by docs/generate.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class BatchColumns:
    """What a batch has by column; see xdpipe.batch.COLUMNS and docs/reference.md."""

    if TYPE_CHECKING:
        addr: NDArray[np.uint64]
        time_ns: NDArray[np.uint64]
        len: NDArray[np.int32]
        head_len: NDArray[np.int32]
        n_frames: NDArray[np.uint8]
        more: NDArray[np.uint32]
        verdict: NDArray[np.uint8]
        mark: NDArray[np.uint32]
        out_port: NDArray[np.uint8]
        checksum_due: NDArray[np.uint8]
        tx_time_due: NDArray[np.uint8]
        tx_tag: NDArray[np.uint64]
        nic_told: NDArray[np.uint8]
        nic_hash: NDArray[np.uint32]
        nic_time_ns: NDArray[np.uint64]
        nic_vlan_tci: NDArray[np.uint16]
        flags: NDArray[np.uint32]
        malformed: NDArray[np.uint8]
        l3: NDArray[np.int32]
        l4: NDArray[np.int32]
        payload: NDArray[np.int32]
        payload_len: NDArray[np.int32]
        eth_type: NDArray[np.uint16]
        n_vlans: NDArray[np.uint8]
        vlan_tci: NDArray[np.uint16]
        ip_version: NDArray[np.uint8]
        ip_proto: NDArray[np.uint8]
        ip_ttl: NDArray[np.uint8]
        ip_tos: NDArray[np.uint8]
        src: NDArray[np.uint8]
        dst: NDArray[np.uint8]
        l4_sport: NDArray[np.uint16]
        l4_dport: NDArray[np.uint16]
        tcp_flags: NDArray[np.uint8]
        icmp_type: NDArray[np.uint8]
        icmp_code: NDArray[np.uint8]
        flow_hash: NDArray[np.uint32]
        tcp_stream: NDArray[np.uint32]
        tcp_stream_id: NDArray[np.uint32]
        tcp_stream_dir: NDArray[np.uint8]
        tcp_stream_told: NDArray[np.uint8]
        tcp_data: NDArray[np.int32]
        tcp_data_len: NDArray[np.int32]
        tcp_pieces: NDArray[np.uint32]
        tcp_n_pieces: NDArray[np.uint16]
