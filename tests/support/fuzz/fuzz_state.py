"""Fuzzed state directory: the record of group commands, and the state database."""

import contextlib
import os
import sqlite3
import struct
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from random import Random
from unittest.mock import patch
from uuid import UUID

import msgspec
from fuzz_garble import EDGES, TEXTS, garble, number
from fuzz_loop import Part

from iifuse import errors
from iifuse.core import header as fmt
from iifuse.core.event import Event
from iifuse.core.header import Header, Pit
from iifuse.core.state import Change, Custody, Kind, Progress
from iifuse.core.transition import Member, Transition, unfinished
from iifuse.store.setrow import SetRow
from iifuse.store.statedb import StateDB
from iifuse.store.transitions import TransitionFile

SLOT = 1024
_HEAD = struct.Struct("<8sQII")
SHADOWS = ("/s1", "/s2", "/s3")


def memory() -> str | None:
    """Where a sync costs nothing."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


# -- the record of group commands -------------------------------------------------------------


@contextmanager
def _transitions():
    members = tuple(Member(UUID(int=n), n, n + 1, Change.CLEAR) for n in range(1, 4))
    with (
        patch("iifuse.store.transitions.SLOT_BYTES", SLOT),
        tempfile.TemporaryDirectory(prefix="iifuse-fuzz-", dir=memory()) as folder,
    ):
        path = Path(folder, "transitions")
        file = TransitionFile.open(folder)
        file.begin(Transition(UUID(int=8), UUID(int=9), 10**18, members))
        file.close()
        good = path.read_bytes()

        def try_one(random: Random) -> bool:
            path.write_bytes(_record(random, good))
            return _judge_record(folder)

        yield try_one


def _record(random: Random, good: bytes) -> bytes:
    """One slot garbled in its numbers or bytes, mostly with the right checksum."""
    blob = bytearray(good)
    _, sequence, length, _ = _HEAD.unpack_from(blob)
    body = bytearray(blob[_HEAD.size : _HEAD.size + length])
    if random.random() < 0.6:
        found = msgspec.msgpack.decode(bytes(body))
        member = random.choice(found["transition"]["members"])
        place = random.choice((member, member, found["transition"], found))
        texts = random.random() < 0.3
        place[random.choice(list(place))] = (
            random.choice(TEXTS[:6]) if texts else random.choice((-1, 1)) * number(random, 63)
        )
        with contextlib.suppress(UnicodeEncodeError):
            body = bytearray(msgspec.msgpack.encode(found))
    else:
        body = garble(random, body, most=3)[: SLOT - _HEAD.size]
    sequence = random.choice((sequence, sequence, (1 << 64) - 1))
    crc = zlib.crc32(body, zlib.crc32(struct.pack("<Q", sequence)))
    crc ^= random.random() < 0.1
    blob[: _HEAD.size + len(body)] = _HEAD.pack(b"iifusetr", sequence, len(body), crc) + body
    return bytes(blob) if random.random() < 0.9 else bytes(garble(random, blob))


def _judge_record(folder: str) -> bool:
    try:
        file = TransitionFile.open(folder)
    except (errors.ServiceError, errors.BadVolume):
        return False
    try:
        found = file.standing
        for transition in found:
            for member in transition.members:
                _repeat(transition, member)
        file.finish()
        assert file.standing == ()
    finally:
        file.close()
    return bool(found)


def _repeat(found: Transition, member: Member) -> None:
    """The header that a start would write for the member is one that can be read."""
    header = Header(
        uuid=member.uuid, kind=Kind.INDEPENDENT, size_bytes=1 << 20, master="/m", shadow="/s",
        bitmap="/b", pit=Pit(member.old_pit),
    )  # fmt: skip
    repeated = unfinished((found,), header)
    if repeated is not None:
        assert fmt.unpack("/b", fmt.pack(repeated)) == repeated
        done = repeated.completed()
        assert fmt.unpack("/b", fmt.pack(done)) == done


# -- the state database -----------------------------------------------------------------------


@contextmanager
def _databases():
    with tempfile.TemporaryDirectory(prefix="iifuse-fuzz-", dir=memory()) as folder:
        path = Path(folder, "state.db")
        db = StateDB(folder)
        for number_, shadow in enumerate(SHADOWS):
            db.add_set(SetRow(
                shadow, UUID(int=number_), "/m", f"{shadow}.b", "grp", 1 << 20, Kind.INDEPENDENT
            ))  # fmt: skip
            db.record([Event("2026-01-01T00:00:00.000Z", shadow, "enable", 1)])
        db.add_volumes(["/m"])
        db.close()
        good = path.read_bytes()

        def try_one(random: Random) -> bool:
            for old in Path(folder).iterdir():
                old.unlink()
            path.write_bytes(good)
            if random.random() < 0.6:
                _change_rows(random, path)
            else:
                path.write_bytes(garble(random, good))
            return _judge_database(folder)

        yield try_one


_STATEMENTS = (
    "UPDATE sets SET {column} = ? WHERE shadow = '/s2'",
    "UPDATE sets SET {column} = ? WHERE shadow = '/s2'",
    "UPDATE sets SET {column} = ? WHERE shadow = '/s2'",
    "UPDATE history SET pit = ?",
    "UPDATE volumes SET path = ?",
    "ALTER TABLE sets DROP COLUMN {column}",
    "ALTER TABLE sets RENAME COLUMN {column} TO other",
    "DROP TABLE {table}",
    "PRAGMA user_version = {version}",
    "CREATE TRIGGER no BEFORE INSERT ON sets BEGIN SELECT raise(ABORT, 'no'); END",
)


def _change_rows(random: Random, path: Path) -> None:
    """What another program, another version or a bad disk may have made of the tables."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        columns = [row[1] for row in other.execute("PRAGMA table_info(sets)")]
        for _ in range(random.randint(0, 2)):
            statement = random.choice(_STATEMENTS).format(
                column=f'"{random.choice(columns)}"',
                table=random.choice(("sets", "history", "volumes")),
                version=random.choice((0, 1, 2, 7, -1)),
            )
            values = (_value(random),) if "?" in statement else ()
            with contextlib.suppress(sqlite3.Error, UnicodeEncodeError):
                other.execute(statement, values)


def _value(random: Random) -> object:
    kind = random.randrange(5)
    if kind < 2:
        return random.choice(TEXTS)
    if kind == 2:
        return min(random.choice(EDGES), (1 << 63) - 1) * random.choice((-1, 1))
    return random.choice((None, 0.5, b"", b"/bytes", b"\xff\xfe", 10**15))


def _judge_database(folder: str) -> bool:
    try:
        db = StateDB(folder)
    except errors.ServiceError:
        return False
    try:
        rows = db.sets()
        assert all(isinstance(path, str) for path in db.volumes())
        for row in rows:
            db.history(row.shadow)
            db.remember(_judge_row(row))
            db.doubt(row.shadow, "no longer believed")
            assert next(r for r in db.sets() if r.shadow == row.shadow).doubt
        db.add_set(SetRow("/new", UUID(int=5), None, "/new.b", None, 1, Kind.INDEPENDENT,
                          custody=Custody.IMPORTED))  # fmt: skip
    except (errors.ServiceError, errors.StorageError):
        return False
    finally:
        db.close()
    return True


def _judge_row(row: SetRow) -> Header:
    assert isinstance(row.uuid, UUID)
    assert isinstance(row.progress, Progress)
    assert 0 < row.size_bytes < 1 << 60
    header = Header(
        uuid=row.uuid, kind=row.kind, size_bytes=row.size_bytes, master=row.master or "",
        shadow=row.shadow, bitmap=row.bitmap, progress=row.progress, session=row.session,
        custody=row.custody, sequence=row.sequence,
    )  # fmt: skip
    with contextlib.suppress(errors.UsageError):  # paths that are too long together
        fmt.pack(header)
    return header


PARTS = [Part("transitions", 1500, _transitions), Part("state database", 500, _databases)]
