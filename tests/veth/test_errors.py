"""Bad set-up: one line that names the cure, an exit code that is not 0, nothing left attached."""

import sys
from pathlib import Path

import pytest

from hosts import PIPELINES, Bench, until
from xdpipe.link import Link
from xdpipe.netns import Namespace

PLAIN = PIPELINES / "in_order.py"


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "broken.py"
    path.write_text(text)
    return str(path)


def attached(bench: Bench) -> int | None:
    return bench.host.call(lambda: Link.find("h0").xdp_program_id)


def refused(bench: Bench, *args: str, where: Namespace | None = None) -> str:
    """Return the one line that a command fails with."""
    done = bench.xdpipe(*args, where=where)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert until(lambda: attached(bench) is None, "the program is detached")
    assert not list(bench.run_dir.glob("*"))
    return lines[0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--dev", "eth9"], "xdpipe: eth9: no such interface; there are: lo, h0"),
        (["--dev", "h0", "--queues", "0-2"],
         "xdpipe: h0 queue 2: no such queue; h0 has 2 queues (0-1)"),
        (["--dev", "h0", "--cores", "0,999"], "core 999"),
        (["--dev", "h0", "--cores", "0"], "2 queues and 1 cores: name a core for each queue"),
        (["--dev", "h0", "--mode", "zerocopy"],
         "bind h0 queue 0: h0 (veth) has no zero copy; use --mode auto or copy"),
        (["--dev", "h0", "--user", "nosuchuser"], "no user 'nosuchuser'"),
        (["--dev", "h0", "--user", "root"], "user 'root': a worker is never root"),
        (["--dev", "h0", "--duration", "nan"], "nan is not a number to count with"),
        (["--dev", "h0", "--queues", "1-0"], "the range 1-0 runs backwards; write 0-1"),
        (["--dev", "h0", "--mode", "fast"], "'fast' is not one of 'auto', 'zerocopy', 'copy'"),
        ([], "xdpipe: Missing option '--dev'."),
    ],
)  # fmt: skip
def test_what_does_not_exist_is_named(bench: Bench, args: list[str], message: str) -> None:
    assert message in refused(bench, "run", str(PLAIN), *args)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import nosuchmodule\n",
            "broken.py:1: ModuleNotFoundError: No module named 'nosuchmodule'",
        ),
        ("pipeline = (\n", "broken.py:1: SyntaxError: '(' was never closed"),
        ("x = 1\n", "declares no pipeline; write: pipeline = Pipeline(…)"),
        ("\n1 / 0\n", "broken.py:2: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)\n", "broken.py:1: the file exits when imported"),
        (
            "from xdpipe import Pipeline\nfrom xdpipe.stages import SwapAddresses\n"
            "pipeline = Pipeline('udp', [SwapAddresses()])\n",
            "broken.py:3: stage SwapAddresses requires the column 'flags', which no stage before "
            "it provides: add Headers() before SwapAddresses",
        ),
        (
            "from xdpipe import Pipeline\nfrom xdpipe.stages import Headers\n"
            "pipeline = Pipeline('udp', [Headers])\n",
            "Headers is not a Stage but its class (add the parentheses)",
        ),
        ("raise KeyboardInterrupt\n", "broken.py:1: KeyboardInterrupt"),
        ("import os\nos._exit(0)\n", "ended with status 0 before it served"),
        ("from xdpipe import *\npipeline = Pipeline(5)\n", "broken.py:2: steering=5: write"),
        ("from xdpipe import *\npipeline = Pipeline(Steering(5))\n", "the filter is text"),
        (
            "from xdpipe import *\npipeline = Pipeline('udp', default=None)\n",
            "DROP, TX, PASS or FORWARD",
        ),
        (
            "from xdpipe import *\npipeline = Pipeline('udp', default=1)\n",
            "DROP, TX, PASS or FORWARD",
        ),
        (
            "import subprocess\nsubprocess.Popen(['sleep', '1'])\nfrom xdpipe import *\n"
            "pipeline = Pipeline('udp')\n",
            "the file starts processes when imported; they would stay privileged",
        ),
        (
            "from xdpipe import *\nfrom xdpipe.stages import *\n"
            "pipeline = Pipeline('udp', Headers())\n",
            "write a list of stages",
        ),
        (
            "from xdpipe import *\nfrom xdpipe.stages import *\none = Headers()\n"
            "pipeline = Pipeline('udp', [one, one])\n",
            "stage 2: the same Headers as before; make each with a call of its own",
        ),
        (
            "from xdpipe import *\nclass Odd(Stage):\n    counters = 'odd'\n"
            "    def process(self, batch): pass\npipeline = Pipeline('udp', [Odd()])\n",
            "stage Odd: counters='odd': write a tuple of different names",
        ),
        (
            "from xdpipe import *\npipeline = Pipeline(' or '.join(['port 53'] * 1000))\n",
            "has 10996 characters, and 4096 are the most",
        ),
    ],
)
def test_a_file_that_is_no_pipeline_is_told_by_file_and_line(
    bench: Bench, tmp_path: Path, text: str, message: str
) -> None:
    assert message in refused(bench, "run", write(tmp_path, text), "--dev", "h0")


def test_a_filter_with_a_syntax_error_is_told(bench: Bench, tmp_path: Path) -> None:
    file = write(tmp_path, "from xdpipe import Pipeline\npipeline = Pipeline('udp porrt 53')\n")
    line = refused(bench, "run", file, "--dev", "h0")
    assert "udp porrt 53" in line
    assert "syntax error" in line


def test_a_file_that_does_not_exist_is_told(bench: Bench) -> None:
    assert "nosuch.py: no such file" in refused(bench, "run", "nosuch.py", "--dev", "h0")


def test_an_interface_that_is_down_is_told(bench: Bench) -> None:
    bench.host.run(["ip", "link", "set", "h0", "down"])
    line = refused(bench, "run", str(PLAIN), "--dev", "h0")
    assert line == "xdpipe: h0 is down; set it up with: ip link set h0 up"


def test_a_second_pipeline_on_the_interface_is_refused(bench: Bench) -> None:
    running = bench.run(PLAIN)
    done = bench.xdpipe("run", str(PLAIN), "--dev", "h0")
    assert done.returncode == 1
    assert "the pipeline in_order runs there" in done.stderr
    assert "end it with: xdpipe down h0" in done.stderr
    assert running.end()["ledger"]["residual"] == 0


def test_without_privilege_it_says_who_may(bench: Bench) -> None:
    done = bench.host.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--", sys.executable,
         "-P", "-m", "xdpipe", "run", str(PLAIN), "--dev", "h0"],
        check=False, capture_output=True, text=True, env=bench.env,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "root" in done.stderr
    assert attached(bench) is None


def test_replay_tells_what_is_wrong(bench: Bench, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.pcap"
    nothing.write_bytes(b"")
    assert "nothing.pcap" in refused(bench, "replay", str(nothing), "--dev", "h0")
    line = refused(bench, "replay", "nosuch.pcap", "--dev", "h0")
    assert line == "xdpipe: nosuch.pcap: No such file or directory"


def test_down_where_nothing_runs_says_so(bench: Bench) -> None:
    assert refused(bench, "down", "h0") == "xdpipe: h0: no pipeline of xdpipe there"


def test_a_directory_with_too_long_a_path_is_one_clear_line(bench: Bench, tmp_path: Path) -> None:
    bench.run_dir = tmp_path / ("d" * 100)
    line = refused(bench, "run", str(PIPELINES / "pass_all.py"), "--dev", "h0")
    assert "have XDPIPE_RUN_DIR name a short path" in line
