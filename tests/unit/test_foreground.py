"""Being told to stop, in the foreground."""

import os
import select
import signal
import threading

import pytest

from xdpipe.foreground import STOP_SIGNALS, StopSignal


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_ends_the_wait_of_who_waits_for_other_things(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert select.select([stop], [], [], 0) == ([], [], [])
        timer = threading.Timer(0.1, os.kill, (os.getpid(), number))
        timer.start()
        assert select.select([stop], [], [], 60) == ([stop], [], [])
        assert stop.came
        timer.join()
    assert signal.getsignal(number) == before
