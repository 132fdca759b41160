"""The history in the state database, bounded by age and by number of rows.

The history decides nothing. So it takes none of the space that is kept for changes, and damaged
fields are left out. The oldest rows are removed a few at a time, and no start and no verb waits for
that. Rejected: to remove them at a start. A history of two million rows delayed it too much.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from iifuse import errors
from iifuse.core.event import Event
from iifuse.store.transitions import REMEDY
from iifuse.store.volumerows import VolumeRows

DAYS_MAX: Final = 400
"""How many days a row is kept: a year, and a month in which people look back at it."""
ROWS_MAX: Final = 100_000
"""The most rows. That is half a year of a hundred sets that are updated, copied, exported and
joined each night."""
ROWS_MIN: Final = 1000
"""So many of the newest rows always stay, because the clock may have been wrong for a moment."""
STEP_ROWS: Final = 200
"""How many rows are removed at a time. The journal has enough space for their pages already."""

_COLUMNS: Final = "time, shadow, event, pit, pit_id, held_ms, chunks, bytes, seconds, why"
_INSERT: Final = f"INSERT INTO history ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608


class HistoryRows(VolumeRows):
    """The table of the history. Each method raises StorageError."""

    def record(self, events: Sequence[Event]) -> None:
        """Add events, all or none. They never use the space that is kept for changes."""
        try:
            self._make_room()
        except OSError as error:
            raise errors.StorageError(self._path, errors.words(error), REMEDY) from error
        with self._changing():
            for event in events:
                self._run(_INSERT, _row_of(event))

    def history(self, shadow: str) -> list[tuple[str, int | None]]:
        """The (event, PIT number) rows of a set, the oldest first."""
        rows = self._rows(
            "SELECT event, pit FROM history WHERE shadow = ? ORDER BY rowid", (shadow,)
        )
        return [(event, pit) for event, pit in rows]

    def events(
        self, subjects: Sequence[str] | None, after: int, count: int
    ) -> list[tuple[int, Event]]:
        """The first `count` events after number `after`, as (number, event), the oldest first.

        `subjects`: only events of these; None: all events.
        """
        where, values = "", []
        if subjects is not None:
            where = f"AND shadow IN ({', '.join('?' * len(subjects))})"
            values = list(subjects)
        rows = self._rows(
            f"SELECT rowid, {_COLUMNS} FROM history WHERE rowid > ? {where} "  # noqa: S608 - marks
            "ORDER BY rowid LIMIT ?",
            (after, *values, count),
        )
        return [(int(number), _event_of(*columns)) for number, *columns in rows]

    def prune(self, before: str) -> bool:
        """Remove a few rows: the oldest of too many, or those older than the time `before`.

        False means that there was nothing to remove; then nothing is written.
        """
        found = self._rows(
            "SELECT id FROM (SELECT rowid AS id, time FROM history ORDER BY rowid LIMIT ?), "
            "(SELECT max(rowid) AS newest FROM history) "
            "WHERE id <= newest - ? OR (id <= newest - ? AND time < ?)",
            (STEP_ROWS, ROWS_MAX, ROWS_MIN, before),
        )
        if found:
            marks = ", ".join("?" * len(found))
            self._run(
                f"DELETE FROM history WHERE rowid IN ({marks})",  # noqa: S608 - only marks
                [number for (number,) in found],
            )
        return bool(found)


def _row_of(event: Event) -> tuple[object, ...]:
    return (
        event.time, event.subject, event.what, event.pit, str(event.pit_id) if event.pit_id else
        None, event.held_ms, event.chunks, event.bytes, event.seconds, event.why,
    )  # fmt: skip


def _event_of(*columns: Any) -> Event:
    time, subject, what, pit, pit_id, held_ms, chunks, size, seconds, why = columns
    return Event(
        str(time), str(subject), str(what), _number(pit), _uuid(pit_id), _measure(held_ms),
        _number(chunks), _number(size), _measure(seconds), None if why is None else str(why),
    )  # fmt: skip


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _measure(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(str(value)) if value is not None else None
    except ValueError:
        return None
