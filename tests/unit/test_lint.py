"""`xdpipe check --lint`: what it finds in code that it only reads, and what it leaves alone."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from xdpipe.errors import XdpipeError
from xdpipe.lint import Finding, lint
from xdpipe.lint_rules import RULES

ROOT = Path(__file__).resolve().parents[2]

IMPORTS = """
import asyncio, concurrent.futures, csv, datetime, fcntl, functools, io, json, logging
import multiprocessing, os, pathlib, pprint, queue, select, shutil, signal, socket, sqlite3
import subprocess, sys, threading, time, traceback, urllib.parse, urllib.request, warnings
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path

import click, dns.resolver, httpx, loguru, numba, psycopg, pymongo, pymysql, redis, requests, rich
import numpy as np
from xdpipe import Batch, NativeStage, Stage
from xdpipe.jit import jit_stage
"""
"""Never run, so it does not matter what of this is installed."""


def stage(process: str, init: str = "pass", more: str = "", top: str = "") -> str:
    """Return a file with a stage of which these are parts."""

    def block(text: str, depth: int) -> str:
        return textwrap.indent(textwrap.dedent(text).strip("\n"), "    " * depth)

    return "\n".join(
        [
            IMPORTS, textwrap.dedent(top), "class S(Stage):",
            "    def __init__(self, given=None):", block(init, 2),
            "    def process(self, batch):", block(process, 2),
            block(more, 1), "",
        ]
    )  # fmt: skip


def found_in(tmp_path: Path, code: str) -> tuple[Finding, ...]:
    file = tmp_path / "pipeline.py"
    file.write_text(code)
    return lint(file).findings


def codes(tmp_path: Path, code: str) -> list[str]:
    return [finding.code for finding in found_in(tmp_path, code)]


# Each rule: what hits it, exactly once, and near it what does not.

HITS: dict[str, list[tuple[str, dict[str, str]]]] = {
    "XP101": [
        ("with self.lock: pass", {"init": "self.lock = threading.Lock()"}),
        ("self.lock.acquire()", {"init": "self.lock = threading.RLock()"}),
        ("self.free.release()", {"init": "self.free = threading.Semaphore()"}),
        ("with LOCK: pass", {"top": "LOCK = threading.Lock()"}),
        ("with self._lock: pass", {"init": "self._lock = given"}),
        ("given.acquire()", {"top": "given = object_of_somebody()"}),
        ("self.out.put(1)", {"init": "self.out = queue.Queue()"}),
        ("self.out.put_nowait(1)", {"init": "self.out: queue.SimpleQueue = given"}),
        ("fcntl.flock(3, 2)", {}),
    ],
    "XP102": [
        ("time.sleep(0.1)", {}),
        ("nap(1)", {"top": "from time import sleep as nap"}),
        ("sleep(1)", {"top": "from time import *"}),
        ("self.event.wait()", {"init": "self.event = threading.Event()"}),
        ("select.select([], [], [], 1)", {}),
        ("signal.pause()", {}),
        ("asyncio.run(None)", {}),
        ("self.done.result()", {"top": "import concurrent.futures as cf",
                                "init": "self.done: cf.Future = given"}),
    ],
    "XP103": [
        ("open('x')", {}),
        ("self.file.write('x')", {"init": "self.file = open('x', 'w')"}),
        ("self.file.flush()", {"init": "self.file = open('x') if given else None"}),
        ("Path('x').read_text()", {}),
        ("(self.place / 'x').write_bytes(b'')", {"init": "self.place = Path('d').resolve()"}),
        ("self.place.exists()", {"init": "self.place: pathlib.Path = given"}),
        ("os.path.exists('x')", {}),
        ("os.fsync(3)", {}),
        ("np.save('x', batch.len)", {}),
        ("batch.src.tofile('x')", {}),
        ("json.dump({}, given)", {"top": "given = 1"}),
        ("self.rows.writerow([1])", {"init": "self.rows = csv.writer(given)"}),
        ("shutil.copy('a', 'b')", {}),
        ("socket.getservbyport(53)", {}),
        ("given.write_text('x')", {"top": "given = object_of_somebody()"}),
    ],
    "XP104": [
        ("self.sock.sendto(b'', ('::1', 9))", {"init": "self.sock = socket.socket()"}),
        ("self.sock.send(b'')", {"init": "self.sock = socket.create_connection(('::1', 9))"}),
        ("socket.socket()", {}),
        ("given.recv(10)", {"top": "given = object_of_somebody()"}),
        ("self.s.send(b'')", {"init": "self.s: socket.socket | None = given"}),
    ],
    "XP105": [
        ("requests.get('http://x')", {}),
        ("self.http.post('x')", {"init": "self.http = requests.Session()"}),
        ("httpx.get('http://x')", {}),
        ("urllib.request.urlopen('http://x')", {}),
    ],
    "XP106": [
        ("self.db.execute('select 1')", {"init": "self.db = sqlite3.connect('x')"}),
        ("self.at.fetchone()", {"init": "self.at = sqlite3.connect('x').cursor()"}),
        ("with self.db: pass", {"init": "self.db = psycopg.connect('x')"}),
        ("self.db.incr('n')", {"init": "self.db = redis.Redis()"}),
        ("self.db['a']['b'].insert_one({})", {"init": "self.db = pymongo.MongoClient()"}),
        ("self.db.commit()", {"init": "self.db = connect()",
                              "top": "def connect(): return pymysql.connect()"}),
        ("S.db.commit()", {"more": "db = sqlite3.connect('x')"}),
        ("given.executemany('x', [])", {"top": "given = object_of_somebody()"}),
    ],
    "XP107": [
        ("socket.gethostbyname('x')", {}),
        ("socket.gethostbyname_ex('x')", {}),
        ("socket.gethostbyaddr('x')", {}),
        ("socket.getaddrinfo('x', 1)", {}),
        ("dns.resolver.resolve('x')", {}),
        ("self.names.query('x')", {"init": "self.names = dns.resolver.Resolver()"}),
    ],
    "XP108": [
        ("subprocess.run(['x'])", {}),
        ("os.system('x')", {}),
        ("self.child.poll()", {"init": "self.child = subprocess.Popen(['x'])"}),
    ],
    "XP109": [
        ("print('x')", {}),
        ("input()", {}),
        ("sys.stderr.write('x')", {}),
        ("pprint.pprint('x')", {}),
        ("rich.print('x')", {}),
        ("click.echo('x')", {}),
        ("warnings.warn('x')", {}),
        ("try:\n    pass\nexcept ValueError:\n    traceback.print_exc()", {}),
        ("if len(batch) > 3: print('x')", {}),
    ],
    "XP110": [
        ("logging.info('x')", {}),
        ("log.debug('x')", {"top": "log = logging.getLogger(__name__)"}),
        ("self.log.info('x')", {"init": "self.log = logging.getLogger('x').getChild('y')"}),
        ("self._logger.warning('x')", {"init": "self._logger = given"}),
        ("loguru.logger.info('x')", {}),
    ],
    "XP111": [
        ("pass", {"init": "threading.Thread(target=given).start()"}),
        ("pass", {"init": "self.n = multiprocessing.Value('i')"}),
        ("pass", {"top": "N = multiprocessing.Value('i')"}),
        ("pass", {"top": "POOL = concurrent.futures.ThreadPoolExecutor()"}),
        ("threading.Timer(1, given)", {"top": "given = 1"}),
        ("threading.Thread(target=self.out)", {"more": "def out(self): print(1)"}),
        ("os.fork()", {}),
    ],
    "XP112": [
        ("global n\nn += 1", {"top": "n = 0"}),
        ("global last\nlast = batch.len.sum()", {"top": "last = 0"}),
    ],
    "XP201": [
        ("for i in range(len(batch)): pass", {}),
        ("n = len(batch)\nfor i in range(0, n): pass", {}),
        ("for i in range(len(batch) - 1, -1, -1): pass", {}),
        ("for i in range(batch.src.shape[0]): pass", {}),
        ("n, width = batch.src.shape\nfor i in range(n): pass", {}),
        ("for i in range(batch.len.size): pass", {}),
        ("for packet in batch: pass", {}),
        ("for port in batch.l4_dport: pass", {}),
        ("for name in batch.a_column_of_ones_own: pass", {}),
        ("for word in batch.u16(batch.payload): pass", {}),
        ("for a, b in zip(batch.src, batch.dst): pass", {}),
        ("for i, port in enumerate(batch.l4_dport): pass", {}),
        ("for port in batch.l4_dport.tolist(): pass", {}),
        ("ports = batch.l4_dport.tolist()\nfor port in ports: pass", {}),
        ("for port in sorted(batch.l4_dport.tolist()): pass", {}),
        ("for i in np.flatnonzero(batch.len > 3): pass", {}),
        ("for src in batch.src[batch.len > 3]: pass", {}),
        ("for text in batch.text('dns_name'): pass", {}),
        ("for i in np.arange(len(batch)): pass", {}),
        ("i = 0\nwhile i < len(batch): i += 1", {}),
        ("[port + 1 for port in batch.l4_dport]", {}),
        ("sum(1 for port in batch.l4_dport if port)", {}),
        ("{port: 1 for port in batch.l4_dport}", {}),
        ("for i in self.all(batch): pass", {"more": "def all(self, b): return range(len(b))"}),
        ("self.n = len(batch)\nself.go()",
         {"more": "def go(self):\n    for i in range(self.n): pass"}),
        ("for s in self.each(batch.src): pass",
         {"more": "def each(self, c):\n    for s in c: yield s"}),
    ],
    "XP202": [
        ("sum(batch.len)", {}),
        ("max(batch.len)", {}),
        ("any(batch.len > 3)", {}),
        ("sorted(batch.len)", {}),
        ("set(batch.l4_dport)", {}),
        ("list(batch.l4_dport)", {}),
        ("Counter(batch.l4_dport)", {}),
        ("list(map(int, batch.l4_dport))", {}),
    ],
    "XP203": [
        ("self.f(batch.len)", {"init": "self.f = np.vectorize(abs)"}),
        ("double(batch.len)", {"top": "@np.vectorize\ndef double(x): return 2 * x"}),
        ("np.apply_along_axis(len, 1, batch.src)", {}),
    ],
    "XP204": [
        ("for i in self.odd: batch.packet(i)", {"init": "self.odd = given"}),
        ("[batch.packet(i) for i in self.odd]", {"init": "self.odd = given"}),
        ("while self.more: batch.packet(self.at)", {}),
    ],
    "XP205": [
        ("for i in range(len(batch)): t = time.time()  # noqa: XP201\n", {}),
        ("for i in range(len(batch)):  # noqa: XP201\n    t = time.monotonic_ns()", {}),
        ("for i in range(len(batch)):  # noqa: XP201\n    self.one(i)",
         {"more": "def one(self, i): return datetime.datetime.now()"}),
    ],
    "XP301": [
        ("self.last = batch.src", {}),
        ("self.last = batch.src[:10]", {}),
        ("self.last = batch.src[0]", {}),
        ("self.last = batch.src.view(np.uint64)[:, 0]", {}),
        ("self.last = np.asarray(batch.src).reshape(-1)", {}),
        ("self.last = batch.src if given else None", {"top": "given = 1"}),
        ("self.last, self.n = batch.src, len(batch)", {}),
        ("self.last = (batch.src, batch.dst)", {}),
        ("self.last = batch.packet(0)", {}),
        ("src = batch.src\nself.keep(src)", {"more": "def keep(self, c): self.last = c"}),
        ("self.last.append(batch.src)", {"init": "self.last = deque(maxlen=9)"}),
        ("self.last['x'] = batch.src", {"init": "self.last = {}"}),
        ("self.last = Kept(batch.src)",
         {"top": "class Kept:\n    def __init__(self, c): self.c = c"}),
        ("kept = []\nkept.append(batch.src)\nself.last = kept", {}),
        ("S.last = batch.src", {}),
        ("self.last = batch.sent_tag", {}),
    ],
    "XP302": [
        ("self.rows.append(1)", {"init": "self.rows = []"}),
        ("self.rows.extend([1])", {"init": "self.rows: list[int] = []"}),
        ("self.rows += [1]", {"init": "self.rows = []"}),
        ("self.rows.append(1)", {"init": "self.rows = deque()"}),
        ("self.rows.append(1)", {"init": "self.rows = given"}),
        ("self.seen.add(int(batch.len[0]))", {"init": "self.seen = set()"}),
        ("self.flows[int(batch.len[0])] = 1", {"init": "self.flows = {}"}),
        ("self.flows[int(batch.len[0])] += 1", {"init": "self.flows = Counter()"}),
        ("self.flows[int(batch.len[0])].append(1)", {"init": "self.flows = defaultdict(list)"}),
        ("self.flows.update(batch.l4_dport.tolist())", {"init": "self.flows = Counter()"}),
        ("self.all = np.append(self.all, batch.len)", {"init": "self.all = np.zeros(0)"}),
        ("SEEN.add(int(batch.len[0]))", {"top": "SEEN = set()"}),
        ("heapq.heappush(self.top, 1)", {"init": "self.top = []", "top": "import heapq"}),
        ("self.rows.append(1)", {"more": "rows: list = dataclasses.field(default_factory=list)",
                                 "top": "import dataclasses"}),
        ("look_up(int(batch.len[0]))", {"top": "@functools.cache\ndef look_up(n): return n"}),
        ("self.rows.append(1)", {"init": "self.rows = []",
                                 "more": "def report(self): self.rows.clear()"}),
    ],
}  # fmt: skip

MISSES: dict[str, list[tuple[str, dict[str, str]]]] = {
    "XP101": [
        ("self.block.free()", {"init": "self.block = given"}),
        ("with self.blocking: pass", {"init": "self.blocking = given"}),
        ("self.out.append(1)", {"init": "self.out = deque(maxlen=3)"}),
        ("pass", {"init": "self.lock = threading.Lock()\nself.lock.acquire()"}),
    ],
    "XP102": [
        ("time.time()", {}),
        ("sleep(1)", {"top": "def sleep(n): return n"}),
        ("self.is_late = self.event.is_set()", {"init": "self.event = threading.Event()"}),
        ("pass", {"init": "time.sleep(1)"}),
    ],
    "XP103": [
        ("pass", {"init": "self.table = json.load(open('x'))"}),
        ("pass", {"more": "def report(self): return {'x': open('x').read()}"}),
        ("open('x')", {"top": "def open(x): return x"}),
        ("json.dumps({})", {}),
        ("self.place.with_suffix('.x')", {"init": "self.place = Path('x')"}),
        ("self.place.name.replace('a', 'b')", {"init": "self.place = Path('x')"}),
        ("io.BytesIO().readline()", {}),
        ("self.seen.write(1)", {"init": "self.seen = given"}),
        ("os.path.join('a', 'b')", {}),
    ],
    "XP104": [
        ("socket.inet_ntop(2, b'1234')", {}),
        ("socket.htons(3)", {}),
        ("pass", {"init": "self.sock = socket.socket()\nself.sock.bind(('::', 9))"}),
    ],
    "XP105": [
        ("urllib.parse.quote('x')", {}),
        ("self.requests.get(1)", {"init": "self.requests = {}"}),
        ("raise requests.HTTPError", {}),
    ],
    "XP106": [
        ("self.db.execute(1)", {"init": "self.db = Mine()",
                                "top": "class Mine:\n    def execute(self, n): return n"}),
        ("raise sqlite3.DatabaseError('x')", {}),
        ("pass", {"init": "self.rows = sqlite3.connect('x').execute('select 1').fetchall()"}),
    ],
    "XP107": [
        ("socket.inet_aton('1.2.3.4')", {}),
        ("pass", {"init": "self.server = socket.gethostbyname('x')"}),
        ("pass", {"more": "def report(self): return {'x': socket.gethostbyaddr('x')}"}),
    ],
    "XP108": [
        ("subprocess.list2cmdline([])", {}),
        ("os.getpid()", {}),
    ],
    "XP109": [
        ("pass", {"more": "def report(self):\n    print('x')\n    return {}"}),
        ("self.count('print')", {}),
        ("print('x')", {"top": "def print(*x): pass"}),
        ("pprint.pformat('x')", {}),
    ],
    "XP110": [
        ("np.log(batch.len)", {}),
        ("self.catalog.info('x')", {"init": "self.catalog = given"}),
        ("pass", {"top": "log = logging.getLogger(__name__)"}),
    ],
    "XP111": [
        ("multiprocessing.cpu_count()", {}),
        ("pass", {"top": "if __name__ == '__main__':\n    multiprocessing.Pool()"}),
        ("pass", {"top": "def by_hand():\n    threading.Thread().start()"}),
    ],
    "XP112": [
        ("global n\nself.n = n", {"top": "n = 0"}),
        ("n = 0\nn += 1", {"top": "n = 0"}),
    ],
    "XP201": [
        ("for bit in range(8): batch.len & (1 << bit)", {}),
        ("for column in (batch.src, batch.dst): column.sum()", {}),
        ("for at in range(0, len(batch), 64): batch.len[at : at + 64].sum()", {}),
        ("at = 0\nwhile at < len(batch): at += 64", {}),
        ("for port in np.unique(batch.l4_dport): pass", {}),
        ("ports, n = np.unique(batch.l4_dport, return_counts=True)\n"
         "for port, each in zip(ports.tolist(), n.tolist()): pass", {}),
        ("for proto, n in enumerate(np.bincount(batch.ip_proto)): pass", {}),
        ("for i in np.flatnonzero(batch.len > 3)[:10]: pass", {}),
        ("for text in batch.text('dns_name')[:LIMIT]: pass", {"top": "LIMIT = 10"}),
        ("for port in batch.ports: pass", {}),
        ("for byte in batch.src[0]: pass", {}),
        ("for i in range(batch.src.shape[1]): pass", {}),
        ("for half in np.array_split(batch.len, 2): half.sum()", {}),
        ("fast(batch.len)", {"top": "@numba.njit\ndef fast(x):\n    for n in x: pass"}),
        ("for key, n in self.top.most_common(3): pass", {"init": "self.top = Counter()"}),
        ("pass", {"more": "def report(self): return [x for x in self.rows]"}),
    ],
    "XP202": [
        ("batch.len.sum()", {}),
        ("sum((1, 2))", {}),
        ("max(len(batch), 3)", {}),
        ("min(np.unique(batch.len))", {}),
        ("batch.len.tolist()", {}),
        ("Counter(batch.l4_dport.tolist()).most_common(3)", {}),
    ],
    "XP203": [
        ("np.where(batch.len > 3, 1, 0)", {}),
        ("np.add.at(self.n, batch.l4_dport, 1)", {"init": "self.n = np.zeros(65536)"}),
    ],
    "XP204": [
        ("batch.packet(0)", {}),
        ("for i in (0, -1): batch.packet(i)", {}),
        ("for i in np.flatnonzero(batch.len > 3)[:10]: batch.packet(int(i))", {}),
        ("for i in range(min(len(batch), 10)): batch.packet(i)", {}),
        ("for i in range(len(batch))[: self.most]: batch.packet(i)", {"init": "self.most = given"}),
    ],
    "XP205": [
        ("now = time.time()", {}),
        ("for port in np.unique(batch.l4_dport): time.time()", {}),
        ("for i in range(len(batch)): pass  # noqa: XP201\nself.at = datetime.datetime.now()", {}),
    ],
    "XP301": [
        ("self.last = batch.src.copy()", {}),
        ("self.last = np.array(batch.src)", {}),
        ("self.last = batch.src[batch.len > 3]", {}),
        ("self.last = batch.len + 1", {}),
        ("self.last = batch.len.astype(np.int64)", {}),
        ("self.last = batch.time_ns[-1]", {}),
        ("self.last = batch.src[0, 3]", {}),
        ("self.last = batch.len.max()", {}),
        ("self.last = bytes(batch.packet(0))", {}),
        ("self.last = batch.u16(batch.payload)", {}),
        ("self.last[0] = batch.src[0]", {"init": "self.last = np.zeros((9, 16), np.uint8)"}),
        ("last = batch.src\nself.total = last.sum()", {}),
        ("last = batch.src\nlast = last.copy()\nself.last = last", {}),
        ("self.last.append(batch.src.copy())", {"init": "self.last = deque(maxlen=9)"}),
        ("self.sets['offenders'].add(batch.src)", {}),
        ("self.batch = batch", {}),
        ("self.last = batch.ports", {}),
    ],
    "XP302": [
        ("rows = []\nrows.append(1)", {}),
        ("self.rows.append(1)", {"init": "self.rows = deque(maxlen=9)"}),
        ("self.rows.append(1)", {"init": "self.rows = deque([], 9)"}),
        ("self.rows.append(1)\nself.flush()",
         {"init": "self.rows = []", "more": "def flush(self): rows, self.rows = self.rows, []"}),
        ("if len(self.rows) < 9: self.rows.append(1)", {"init": "self.rows = []"}),
        ("self.rows.append(1)\ndel self.rows[:-9]", {"init": "self.rows = []"}),
        ("self.rows = self.rows[-9:]\nself.rows.append(1)", {"init": "self.rows = []"}),
        ("self.n['udp'] += 1", {"init": "self.n = Counter()"}),
        ("self.n[int(batch.len[0]) % 16] = 1", {"init": "self.n = {}"}),
        ("self.n[batch.port] = 1", {"init": "self.n = {}"}),
        ("for name in ('a', 'b'): self.n[name] = 1", {"init": "self.n = {}"}),
        ("self.n[batch.l4_dport] += 1", {"init": "self.n = np.zeros(65536)"}),
        ("self.all = np.append(self.all, batch.len)[-99:]", {"init": "self.all = np.zeros(0)"}),
        ("look_up(3)", {"top": "@functools.lru_cache(maxsize=99)\ndef look_up(n): return n"}),
        ("self.flows[int(batch.len[0])] = 1\nwhile len(self.flows) > 9: self.flows.popitem()",
         {"init": "self.flows = OrderedDict()"}),
        ("self.rows.append(1)", {"init": "self.rows = Ring()",
                                 "top": "class Ring:\n    def append(self, n): self.at = n"}),
        ("pass", {"init": "self.rows = []\nself.rows.append(1)"}),
    ],
}  # fmt: skip

JIT = "@jit_stage(requires=('len',))\ndef count(batch, counters):\n    {}\n"
JIT_HITS = {
    "XP109": ["print(1)"],
    "XP401": [
        "x = np.zeros(4)", "x = np.concatenate((batch.len, batch.len))", "x = batch.len.copy()",
        "x = batch.len.astype(np.int64)", "helper(batch)", "x = np.array((1, 2))",
    ],
    "XP402": [
        "x = [0, 1]", "x = {1: 2}", "x = {1, 2}", "x = [i for i in range(3)]", "x = f'{batch.n}'",
        "x = '%d' % batch.n", "x = '{}'.format(3)", "x = str(3)", "x = list(batch.len)",
    ],
}  # fmt: skip
JIT_MISSES = [
    "for i in range(len(batch)):\n        counters[0] += batch.len[i]",
    "for n in batch.len:\n        counters[0] += n",
    "i = 0\n    while i < len(batch): i += 1",
    "x = (0, 1)",
    "x = np.uint32(3) % 5",
    "x = sum(batch.len)",
]


@pytest.mark.parametrize(
    ("code", "process", "parts"),
    [(code, *row) for code, rows in HITS.items() for row in rows],
)
def test_a_rule_finds(tmp_path: Path, code: str, process: str, parts: dict[str, str]) -> None:
    assert codes(tmp_path, stage(process, **parts)) == [code]


@pytest.mark.parametrize(
    ("code", "process", "parts"),
    [(code, *row) for code, rows in MISSES.items() for row in rows],
)
def test_a_rule_leaves_alone(
    tmp_path: Path, code: str, process: str, parts: dict[str, str]
) -> None:
    assert codes(tmp_path, stage(process, **parts)) == []


HELPER = "@numba.njit\ndef helper(batch): return np.empty(3)\n"


@pytest.mark.parametrize(
    ("code", "line"), [(code, line) for code, lines in JIT_HITS.items() for line in lines]
)
def test_a_jit_stage_is_to_allocate_nothing(tmp_path: Path, code: str, line: str) -> None:
    assert codes(tmp_path, IMPORTS + HELPER + JIT.format(line)) == [code]


@pytest.mark.parametrize("line", JIT_MISSES)
def test_a_jit_stage_may_loop(tmp_path: Path, line: str) -> None:
    assert codes(tmp_path, IMPORTS + HELPER + JIT.format(line)) == []


def test_every_rule_has_what_hits_it_and_what_does_not() -> None:
    assert set(HITS) | set(JIT_HITS) == set(RULES)
    assert set(MISSES) | {"XP401", "XP402"} == set(RULES)
    for code, rule in RULES.items():
        assert rule.code == code
        assert "" not in (rule.title, rule.why, rule.cure)


# How one gets there


def test_a_finding_tells_the_way_the_place_and_the_cure(tmp_path: Path) -> None:
    code = """\
        import socket
        from xdpipe import Stage

        class Names(Stage):
            def process(self, batch):
                self.ä = 1; self._look_up(batch.src[0])

            def _look_up(self, address):
                return "ä", socket.gethostbyname(str(address))
        """
    [finding] = found_in(tmp_path, textwrap.dedent(code))
    assert (finding.line, finding.column) == (9, 21)  # in characters, as editors count
    assert finding.stage == "Names"
    rule = RULES["XP107"]
    assert str(finding) == (
        f"{tmp_path}/pipeline.py:9:21: XP107 DNS look-up: "
        f"Names.process → self._look_up → socket.gethostbyname: {rule.why}; {rule.cure}"
    )


@pytest.mark.parametrize(
    ("code", "chain"),
    [
        ("class A(Stage):\n    process = nap\n", "A.process → time.sleep"),
        ("class A(Stage):\n    def process(self, b): nap(1, 2)\n", "A.process → nap → time.sleep"),
        ("class A(Stage):\n    def process(self, b): self.late\n    @property\n"
         "    def late(self): nap(1, 2)\n", "A.process → self.late → nap → time.sleep"),
        ("class A(Stage):\n    def process(self, b): self.each(b)\n"
         "class B(A):\n    def each(self, b): nap(1, 2)\n",
         "B.process → self.each → nap → time.sleep"),
        ("class A(Stage):\n    def process(self, b): nap(1, 2)\n"
         "class B(A):\n    def process(self, b): super().process(b)\n",
         "A.process → nap → time.sleep"),
        ("class M:\n    def each(self, b): nap(1, 2)\n"
         "class B(M, Stage):\n    def process(self, b): super().each(b)\n",
         "B.process → super().each → nap → time.sleep"),
        ("class H:\n    def run(self, b): nap(1, 2)\n    __call__ = run\n"
         "class A(Stage):\n    h = H()\n    def process(self, b): self.h(b)\n",
         "A.process → self.h → nap → time.sleep"),
        ("class H:\n    def __enter__(self): nap(1, 2)\n    def __exit__(self, *a): pass\n"
         "class A(Stage):\n    def process(self, b):\n        with H() as h: pass\n",
         "A.process → H().__enter__ → nap → time.sleep"),
        ("class A(Stage):\n    def process(self, b):\n        def inner(): nap(1, 2)\n"
         "        inner()\n",
         "A.process → inner → nap → time.sleep"),
        ("class A(Stage):\n    def process(self, b): sorted([2, 1], key=lambda n: nap(n, 2))\n",
         "A.process → lambda → nap → time.sleep"),
        ("class A(Stage):\n    def process(self, b): self.h.run()\n"
         "    def __init__(self, h: 'H'): self.h = h\n"
         "class H:\n    def run(self): nap(1, 2)\n",
         "A.process → self.h.run → nap → time.sleep"),
        ("class A(Stage):\n    def process(self, b): getattr(self, 'x')()\n"
         "    def x(self): nap(1, 2)\n",
         "A.process → getattr(self, 'x') → nap → time.sleep"),
        ("def make():\n    class A(Stage):\n        def process(self, b): nap(1, 2)\n",
         "A.process → nap → time.sleep"),
        ("class A(Stage):\n    @staticmethod\n    def x(n): nap(n, 2)\n"
         "    def process(self, b): self.x(1)\n", "A.process → self.x → nap → time.sleep"),
        ("class A(Stage):\n    @classmethod\n    def x(cls, n): nap(n, 2)\n"
         "    def process(self, b): self.x(1)\n", "A.process → self.x → nap → time.sleep"),
        ("class A(NativeStage):\n    def process(self, b): self.x(b); super().process(b)\n"
         "    def x(self, b): self.x(b); nap(1, 2)\n", "A.process → self.x → nap → time.sleep"),
    ],
)  # fmt: skip
def test_calls_are_followed(tmp_path: Path, code: str, chain: str) -> None:
    nap = "def nap(a, b): time.sleep(a)\n"
    [finding] = found_in(tmp_path, IMPORTS + nap + code)
    assert " → ".join(finding.chain) == chain


@pytest.mark.parametrize(
    "code",
    [
        "class A:\n    def process(self, batch): time.sleep(1)\n",
        "class A(threading.Local):\n    def process(self, batch): time.sleep(1)\n",
        "def process(batch): time.sleep(1)\n",
        "class A(Stage):\n    def process(self, batch): pass\n    def other(self): time.sleep(1)\n",
        "class A(Stage):\n    def process(self, batch): pass\n    def bind(self, c): open('x')\n",
    ],
)
def test_what_is_called_by_no_stage_is_left_alone(tmp_path: Path, code: str) -> None:
    assert codes(tmp_path, IMPORTS + code) == []


def test_modules_beside_the_file_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    files = {
        "pipeline.py": "from base import Base\nimport helpers, package.deep, absent, time\n"
        "class Mine(Base):\n    def each(self, batch):\n        helpers.once(batch)\n"
        "        package.deep.more()\n",
        "base.py": "from xdpipe import Stage as S\nclass Base(S):\n"
        "    def process(self, batch): self.each(batch)\n",
        "helpers.py": "import pipeline, json\ndef once(batch):\n    print(1)\n",
        "package/__init__.py": "",
        "package/deep.py": "from ..helpers import absent\nfrom .deeper import more\n",
        "package/deeper.py": "import time as t\ndef more(): t.sleep(1)\n",
        "time.py": "def sleep(n): print(n)\n",  # Python's own is found first
        "json.py": "this is no Python",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    findings = lint(tmp_path / "pipeline.py").findings
    assert [(f.file, f.line, f.code, " → ".join(f.chain)) for f in findings] == [
        (f"{tmp_path}/helpers.py", 3, "XP109", "Mine.process → self.each → helpers.once → print"),
        (f"{tmp_path}/package/deeper.py", 2, "XP102",
         "Mine.process → self.each → package.deep.more → time.sleep"),
    ]  # fmt: skip


def test_nothing_is_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code = f"open({str(trace)!r}, 'w').close()\nraise SystemExit(5)\n"
    assert codes(tmp_path, stage("print(1)", top=code)) == ["XP109"]
    assert not trace.exists()


# What comments allow


@pytest.mark.parametrize(
    ("comment", "n"),
    [
        ("# noqa: XP102", 0),
        ("# noqa", 0),
        ("#NOQA:XP102", 0),
        ("# noqa: E501, XP102", 0),
        ("# noqa: XP102 - this one may", 0),
        ("# noqa: XP1", 0),
        ("# type: ignore  # noqa: XP102", 0),
        ("# noqa: XP101", 1),
        ("# noqa: it may", 1),
        ("# noqalogy", 1),
        ("# XP102", 1),
        ("; x = '# noqa'", 1),
    ],
)
def test_a_comment_allows_a_rule(tmp_path: Path, comment: str, n: int) -> None:
    file = tmp_path / "pipeline.py"
    file.write_text(stage(f"time.sleep(1)  {comment}"))
    found = lint(file)
    assert (len(found.findings), found.n_allowed) == (n, 1 - n)


def test_a_comment_on_the_last_line_of_what_is_found_allows_it(tmp_path: Path) -> None:
    for number, allowed in ((0, True), (1, False), (2, True), (3, False)):
        lines = ["for port in range(", "    0,", "    len(batch)):", "    pass"]
        lines[number] += "  # noqa: XP201"
        assert (codes(tmp_path, stage("\n".join(lines))) == []) == allowed, number


# What is no Python


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"x = 1\ndef f(:\n", r"pipeline\.py:2: "),
        (b"x = '", r"pipeline\.py:1: "),
        (b"x = '\xff'\n", r"pipeline\.py:1: "),
        (b"# coding: klingon\n", r"pipeline\.py:1: "),
        (b"x = 1\0\n", r"pipeline\.py:1: "),
        (b"x = " + b"-" * 100_000 + b"1\n", r"pipeline\.py:1: "),
        (b"x = " + b"1 + " * 5_000 + b"1\n", r"pipeline\.py:1: "),
    ],
)
def test_what_does_not_parse_is_told_in_a_line(tmp_path: Path, text: bytes, message: str) -> None:
    file = tmp_path / "pipeline.py"
    file.write_bytes(text)
    with pytest.raises(XdpipeError, match=message) as told:
        lint(file)
    assert "\n" not in str(told.value)


# What the repository itself shows


def python_blocks() -> list[tuple[str, str]]:
    blocks = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        parts = page.read_text().split("```python\n")[1:]
        blocks += [(page.name, part.partition("```")[0]) for part in parts]
    return blocks


def test_the_code_in_the_documentation_has_no_findings(tmp_path: Path) -> None:
    blocks = python_blocks()
    assert len(blocks) >= 5
    for name, block in blocks:
        found = found_in(tmp_path, block)
        assert [str(finding) for finding in found] == [], name


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_the_examples_have_no_findings(file: Path) -> None:
    found = lint(file)
    assert [str(finding) for finding in found.findings] == []
    assert found.n_allowed == 0


def test_every_file_of_the_repository_can_be_read() -> None:
    for file in [*ROOT.glob("xdpipe/**/*.py"), *ROOT.glob("tests/veth/*.py")]:
        lint(file)


# On the command line


def xdpipe(*args: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "xdpipe", *args],
        capture_output=True, text=True, check=False, cwd=cwd,
    )  # fmt: skip


def test_check_lint_prints_a_line_a_finding_and_exits_with_3(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(stage("time.sleep(1)\nprint(2)  # noqa: XP109\ninput()"))
    done = xdpipe("check", "p.py", "--lint", cwd=tmp_path)
    first, second, last = done.stdout.splitlines()
    assert re.match(r"p\.py:\d+:9: XP102 sleep or wait: S\.process → time\.sleep: ", first)
    assert re.match(r"p\.py:\d+:9: XP109 print or input: S\.process → input: ", second)
    assert last == "2 findings, 1 allowed by comments"
    assert (done.returncode, done.stderr) == (3, "")


def test_check_lint_without_findings_exits_with_0(tmp_path: Path) -> None:
    done = xdpipe("check", str(ROOT / "examples" / "udp_echo.py"), "--lint", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing found\n", "")


def test_check_lint_json_is_one_object(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(stage("time.sleep(1)"))
    done = xdpipe("check", "p.py", "--lint", "--json", cwd=tmp_path)
    assert done.returncode == 3
    told = json.loads(done.stdout)
    [finding] = told.pop("findings")
    assert told == {"file": "p.py", "allowed": 0}
    rule = RULES["XP102"]
    line = finding.pop("line")
    assert (tmp_path / "p.py").read_text().splitlines()[line - 1].strip() == "time.sleep(1)"
    assert finding == {
        "code": "XP102", "file": "p.py", "column": 9, "stage": "S",
        "chain": ["S.process", "time.sleep"], "title": rule.title, "why": rule.why,
        "cure": rule.cure,
    }  # fmt: skip


def test_check_runs_over_a_capture_as_well_where_there_is_one(tmp_path: Path) -> None:
    from scapy.layers.l2 import Ether
    from scapy.utils import wrpcap

    wrpcap(str(tmp_path / "a.pcap"), [Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")])
    code = (
        "import time\nfrom xdpipe import Pipeline, Stage\nclass A(Stage):\n"
        "    def process(self, batch): time.sleep(0)\npipeline = Pipeline('', [A()])\n"
    )
    (tmp_path / "p.py").write_text(code)
    done = xdpipe("check", "p.py", "--lint", "--pcap", "a.pcap", "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (done.returncode, told["packets"], len(told["findings"])) == (3, 1, 1)
    done = xdpipe("check", "p.py", "--pcap", "a.pcap", cwd=tmp_path)
    assert done.returncode == 0
    assert "XP102" not in done.stdout


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["check", "p.py"], 2, "xdpipe: --pcap CAPTURE is missing: what to run it over (or --lint"),
        (["check", "p.py", "--lint", "--steer"], 2, "xdpipe: --pcap CAPTURE is missing"),
        (
            ["check", "absent.py", "--lint"],
            1,
            "xdpipe: absent.py: no such file; name a Python file",
        ),
        (["check", "bad.py", "--lint"], 1, "xdpipe: bad.py:2: "),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    tmp_path: Path, args: list[str], code: int, message: str
) -> None:
    (tmp_path / "p.py").write_text("x = 1\n")
    (tmp_path / "bad.py").write_text("x = 1\ny = = 2\n")
    done = xdpipe(*args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(message)
