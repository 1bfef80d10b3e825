"""bpf(2) and bcc: what is told when something is missing or refused."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from xdpipe import bpf_compile
from xdpipe.bpf import BpfError, Map, n_possible_cpus
from xdpipe.bpf_compile import CompileError, compile_source
from xdpipe.bpf_module import Module
from xdpipe.bpf_program import (
    XDP_HAS_FRAGS,
    Program,
    open_raw_tracepoint,
    program_by_id,
    program_info,
)
from xdpipe.errors import XdpipeError
from xdpipe.steering import Steering, SteerProgram

ROOT = Path(__file__).resolve().parents[2]
EXIT = struct.pack("=BBhi", 0x95, 0, 0, 0)
PASS_ALL = struct.pack("=BBhi", 0xB7, 0, 0, 2) + EXIT

COUNT_AND_PASS = """
struct numbers { u64 runs; u64 bytes; };
BPF_PERCPU_ARRAY(per_cpu, struct numbers, 2);
BPF_ARRAY(words, u32, 3);
int count(struct xdp_md *ctx)
{
    int one = 1;
    struct numbers *numbers = per_cpu.lookup(&one);
    if (numbers) {
        numbers->runs++;
        numbers->bytes += ctx->data_end - ctx->data;
    }
    return XDP_PASS;
}
"""


def test_verifier_that_refuses_is_quoted() -> None:
    said = r"verifier says: .*R0 (!read_ok|on every path)"  # that of Linux 7.3 advises
    with pytest.raises(BpfError, match=rf'load program "bad": .*{said}') as e:
        Program.load(EXIT, "bad")
    assert "\n" not in str(e.value)


def test_program_that_does_not_compile_says_where_and_nothing_on_stderr(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(CompileError, match=r"error: use of undeclared identifier 'y'") as e:
        compile_source("int x(struct xdp_md *ctx) { return y; }", ROOT)
    assert "\n" not in str(e.value)
    assert capfd.readouterr() == ("", "")


def test_module_gives_programs_and_maps_that_outlive_it(capfd: pytest.CaptureFixture[str]) -> None:
    with Module(compile_source(COUNT_AND_PASS, ROOT)) as module:
        program, per_cpu = module.load("count", name="other_name"), module.map("per_cpu")
        words = module.map("words")
        assert module.fields("per_cpu") == ("runs", "bytes")
        with pytest.raises(XdpipeError, match="no map nothing in the program"):
            module.map("nothing")
    assert capfd.readouterr() == ("", "")
    with program, per_cpu, words:
        result = program.test_run(bytes(60), repeat=3)
        assert (result.action, result.data) == (2, bytes(60))
        rows = [struct.unpack("=2Q", row) for row in per_cpu.lookup_per_cpu(1)]
        assert len(rows) == n_possible_cpus()
        assert tuple(map(sum, zip(*rows, strict=True))) == (3, 180)
        words.update(2, struct.pack("=I", 0xDEADBEEF))
        assert [words.lookup(key) for key in range(3)] == [bytes(4), bytes(4), b"\xef\xbe\xad\xde"]
        with pytest.raises(BpfError, match="read map entry 3: No such file"):
            words.lookup(3)


def test_program_carries_name_and_flags() -> None:
    with Program.load(PASS_ALL, "fifteen_bytes_x", flags=XDP_HAS_FRAGS) as program:
        info = program_info(program)
        assert info.name == "fifteen_bytes_x"
        assert program_by_id(info.id) == info
        assert program.test_run(bytes(9000)).action == 2
    with pytest.raises(BpfError):
        program_by_id(info.id)


SEEN_LENGTH = "int seen_length(struct xdp_md *ctx) { return ctx->data_end - ctx->data; }"


@pytest.mark.skipif(os.sysconf("SC_PAGESIZE") != 4096, reason="pages are not of 4096 bytes")
def test_test_run_shows_at_most_3520_bytes_of_a_packet_and_takes_none_below_14() -> None:
    with Module(compile_source(SEEN_LENGTH, ROOT)) as module, module.load("seen_length") as program:
        lengths = {n: program.test_run(bytes(n)).action for n in (14, 1514, 3520, 3521, 9000)}
        assert lengths == {14: 14, 1514: 1514, 3520: 3520, 3521: 3520, 9000: 3520}
        with pytest.raises(BpfError, match="run a program on a packet of 13 bytes: Invalid"):
            program.test_run(bytes(13))


def test_tracepoint_that_is_missing_is_an_error_by_itself_and_none_for_steering(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("xdpipe.steering._TRACEPOINT", "no_such_tracepoint")
    with SteerProgram(Steering(""), None, 1) as program:
        assert not program.redirect_errors_known
        counters = program.counters()
    assert not counters.redirect_errors_known
    assert (counters.redirect_failed, counters.redirect_dropped) == (0, 0)
    with (
        Program.load(PASS_ALL, "raw", prog_type=17) as raw,
        pytest.raises(BpfError, match="attach to the tracepoint no_such_tracepoint: No such file"),
    ):
        open_raw_tracepoint("no_such_tracepoint", raw)


def test_closing_twice_does_no_harm() -> None:
    program = Program.load(PASS_ALL, "twice")
    fd = program.fd
    program.close()
    with open("/dev/null") as other:
        assert other.fileno() == fd  # what a second close of the same number would hit
        program.close()
        assert other.read() == ""


def test_pypi_bcc_is_told_from_the_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pypi = ModuleType("bcc")
    pypi.__file__ = "/venv/bcc/__init__.py"
    monkeypatch.setitem(sys.modules, "bcc", pypi)
    with pytest.raises(XdpipeError, match=r"PyPI's unrelated package `bcc`; pip uninstall bcc"):
        bpf_compile.import_bcc()


def test_missing_bcc_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcc", None)
    with pytest.raises(XdpipeError, match="apt-get install python3-bpfcc"):
        compile_source(COUNT_AND_PASS, ROOT)


def test_missing_headers_name_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bpf_compile, "INCLUDE", tmp_path)
    with pytest.raises(XdpipeError, match="apt-get install linux-libc-dev"):
        compile_source(COUNT_AND_PASS, ROOT)


def test_kernel_tree_is_gone_after_use() -> None:
    with bpf_compile.kernel_tree() as (tree, _):
        assert (tree / "include/uapi/linux/bpf.h").read_text() == ""
        assert (tree / "rest/uapi/linux/if_ether.h").is_file()
    assert not tree.exists()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv: install util-linux")
def test_missing_privilege_is_one_line_with_the_cure() -> None:
    code = (
        "from xdpipe.steering import SteerProgram, Steering\n"
        "from xdpipe.errors import XdpipeError\n"
        "try: SteerProgram(Steering(''), None, 1)\n"
        "except XdpipeError as error: print(error)\n"
    )
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout == (
        "load an eBPF program: not permitted; run as root, or with CAP_BPF and CAP_NET_ADMIN "
        "(and CAP_PERFMON for tracepoints)\n"
    )


def test_map_tells_its_id_and_size() -> None:
    with (
        Module(compile_source(COUNT_AND_PASS, ROOT)) as module,
        module.map("per_cpu") as one,
        module.map("per_cpu") as other,
    ):
        assert isinstance(one, Map)
        assert one.fd != other.fd
        assert (one.id, one.value_size) == (other.id, 16)
