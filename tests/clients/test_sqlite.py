"""SQLite, straight on a file of the mount and on a file system over it."""

import sqlite3
import subprocess
import threading

import pytest
from devices import detach, eventually, unmount
from filesystems import SIZES, make

TABLE = "CREATE TABLE t (n INTEGER PRIMARY KEY, text BLOB)"


def intact(uri):
    """The number of rows of a database that is without a fault."""
    db = sqlite3.connect(f"file:{uri}", uri=True)
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows, least, most = db.execute("SELECT count(*), min(n), max(n) FROM t").fetchone()
        assert (least, most) == (1, rows)
    finally:
        db.close()
    return rows


class Clerk(threading.Thread):
    """Commits transactions of ten rows each until told to stop. `rows`: those acknowledged."""

    def __init__(self, path, *pragmas):
        super().__init__()
        self.path, self.pragmas = path, pragmas
        self.rows = 0
        self.failure = None
        self.enough = threading.Event()
        self.between = threading.Lock()
        self.start()

    def run(self):
        try:
            db = sqlite3.connect(self.path, isolation_level=None)
            for pragma in self.pragmas:
                db.execute(f"PRAGMA {pragma}").fetchall()
            while not self.enough.is_set():
                with self.between:
                    self.transaction(db)
            db.close()
        except Exception as error:
            self.failure = error

    def transaction(self, db):
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            "INSERT INTO t VALUES (?, randomblob(300))",
            [(self.rows + n,) for n in range(1, 11)],
        )
        db.execute("UPDATE t SET text = randomblob(200) WHERE n % 17 = ?", (self.rows // 10 % 17,))
        db.execute("COMMIT")
        self.rows += 10

    def reach(self, more):
        """Wait until this many rows more are committed."""
        goal = self.rows + more
        eventually(lambda: self.rows >= goal or self.failure, f"{more} rows more")
        assert self.failure is None, self.failure

    def finish(self):
        self.enough.set()
        self.join(60)
        assert self.failure is None, self.failure


def test_database_on_a_file_of_the_mount_is_intact_at_every_point_in_time(service, place):
    master, shadows = place / "m", [place / "ind", place / "dep"]
    db = sqlite3.connect(master)
    db.execute(TABLE)
    db.close()
    with master.open("r+b") as file:
        file.truncate(32 << 20)
    service.enable("ind", master, shadows[0])
    service.enable("dep", master, shadows[1])
    # a disk has no place for a journal beside it, and never becomes shorter
    clerk = Clerk(service.path(master), "journal_mode=MEMORY", "synchronous=FULL")
    try:
        for _ in range(4):
            clerk.reach(100)
            with clerk.between:  # quiesced: no transaction is under way
                service.flip("s", *shadows)
                rows = clerk.rows
            clerk.reach(50)
            for shadow in shadows:
                assert intact(f"{service.path(shadow)}?mode=ro&immutable=1") == rows
    finally:
        clerk.finish()
    rows = clerk.rows
    assert intact(f"{service.path(master)}?mode=ro") == rows
    service.wait(shadows[0])
    service.restart()
    assert intact(f"{service.path(master)}?mode=ro") == rows
    service.flip("m", shadows[1])
    assert intact(f"{service.path(master)}?mode=ro&immutable=1") < rows
    service.wait(shadows[1])
    assert service.stop() == 0
    assert intact(f"{master}?mode=ro&immutable=1") < rows


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_database_on_ext4_recovers_from_every_point_in_time(
    service, place, attach, mounted, journal, kind
):
    master, shadow = place / "m", place / "s"
    with master.open("wb") as file:
        file.truncate(SIZES["ext4"])
    service.enable(kind, master, shadow)
    device = attach(service.path(master))
    make("ext4", device)
    live = mounted(device, "live")
    db = sqlite3.connect(live / "bank.db")
    db.execute(f"PRAGMA journal_mode={journal}").fetchall()
    db.execute(TABLE)
    db.close()
    # with FULL the removal of a journal, which is the commit, need not be durable
    clerk = Clerk(live / "bank.db", f"journal_mode={journal}", "synchronous=EXTRA")
    try:
        for _ in range(3):
            clerk.reach(40)
            before = clerk.rows
            service.flip("s", shadow)
            after = clerk.rows + 10  # one may be committed and not yet counted
            clerk.reach(20)
            copy = attach(service.path(shadow))
            directory = mounted(copy, "copy")
            assert before <= intact(directory / "bank.db") <= after
            unmount(directory)
            subprocess.run(["e2fsck", "-fn", copy], check=True, capture_output=True)
            detach(copy)
    finally:
        clerk.finish()
    assert intact(live / "bank.db") == clerk.rows
    unmount(live)
    subprocess.run(["e2fsck", "-fn", device], check=True, capture_output=True)
    detach(device)
    assert service.stop() == 0
