"""A VLAN switch in user space, as root: a TAP device `t0` in front, `c0` with 802.1Q tags behind.

The kernel under test may have no 802.1Q of its own. Run in the client's namespace:
    vlan_switch.py TAG ADDRESS/LEN…    (prints `ready`; ends with its standard input)
"""

import fcntl
import select
import socket
import struct
import subprocess
import sys

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
ETH_P_ALL = 0x0003
# linux/if_packet.h: the kernel takes the tag out of a received frame and tells it beside
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 1 << 4


def main(tag: int, addresses: list[str]) -> None:
    tap = open("/dev/net/tun", "r+b", buffering=0)  # noqa: SIM115
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"t0", IFF_TAP | IFF_NO_PI))
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    wire.bind(("c0", 0))
    run = lambda *argv: subprocess.run(["ip", *argv], check=True)  # noqa: E731
    run("link", "set", "t0", "address", "02:00:00:00:00:02", "up")
    for address in addresses:
        run("address", "add", address, "dev", "t0", *(["nodad"] if ":" in address else []))
    for peer in ("10.7.0.1", "fd07::1"):  # nobody answers ARP behind the tag
        run("neighbour", "add", peer, "lladdr", "02:00:00:00:00:01", "dev", "t0")
    print("ready", flush=True)
    header = struct.pack(">HH", 0x8100, tag)
    while True:
        readable, _, _ = select.select([tap, wire, sys.stdin], [], [])
        if sys.stdin in readable:
            return
        if tap in readable:
            frame = tap.read(65535)
            wire.send(frame[:12] + header + frame[12:])
        if wire in readable:
            frame, beside, _, sender = wire.recvmsg(65535, socket.CMSG_SPACE(20))
            status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", beside[0][2])
            tagged = status & TP_STATUS_VLAN_VALID and (tpid, tci) == (0x8100, tag)
            if tagged and sender[2] != socket.PACKET_OUTGOING:
                tap.write(frame)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
