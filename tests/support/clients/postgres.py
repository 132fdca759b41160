"""PostgreSQL on directories of a test: made, loaded, stopped, and looked at from every side.

The server runs as the user `postgres`, reached only by a socket; the newest version that the system
has is taken. Data and log (WAL) lie on file systems of their own; the link between them is
relative, so that a copy of both finds itself.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import psycopg
from devices import eventually
from hang import PATIENCE_SECONDS

USER = "postgres"
BASE = "bench"
SETTINGS = """
listen_addresses = ''
fsync = on
full_page_writes = on
shared_buffers = 16MB
max_connections = 20
max_wal_size = 64MB
min_wal_size = 2MB
checkpoint_timeout = 30s
autovacuum_naptime = 1s
recovery_init_sync_method = syncfs
"""


def _programs() -> Path:
    found = Path("/usr/lib/postgresql").glob("*/bin")
    return max(found, key=lambda path: float(path.parent.name))


class Server:
    """One server on `root/data` and `root/wal`; `root` must be open to everybody."""

    def __init__(self, root: Path) -> None:
        self.root, self.data, self.wal = root, root / "data" / "pg", root / "wal" / "pg"
        self.socket = root / "socket"
        self.log = root / "log"
        self.pid = 0

    def run(self, program: str, *words: object) -> str:
        """One of PostgreSQL's programs, as its user; what it says. AssertionError if it fails."""
        done = subprocess.run(
            [str(_programs() / program), *map(str, words)],
            user=USER, group=USER, extra_groups=[], cwd="/", check=False, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=PATIENCE_SECONDS, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        assert done.returncode == 0, f"{program}: {done.stdout}{self.said()}"
        return done.stdout

    def said(self) -> str:
        return self.log.read_text()[-3000:] if self.log.exists() else ""

    # -- life -------------------------------------------------------------------------------

    def make(self) -> None:
        """A new cluster, with checksums."""
        for directory in (self.data, self.wal):
            directory.mkdir()
            shutil.chown(directory, USER, USER)
            directory.chmod(0o700)
        self.run(
            "initdb", "-D", self.data, "-X", self.wal, "--data-checksums", "--wal-segsize=1",
            "--auth=trust", "--no-instructions",
        )  # fmt: skip
        link = self.data / "pg_wal"
        link.unlink()
        link.symlink_to(os.path.relpath(self.wal, self.data))
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(SETTINGS)
        subprocess.run(["sync", "-f", str(self.data), str(self.wal)], check=True)

    def start(self) -> None:
        """Start, with recovery where it is needed."""
        self.socket.mkdir(exist_ok=True)
        shutil.chown(self.socket, USER, USER)
        self.log.touch()
        shutil.chown(self.log, USER, USER)
        options = f"-c unix_socket_directories={self.socket}"
        self.run("pg_ctl", "-D", self.data, "-l", self.log, "-o", options, "-w", "start")
        self.pid = int((self.data / "postmaster.pid").read_text().split()[0])

    def stop(self) -> None:
        """A shutdown in order, with a checkpoint."""
        self.run("pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop")
        self.pid = 0

    def kill(self) -> None:
        """All its processes end at once, whatever has become of its disks."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGQUIT)  # its children hear of it from it
            eventually(lambda: not Path(f"/proc/{self.pid}").exists(), "the server ends")
            self.pid = 0

    # -- what is in it ----------------------------------------------------------------------

    def connect(self, base: str = BASE) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self.socket), user=USER, dbname=base, autocommit=True, connect_timeout=20
        )

    def fill(self) -> None:
        """pgbench's tables, and one for the clerk."""
        with self.connect("postgres") as db:
            db.execute(f"CREATE DATABASE {BASE}")
        self.run("pgbench", "-h", self.socket, "--initialize", "--quiet", "--scale=1", BASE)
        with self.connect() as db:
            db.execute("CREATE EXTENSION amcheck")
            db.execute("CREATE TABLE noted (n bigint PRIMARY KEY, text text)")

    def noted(self) -> int:
        """The rows of the clerk, none of which is missing; pgbench's four sums agree."""
        with self.connect() as db:
            sums = db.execute(
                "SELECT (SELECT sum(abalance) FROM pgbench_accounts),"
                " (SELECT sum(tbalance) FROM pgbench_tellers),"
                " (SELECT sum(bbalance) FROM pgbench_branches),"
                " (SELECT coalesce(sum(delta), 0) FROM pgbench_history)"
            ).fetchone()
            assert len(set(sums)) == 1, f"the sums differ: {sums}"
            rows, last = db.execute("SELECT count(*), coalesce(max(n), 0) FROM noted").fetchone()
            assert rows == last
        return last

    def check(self) -> None:
        """Every index, and every row in every index."""
        self.run("pg_amcheck", "-h", self.socket, "--heapallindexed", BASE)

    def check_pages(self) -> None:
        """The checksum of every page; the server is down."""
        self.run("pg_checksums", "--check", "-D", self.data)

    def load(self) -> "subprocess.Popen[bytes]":
        """pgbench, until it is ended."""
        words = ("-h", self.socket, "-U", USER, "-n", "-c", 3, "-T", 600, BASE)
        return subprocess.Popen(
            [str(_programs() / "pgbench"), *map(str, words)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


class Clerk(threading.Thread):
    """Inserts one row after the other. `rows`: those acknowledged, which must never be missing.

    It ends when it is told to, or when the server dies under it.
    """

    def __init__(self, server: Server, rows: int = 0) -> None:
        super().__init__(daemon=True)
        self.rows = rows
        self.enough = threading.Event()
        self._db = server.connect()
        self.start()

    def run(self) -> None:
        with contextlib.suppress(psycopg.Error):
            while not self.enough.is_set():
                self._db.execute(
                    "INSERT INTO noted VALUES (%s, repeat('x', %s))",
                    (self.rows + 1, 10 + self.rows * 37 % 900),
                )
                self.rows += 1
        self._db.close()

    def reach(self, more: int) -> None:
        """Wait until so many rows more are acknowledged."""
        goal = self.rows + more
        eventually(lambda: self.rows >= goal or not self.is_alive(), f"{more} rows")
        assert self.is_alive()

    def finish(self) -> None:
        self.enough.set()
        self.join(PATIENCE_SECONDS)
        assert not self.is_alive()
