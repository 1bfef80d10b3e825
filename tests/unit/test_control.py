"""Messages between our processes: what is said last is heard, too."""

import pytest

from xdpipe.control import Control, ControlClosed


def test_what_was_said_before_the_end_is_heard_though_not_all_of_ours_was_read() -> None:
    ours, sock = Control.pair()
    theirs = Control(sock)
    ours.send("record", 1)
    ours.send("record", 2)
    theirs.send("error", "no such directory")
    theirs.close()  # with two messages unread
    assert ours.receive_plain(1) == ("error", "no such directory")
    with pytest.raises(ControlClosed, match="closed by the other side"):
        ours.receive_plain(1)
    ours.close()
