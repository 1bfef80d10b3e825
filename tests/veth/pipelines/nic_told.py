"""Count what the NIC tells of UDP packets to port 9, and hold it against what the sender meant."""

from xdpipe import DROP, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers

HASH, TIME, VLAN = 1, 2, 4


class NicTold(Stage):
    requires = ("nic_told", "nic_hash", "nic_time_ns", "nic_vlan_tci", "l4_sport", "n_vlans")
    counters = ("packets", "hash", "one_hash_a_flow", "time", "vlan", "vlan_5", "untold_is_0")

    def __init__(self) -> None:
        self.hash_of: dict[int, int] = {}

    def process(self, batch: Batch) -> None:
        told = batch.nic_told
        self.count("packets", len(batch))
        self.count("hash", int((told & HASH > 0).sum()))
        self.count("time", int((told & TIME > 0).sum()))
        self.count("vlan", int((told & VLAN > 0).sum()))
        tagged = (told & VLAN > 0) & (batch.n_vlans == 0) & (batch.nic_vlan_tci & 0xFFF == 5)
        self.count("vlan_5", int(tagged.sum()))
        nothing = (batch.nic_vlan_tci == 0) | (told & VLAN > 0)
        nothing &= (batch.nic_time_ns == 0) | (told & TIME > 0)
        self.count("untold_is_0", int(nothing.sum()))
        flows = zip(batch.l4_sport.tolist(), batch.nic_hash.tolist(), strict=True)
        for port, value in flows:  # noqa: XP201 - there are few
            first = self.hash_of.setdefault(port, value)  # noqa: XP302
            self.count("one_hash_a_flow", int(first == value))


pipeline = Pipeline(Steering("udp dst port 9"), [Headers(), NicTold()], default=DROP)
