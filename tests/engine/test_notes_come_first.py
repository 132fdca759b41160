"""The state database never says less than a header: what a start may show without the bitmap."""

from contextlib import closing
from functools import partial
from sqlite3 import connect

import pytest
from fake_volume import chunks
from harness import CHUNK
from real_engine import service

from iifuse import errors
from iifuse.core.header import Closure, Header
from iifuse.core.state import Custody, Kind, Policy, Progress, Verb
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.statedb import StateDB
from iifuse.verbs import enable, exchange, joining, passthrough, pit, reset
from iifuse.verbs.exchange import Borrowing
from iifuse.verbs.opening import NewSet

CONTENT = chunks("a", "b", "c", "d")


class Night:
    """One engine (and another host's) that goes through every verb; `steps`: their names."""

    def __init__(self, place, main, other):
        self.place, self.main, self.other = place, main, other
        (place / "m").write_bytes(CONTENT)
        (place / "plain").write_bytes(CONTENT)
        self.paths = [str(place / name) for name in ("m", "s", "b")]
        self.shadow = self.paths[1]

    @property
    def member(self):
        return self.main.sets[self.shadow]

    def verbs(self):
        """(name, call) of every verb that changes a set, in an order in which all are allowed."""
        main, other, shadow = self.main, self.other, self.shadow
        dependent = [self.paths[0], str(self.place / "d"), str(self.place / "d.b")]
        yield "-e ind", lambda: enable.enable(main, NewSet(Kind.INDEPENDENT, *self.paths))
        yield "-e dep", lambda: enable.enable(main, NewSet(Kind.DEPENDENT, *dependent))
        for verb in Verb.UPDATE_SHADOW, Verb.COPY_SHADOW, Verb.UPDATE_MASTER, Verb.COPY_MASTER:
            yield str(verb), lambda verb=verb: pit.make(main, verb, [self.member])
        yield "-o", lambda: enable.tune(main, self.member, Policy(break_write=True))
        yield "-E", lambda: exchange.export(main, self.member)
        lent = Borrowing(shadow, str(self.place / "second"))
        yield "-I", lambda: exchange.take_in(other, lent)
        yield "-d of an import", lambda: enable.disable(other, other.sets[shadow])
        join = partial(joining.join, accept_unclosed=False)
        yield "-J", lambda: join(main, self.member, str(self.place / "second"))
        yield "-E again", lambda: exchange.export(main, self.member)
        yield "-R takes back", lambda: reset.reset(main, self.member)
        yield "-d", lambda: enable.disable(main, self.member)
        yield "-d of a dependent", lambda: enable.disable(main, main.sets[dependent[1]])
        yield "svadm -e", lambda: passthrough.control(main, [str(self.place / "plain")])
        yield "svadm -d", lambda: passthrough.release(main, [str(self.place / "plain")])

    async def work(self):
        """Copies come to an end, and a program writes."""
        for copier in list(self.main.copiers.values()):
            await copier.wait()
        if self.paths[0] in self.main.views:
            await self.main.views[self.paths[0]].write(CHUNK, b"new")


@pytest.fixture
async def night(tmp_path):
    async with service(tmp_path / "state") as main, service(tmp_path / "state2") as other:
        yield Night(tmp_path, main, other)


def _row(state, shadow):
    with closing(connect(f"file:{state}/state.db?mode=ro", uri=True)) as db:
        query = "SELECT progress, custody, entering, closing FROM sets WHERE shadow = ?"
        return db.execute(query, (shadow,)).fetchone()


SAFE = {
    Progress.IDLE: {Progress.IDLE, Progress.TO_SHADOW},
    Progress.TO_SHADOW: {Progress.TO_SHADOW},
    Progress.TO_MASTER: {Progress.TO_MASTER},  # and else not: a restore would be begun anew
}
"""What a header is about to mean -> what the database may say."""


def _covers(row, header: Header) -> bool:
    """Would a start that finds this row and no bitmap volume show nothing that is not true?"""
    progress, custody, entering, closing_ = row
    if entering or closing_:
        return True
    if header.custody is Custody.EXPORTED and custody != Custody.EXPORTED:
        return False
    return progress in SAFE[header.pending.progress if header.pending else header.progress]


async def test_header_of_every_verb_is_written_when_the_database_says_as_much(night, monkeypatch):
    """K1: after a kill with the bitmap lost, a half-copied shadow was idle and whole."""
    seen, real = [], BitmapFile.write_header

    def write_header(bitmap, header):
        if header.closure is Closure.JOINED:  # the stamp on another host's bitmap
            return real(bitmap, header)
        host = "state2" if header.custody is Custody.IMPORTED else "state"
        row = _row(night.place / host, header.shadow)
        seen.append((header.progress, header.custody))
        assert row is not None, f"a header of {header.shadow}, which the database does not know"
        assert _covers(row, header), f"{header} and the database says {row}"
        return real(bitmap, header)

    monkeypatch.setattr(BitmapFile, "write_header", write_header)
    for _, call in night.verbs():
        await call()
        await night.work()
    assert {progress for progress, _ in seen} == set(Progress)
    assert {custody for _, custody in seen} == set(Custody)


READ_ONLY = "attempt to write a readonly database"


async def test_verb_that_cannot_be_noted_is_refused_and_has_changed_nothing(night, monkeypatch):
    """K1: each verb is tried first while neither state directory takes a change."""
    real, refuse = StateDB._run, True

    def run(db, statement, values=()):
        if refuse and not statement.startswith(("BEGIN", "COMMIT", "SELECT")):
            raise errors.StorageError(db._path, READ_ONLY, "make room")
        return real(db, statement, values)

    monkeypatch.setattr(StateDB, "_run", run)
    done = []
    for name, call in night.verbs():
        before = _picture(night)
        try:
            await call()
            done.append(name)
        except errors.StorageError as error:
            assert READ_ONLY in str(error)
            assert _picture(night) == before, name
            refuse = False
            await call()
        await night.work()
        refuse = True
    refuse = False
    assert done == ["-o"], "only what the header alone keeps is done without a note"


def _picture(night):
    """All files but the databases, and what the engines know."""
    files = {
        str(path): path.is_file() and path.read_bytes()
        for path in night.place.rglob("*") if not path.name.startswith("state.db")
    }  # fmt: skip
    headers = [s.header for e in (night.main, night.other) for s in e.sets.values()]
    return files, headers, sorted(night.main.views), sorted(night.other.views)
