"""What breaks a hot path: the rules of `xdpipe check --lint`, and which calls they are about."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache


@dataclass(frozen=True)
class Rule:
    """One thing that a stage must not do between receiving a batch and handing it on."""

    code: str
    title: str
    why: str
    cure: str


def words(text: str) -> frozenset[str]:
    """Return the words of a text, as a set."""
    return frozenset(text.split())


RULES = {
    rule.code: rule
    for rule in (
        Rule(
            "XP101", "lock",
            "whoever holds it holds up the queue, and its ring fills meanwhile",
            "drop it: an instance lives in one process and is called by one thread; keep what "
            "belongs to it in self",
        ),
        Rule(
            "XP102", "sleep or wait",
            "nobody takes packets off the ring meanwhile, and the kernel drops them",
            "compare batch.time_ns with a time that self remembers, and do it when that has come",
        ),
        Rule(
            "XP103", "files",
            "a disk may take milliseconds, a full one or a network's for ever",
            "read in __init__; show results by report() or counters; keep packets by Record",
        ),
        Rule(
            "XP104", "sockets",
            "each call enters the kernel, and may wait for another host",
            "send by verdicts (tx, forward); tell others by counters and report(), which "
            "`xdpipe status --json` gives to whoever asks",
        ),
        Rule(
            "XP105", "HTTP",
            "the batch waits for a server's answer",
            "fetch in __init__; tell others by report(), and let another process send it",
        ),
        Rule(
            "XP106", "database",
            "the batch waits for the database, its disk and its locks",
            "read in __init__ into arrays; sum up in self, and let another process store what "
            "report() says",
        ),
        Rule(
            "XP107", "DNS look-up",
            "the batch waits for a name server, for seconds if it does not answer",
            "keep and report addresses; let whoever reads the report look their names up",
        ),
        Rule(
            "XP108", "other programs",
            "starting one takes milliseconds, and waiting for it as long as it likes",
            "start it outside of the pipeline, and give it what `xdpipe status --json` or "
            "`xdpipe tap` tells",
        ),
        Rule(
            "XP109", "print or input",
            "a terminal or a pipe that nobody reads stops the queue",
            "count it (self.count) or return it from report(); for single packets: xdpipe tap",
        ),
        Rule(
            "XP110", "logging",
            "it makes a string, takes a lock and writes to a file, as often as a packet's sender "
            "likes",
            "count it (self.count), and return the latest from report()",
        ),
        Rule(
            "XP111", "threads and processes",
            "each queue has a process of its own, which others do not see into; a thread in it "
            "takes the interpreter away from the worker",
            "share nothing: an instance serves one queue; sums over queues are made from counters "
            "and report()",
        ),
        Rule(
            "XP112", "global state",
            "all instances in a process share it, and no other queue's does",
            "keep it in self",
        ),
        Rule(
            "XP201", "loop over packets",
            "it costs microseconds a packet, an array expression some ten nanoseconds, and who "
            "sends packets decides how many there are",
            "write it over whole columns (masks, np.where, np.unique, np.bincount), bound it "
            "([:10]), or make it a jit stage",
        ),
        Rule(
            "XP202", "Python's function over a column",
            "each of the column's values is made a Python object first",
            "take numpy's: column.sum(), .max(), .any(), np.sort, np.unique; a list: .tolist()",
        ),
        Rule(
            "XP203", "np.vectorize and the like",
            "it is a Python loop: the function is called for each value",
            "write it over whole arrays, or make it a jit stage",
        ),
        Rule(
            "XP204", "batch.packet() in a loop",
            "it makes an object for each packet: the slow path, for looking at single ones",
            "load fields of all packets at once: batch.u16(offset), batch.bytes_at(offset, width)",
        ),
        Rule(
            "XP205", "clock for each packet",
            "it is a call for each, and the packets of a batch came together",
            "ask once a batch, or take batch.time_ns",
        ),
        Rule(
            "XP301", "a column kept beyond its batch",
            "it is a view of memory that the next batch overwrites",
            "keep a copy: .copy(), or a selection by a mask or by indices, which is one",
        ),
        Rule(
            "XP302", "growth without bound",
            "whoever sends packets decides how much memory it takes",
            "bound it: an array or ring of fixed size, deque(maxlen=…), or a look at len() before",
        ),
        Rule(
            "XP401", "array made in a jit stage",
            "it allocates, for each batch or even each packet",
            "write into counters, or into arrays that were made once, outside of it",
        ),
        Rule(
            "XP402", "Python object made in a jit stage",
            "lists, dicts, sets and texts are allocated, where numba takes them at all",
            "use numbers, tuples, and arrays that were made once, outside of it",
        ),
    )
}  # fmt: skip
"""By code."""

_CALLS = {
    "XP101": """
        threading.Lock* threading.RLock* threading.Condition* threading.Semaphore*
        threading.BoundedSemaphore* threading.Barrier* threading.Event().set threading.Event().clear
        _thread.allocate_lock* queue.* multiprocessing.*Lock* multiprocessing.*Semaphore*
        multiprocessing.*Condition* fcntl.flock fcntl.lockf os.lockf filelock.* portalocker.*
        """,
    "XP102": """
        time.sleep select.* selectors.* threading.Event().wait threading.Thread().join
        threading.Timer().join concurrent.futures.wait concurrent.futures.as_completed
        concurrent.futures.*.result signal.pause signal.sigwait signal.sigwaitinfo
        signal.sigtimedwait os.wait* asyncio.* trio.* anyio.* gevent.* eventlet.*
        """,
    "XP103": """
        open open().* io.open* io.FileIO* codecs.open* os.open os.fdopen* os.read os.write os.pread*
        os.pwrite* os.readv os.writev os.fsync os.fdatasync os.sync os.stat os.lstat os.fstat
        os.statvfs os.access os.listdir os.scandir* os.walk os.fwalk os.mkdir os.makedirs os.remove
        os.unlink os.rename os.renames os.replace os.rmdir os.removedirs os.truncate os.ftruncate
        os.sendfile os.copy_file_range os.chmod os.chown os.link os.symlink os.readlink os.utime
        os.mkfifo os.path.exists os.path.lexists os.path.isfile os.path.isdir os.path.islink
        os.path.getsize os.path.getmtime os.path.realpath os.path.samefile
        pathlib.*.read_text pathlib.*.read_bytes pathlib.*.write_text pathlib.*.write_bytes
        pathlib.*.open pathlib.*.open().* pathlib.*.exists pathlib.*.is_file pathlib.*.is_dir
        pathlib.*.is_symlink pathlib.*.stat pathlib.*.lstat pathlib.*.iterdir pathlib.*.glob
        pathlib.*.rglob pathlib.*.walk pathlib.*.mkdir pathlib.*.rmdir pathlib.*.unlink
        pathlib.*.touch pathlib.*.rename pathlib.*.replace pathlib.*.resolve pathlib.*.chmod
        pathlib.*.symlink_to pathlib.*.hardlink_to pathlib.*.readlink pathlib.*.samefile
        shutil.* tempfile.* glob.glob glob.iglob fileinput.* linecache.* gzip.open* gzip.GzipFile*
        bz2.open* bz2.BZ2File* lzma.open* lzma.LZMAFile* zipfile.* tarfile.* json.dump json.load
        pickle.dump pickle.load marshal.dump marshal.load plistlib.dump plistlib.load tomllib.load
        csv.writer().* csv.DictWriter().* mmap.mmap mmap.mmap().flush configparser.*.read
        configparser.*.write socket.getservbyname socket.getservbyport pwd.* grp.* aiofiles.*
        numpy.load numpy.save numpy.savez* numpy.savetxt numpy.loadtxt numpy.genfromtxt
        numpy.fromfile numpy.memmap* numpy.*.tofile numpy.*.dump pandas.read_* pandas.*.to_csv
        pandas.*.to_parquet pandas.*.to_json pandas.*.to_excel pandas.*.to_feather pyarrow.parquet.*
        pyarrow.csv.* pyarrow.feather.* pyarrow.ipc.* pyarrow.dataset.* h5py.* zarr.*
        polars.read_* polars.*.write_* scapy.*.rdpcap scapy.*.wrpcap scapy.*.wrpcapng
        scapy.*.PcapWriter* scapy.*.PcapReader* scapy.*.PcapNgWriter* scapy.*.RawPcap*
        dpkt.*.Writer* dpkt.*.Reader* importlib.resources.*
        """,
    "XP104": """
        socket.socket* socket.create_connection* socket.create_server* socket.socketpair*
        socket.fromfd* socket.send_fds socket.recv_fds ssl.*.wrap_socket* ssl.create_default_context
        ssl.get_server_certificate socketserver.* smtplib.* ftplib.* imaplib.* poplib.* nntplib.*
        telnetlib.* multiprocessing.connection.* paramiko.* zmq.* websocket.* websockets.* kafka.*
        confluent_kafka.* aiokafka.* pika.* paho.* nats.* grpc.* statsd.* ldap3.* ntplib.* whois.*
        ipwhois.* pysnmp.* scapy.*.send scapy.*.sendp scapy.*.sendpfast scapy.*.sr scapy.*.sr1
        scapy.*.srp scapy.*.srp1 scapy.*.sniff scapy.*.AsyncSniffer* pyroute2.* dbus.*
        """,
    "XP105": """
        requests.* httpx.* aiohttp.* urllib.request.* urllib3.* http.client.* http.server.*
        httplib2.* pycurl.* treq.* boto3.* botocore.* xmlrpc.* slack_sdk.* prometheus_client.push*
        """,
    "XP106": """
        sqlite3.* psycopg.* psycopg2.* psycopg_pool.* asyncpg.* pg8000.* pymysql.* MySQLdb.* mysql.*
        mariadb.* aiomysql.* redis.* valkey.* aioredis.* pymongo.* motor.* sqlalchemy.* sqlmodel.*
        peewee.* django.db.* pony.* tortoise.* cassandra.* clickhouse_driver.* clickhouse_connect.*
        duckdb.* influxdb.* influxdb_client.* elasticsearch.* opensearchpy.* pymemcache.* memcache.*
        pylibmc.* pyodbc.* oracledb.* cx_Oracle.* pymssql.* neo4j.* etcd3.* consul.* tinydb.* lmdb.*
        plyvel.* rocksdb.* leveldb.* diskcache.* shelve.* dbm.* dataset.* records.* snowflake.*
        """,
    "XP107": """
        socket.gethostbyname* socket.gethostbyaddr socket.getaddrinfo socket.getnameinfo
        socket.getfqdn dns.resolver.* dns.asyncresolver.* dns.query.* dns.asyncquery.* dns.zone.*
        aiodns.* pycares.*
        """,
    "XP108": """
        subprocess.* os.system os.popen* os.spawn* os.exec* os.posix_spawn* pty.* pexpect.*
        plumbum.* sh.* invoke.* fabric.* webbrowser.*
        """,
    "XP109": """
        print input breakpoint help pdb.* ipdb.* sys.stdout.* sys.stderr.* sys.stdin.*
        sys.__stdout__.* sys.__stderr__.* sys.displayhook pprint.pprint pprint.pp rich.print*
        rich.*.print rich.*.log rich.*.print_* click.echo click.secho click.confirm click.prompt
        traceback.print_* warnings.warn* tqdm.* icecream.* getpass.getpass faulthandler.dump_*
        """,
    "XP110": """
        logging.* loguru.* structlog.* syslog.* systemd.journal.* sentry_sdk.* logbook.* eliot.*
        """,
    "XP111": """
        threading.Thread* threading.Timer* threading.main_thread* _thread.* multiprocessing.*
        concurrent.futures.* os.fork os.forkpty joblib.* ray.* dask.* celery.*
        """,
    "XP203": """
        numpy.vectorize* numpy.frompyfunc* numpy.apply_along_axis numpy.apply_over_axes
        """,
}
"""Which calls each rule is about, told by where what is called came from: `socket.socket()` is what
a call of socket.socket gave. Where several match, the first does."""

_HARMLESS = """
    *Error *Exception *Warning *Interrupt *Empty *Full *TimeoutExpired subprocess.list2cmdline
    multiprocessing.cpu_count multiprocessing.current_process threading.Event().is_set
    logging.*.isEnabledFor logging.*.getEffectiveLevel http.HTTPStatus sys.stdout.fileno
    sys.stderr.fileno sys.stdout.isatty sys.stderr.isatty select.poll select.epoll
    psycopg.sql.* sqlalchemy.text urllib3.util.* dns.query.*.*_message tempfile.gettempdir
    asyncio.iscoroutinefunction socket.socket().fileno open().fileno
    """
"""What is made or asked without waiting, among them."""

CLOCKS = """
    time.time* time.monotonic* time.perf_counter* time.process_time* time.thread_time*
    time.clock_gettime* time.localtime time.gmtime time.ctime time.asctime time.strftime
    datetime.*now datetime.*today datetime.*fromtimestamp datetime.*strftime datetime.*strptime
    datetime.*isoformat pandas.Timestamp* arrow.* pendulum.*
    """

METHODS = {
    "XP101": "acquire",
    "XP103": "read_text read_bytes write_text write_bytes readline readlines writelines tofile "
    "to_csv to_parquet fsync",
    "XP104": "recv recvfrom recv_into recvmsg sendto sendall sendmsg getpeername",
    "XP106": "executemany executescript fetchone fetchall fetchmany cursor",
    "XP107": "gethostbyname getaddrinfo",
}
"""Methods that tell by their names alone what they do, where nobody knows of what."""

LOCK_NAME = re.compile(r"(^|_)(lock|rlock|mutex|semaphore)$", re.IGNORECASE)
LOGGER_NAME = re.compile(r"(^|_)(log|logger|logging)$", re.IGNORECASE)
LOGGER_METHODS = words("debug info warning warn error exception critical fatal log")

JIT_DECORATORS = frozenset({"xdpipe.jit.jit_stage", "xdpipe.jit_stage"})
COMPILED = ("numba.",)
"""Functions decorated by what begins so are no Python when they run."""

JIT_ARRAYS = """
    numba.typed.* numpy.zeros* numpy.ones* numpy.empty* numpy.full* numpy.array numpy.asarray
    numpy.ascontiguousarray numpy.copy numpy.arange numpy.linspace numpy.eye numpy.identity
    numpy.concatenate numpy.stack numpy.hstack numpy.vstack numpy.dstack numpy.column_stack
    numpy.append numpy.repeat numpy.tile numpy.unique numpy.sort numpy.argsort numpy.where
    numpy.nonzero numpy.flatnonzero numpy.bincount numpy.cumsum numpy.diff numpy.delete
    numpy.insert numpy.outer numpy.broadcast_to numpy.fromiter numpy.histogram
    """
JIT_ARRAY_METHODS = words("copy astype flatten tolist repeat nonzero argsort cumsum")
JIT_OBJECTS = words("list dict set frozenset str bytes bytearray repr format sorted")


class _Names:
    """Names, some of them by a pattern in which `*` is anything."""

    def __init__(self, patterns: str) -> None:
        self._exact = frozenset(word for word in patterns.split() if "*" not in word)
        self._starred = [(w.partition("*")[0], w) for w in patterns.split() if "*" in w]

    def __contains__(self, name: str) -> bool:
        return name in self._exact or any(
            name.startswith(start) and fnmatchcase(name, word) for start, word in self._starred
        )


_BY_CODE = {code: _Names(patterns) for code, patterns in _CALLS.items()}
_FINE, _CLOCK, _JIT = _Names(_HARMLESS), _Names(CLOCKS), _Names(JIT_ARRAYS)
_BY_METHOD = {method: code for code, methods in METHODS.items() for method in methods.split()}


@lru_cache(maxsize=4096)
def rule_of_call(origin: str) -> str | None:
    """Return the code of the rule that is about calling what came from there."""
    if origin in _FINE:
        return None
    return next((code for code, names in _BY_CODE.items() if origin in names), None)


def rule_of_method(receiver: str, method: str) -> str | None:
    """Return the code of the rule that is about a method of something that nobody knows.

    Args:
        receiver: the last part of what it is called in the code.
        method: its name.
    """
    if method in LOGGER_METHODS and LOGGER_NAME.search(receiver):
        return "XP110"
    return _BY_METHOD.get(method)


def is_clock(origin: str) -> bool:
    """Return whether a call of it asks for the time, or makes a time readable."""
    return origin in _CLOCK


def makes_array(origin: str) -> bool:
    """Return whether a call of it makes a new array."""
    return origin in _JIT
