"""What people get to see of a measurement: lines, a page in one file, a picture."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from stamped import NOW, Stamp, stamped
from xdpipe.cli import main
from xdpipe.errors import XdpipeError
from xdpipe.stages import Measure
from xdpipe.traffic import plots, report, texts
from xdpipe.traffic.measurement import Measurement
from xdpipe.traffic.rate_search import RateSearch, Trial

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None,
    reason="matplotlib is not installed: pip install 'xdpipe[plot]'",
)


def measured(ages: list[int], *, step: int = 1_000_000, streams: int = 1) -> Measurement:
    """Return a measurement of packets with these latencies, one each `step` ns."""
    stage = Measure(window=64)
    stage.process(stamped([
        Stamp(k // streams, NOW + k * step - age, NOW + k * step, k % streams)
        for k, age in enumerate(ages)
    ]))  # fmt: skip
    (found,) = stage.measurements
    return found


def some(streams: int = 1) -> Measurement:
    rng = np.random.default_rng(3)
    return measured(rng.lognormal(11, 1, 500).astype(int).tolist(), streams=streams)


@pytest.mark.parametrize(
    ("ns", "text"),
    [(None, "none"), (0, "0 ns"), (999, "999 ns"), (1000, "1 µs"), (12345, "12.35 µs"),
     (999_400, "999.4 µs"), (1_234_567, "1.235 ms"), (2_500_000_000, "2.5 s"),
     (5_000_000_000_000, "5,000 s")],
)  # fmt: skip
def test_latencies_are_told_in_the_unit_that_fits(ns: float | None, text: str) -> None:
    assert texts.duration(ns) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 10, "0 %"), (0, 0, "0 %"), (1, 4, "25 %"), (1, 3, "33.3 %"), (1, 10_000_000,
     "1 in 10,000,000")],
)  # fmt: skip
def test_shares_are_told_as_a_person_reads_them(part: int, whole: int, text: str) -> None:
    assert texts.share(part, whole) == text


def test_the_summary_says_it_all() -> None:
    found = measured([5000, 5000, 5000, 9_000_000])
    found.sent = 5
    found.receiver_dropped = 1
    assert report.summary(found).splitlines() == [
        "run 0x1234",
        "  sent                      5",
        "  received                  4",
        "  lost                      1 (20 %)",
        "  duplicates                0",
        "  reordered                 0 (0 %)",
        "  dropped by this receiver  1: it was too slow",
        "  rate                      1,000 packets/s, 0.5 Mb/s",
        "  for                       3 ms",
        "  latency min               5 µs",
        "  latency mean              2.254 ms",
        "  latency p50               5.002 µs",
        "  latency p90               8.997 ms",
        "  latency p99               8.997 ms",
        "  latency p99.9             8.997 ms",
        "  latency p99.99            8.997 ms",
        "  latency max               9 ms",
    ]


def test_nothing_that_came_is_told_too() -> None:
    text = report.summary(Measurement.nothing(9, sent=7))
    assert "lost            7 (100 %)" in text
    assert "latency max     none" in text


@needs_matplotlib
def test_the_page_is_one_file_that_asks_for_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    one, two = some(), some(streams=2)
    two.run = 9
    report.write_html(str(path), [one, two], "eth0 <&>")
    page = path.read_text()
    assert page.startswith("<!doctype html>")
    assert "eth0 &lt;&amp;&gt;" in page
    assert page.count("<svg") == 2
    assert "run 0x1234" in page
    assert "run 0x0009" in page
    assert page.count("<th>stream</th>") == 1  # where there are several
    assert "<script" not in page
    asked = re.findall(r'(?:src|href)="([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)
    assert all(target.startswith("#") for target in asked)
    for title in ("Latency by percentile", "Packets by latency", "Rate, as received"):
        assert page.count(title) == 2


@needs_matplotlib
@pytest.mark.parametrize(
    "found",
    [
        [],
        [Measurement.nothing(3, sent=5)],
        [measured([7])],
        [measured([0, 0, 0])],
        [measured([1000] * 300, step=1)],
        [measured([-5, -6])],
        [measured([1, 10**9, 3600 * 10**9], step=10**12)],
        [some(4)],
    ],
    ids=["none", "lost", "one", "zero", "alike", "early", "far apart", "many"],
)
def test_whatever_came_is_drawn(found: list[Measurement], tmp_path: Path) -> None:
    picture, page = tmp_path / "report.png", tmp_path / "report.html"
    report.write_png(str(picture), found, "eth0")
    report.write_html(str(page), found, "eth0")
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG\r\n")
    assert int.from_bytes(data[16:20]) == 1560
    assert len(data) > 5000
    assert page.read_text().endswith("</html>\n")


@needs_matplotlib
def test_the_plots_show_what_was_measured() -> None:
    found = measured([20_000] * 90 + [3_000_000] * 10)
    figure = plots.draw(found, "eth0")
    curve, histogram, rate, over_time = figure.axes
    points = curve.lines[0].get_xydata()
    assert points[0][1] == pytest.approx(20_000, rel=0.001)
    assert tuple(points[-1]) == (200, 3_000_000)
    heights, edges, _ = histogram.patches[0].get_data()
    assert heights.sum() == 100
    assert heights.max() == 90
    assert edges[0] * 1.01 > 20_000 > edges[0] * 0.99
    rates = rate.patches[0].get_data().values
    assert rates.max() <= 2 / found.slot_s
    assert rates.sum() * found.slot_s == pytest.approx(98, abs=1)
    assert over_time.lines[0].get_ydata().max() == pytest.approx(3_000_000)


@needs_matplotlib
def test_a_search_is_told_and_drawn(tmp_path: Path) -> None:
    trials = [Trial(800.0, 799.0, 400, 100, some()), Trial(400.0, 400.5, 200, 0)]
    search = RateSearch(400.5, 799.0, "loss", trials)
    path = tmp_path / "report.html"
    report.write_html(str(path), [some()], "eth0", search)
    page = path.read_text()
    assert page.count("<svg") == 2
    assert "<h2>400 packets/s without loss; at more, more is lost</h2>" in page
    assert ">100 (25 %)<" in page
    passed, failed, rate = plots.draw_search(search).axes[0].lines
    assert passed.get_xydata().tolist() == [[400.5, 0]]
    assert failed.get_xydata().tolist() == [[799, 25]]
    assert rate.get_xdata()[0] == 400.5


@pytest.mark.parametrize(
    ("search", "text"),
    [
        (RateSearch(), "no rate without loss"),
        (RateSearch(None, 1000.0), "no rate without loss; not 1,000 packets/s"),
        (RateSearch(5000.0, 5010.0, "loss", [], 0.001),
         "5,000 packets/s with no more than 0.1 % lost; at more, more is lost"),
        (RateSearch(5000.0, None, "range"),
         "5,000 packets/s without loss; the highest that was to be tried"),
        (RateSearch(5000.0, None, "sender"),
         "5,000 packets/s without loss; the sender goes no faster: the link may carry more"),
    ],
)  # fmt: skip
def test_what_a_search_found_is_told_in_a_line(search: RateSearch, text: str) -> None:
    assert texts.search_summary(search) == text


def test_without_matplotlib_the_command_says_so_before_it_measures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = CliRunner().invoke(main, ["measure", "--dev", "none", "--png", "x.png"])
    assert done.exit_code == 1
    assert done.output == (
        "xdpipe: x.png: plots are drawn by matplotlib, which is not installed; "
        "pip install 'xdpipe[plot]'\n"
    )


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(XdpipeError, match="there is no directory"):
        report.require(str(tmp_path / "no" / "x.html"))
    with pytest.raises(XdpipeError, match="cannot be written"):
        report._write(str(tmp_path), b"")
