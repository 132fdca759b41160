"""What was promised is on the disk: real file systems, cut off from power after each promise."""

import sqlite3
import subprocess
from contextlib import closing
from uuid import UUID

import pytest
from power_cut import power_disk

from iifuse.core.state import Kind
from iifuse.store.names import make_directory
from iifuse.store.setrow import SetRow
from iifuse.store.statedb import StateDB

__all__ = ["power_disk"]

CHUNK = 32 * 1024

ONE = SetRow("/s1", UUID(int=1), "/m", "/b1", None, 1 << 20, Kind.INDEPENDENT)


def _content(directory) -> list[str]:
    with closing(sqlite3.connect(directory / "state.db")) as db:
        return list(db.iterdump())


@pytest.mark.finding("K1.1")
def test_state_change_is_there_after_a_power_cut_that_follows_its_return(power_disk):
    """K1: with a journal that is removed and not synced, each change was undone for seconds."""
    state = power_disk.root / "deep" / "state"
    make_directory(str(state))
    with power_disk.cut() as root:
        assert (root / "deep" / "state").is_dir()
    with closing(StateDB(str(state))) as db:
        changes = (
            lambda: None,
            lambda: db.add_set(ONE),
            lambda: db.doubt("/s1", "its bitmap failed"),
            lambda: db.move_sets(["/s1"], "night"),
            lambda: db.begin_session(7, {"/s1": 0}),
            lambda: db.add_volumes(["/v"]),
            lambda: db.remove_set("/s1"),
        )
        for change in changes:
            change()
            with power_disk.cut() as root:
                assert _content(root / "deep" / "state") == _content(state)


def test_stop_makes_the_times_durable_that_it_notes(power_disk, new_service):
    """By them the next start knows that nobody wrote; else a dependent shadow is lost."""
    place = power_disk.root / "vol"
    place.mkdir()
    master, shadow = place / "m", place / "s"
    master.write_bytes(b"1" * 3 * CHUNK)
    service = new_service()  # its state lies elsewhere: no journal takes the times along
    service.enable("dep", master, shadow)
    subprocess.run(["sync", "-f", place], check=True)
    service.write(master, 0, b"2" * 100)
    assert service.stop() == 0
    with power_disk.cut() as root:
        for path in (master, shadow):
            found = root / path.relative_to(power_disk.root)
            assert found.stat().st_mtime_ns == path.stat().st_mtime_ns
