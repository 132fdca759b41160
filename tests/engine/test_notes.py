"""What the engine keeps in the state database."""

import pytest

from iifuse import errors
from iifuse.host.notes import Notes
from iifuse.loop.loop import Loop


class FullDatabase:
    """Remembers rows by name; with `full`, nothing can be changed."""

    def __init__(self):
        self.rows, self.full = [], False

    def _change(self):
        if self.full:
            raise errors.StorageError("state.db", "is full")

    def add_set(self, row):
        self._change()
        assert row not in self.rows
        self.rows.append(row)

    def remove_set(self, name):
        self._change()
        if name in self.rows:
            self.rows.remove(name)


def test_row_that_could_not_be_removed_is_in_nobodys_way_once_there_is_room():
    db = FullDatabase()
    notes = Notes(db, Loop())
    notes.enter("s")
    db.full = True
    for verb in (notes.forget, notes.enter):
        with pytest.raises(errors.StorageError):
            verb("s")
    db.full = False
    notes.enter("s")
    notes.enter("other")
    assert db.rows == ["s", "other"]
