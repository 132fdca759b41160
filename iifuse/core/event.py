"""One line of the history: what happened to a set, to a volume or to the service."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

SERVICE: Final = ""
"""The subject of an event that concerns the service itself."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. A field that is not known, or does not apply, is None.

    `subject`: the path of a set's shadow, or of a volume with no set. `time`: see `timestamp`.
    `held_ms`: for how many milliseconds writes were held. `chunks` and `bytes`: how much was copied
    since the point in time, or how much the event is about otherwise. `seconds`: how long that
    took. `why`: the reason, for people.
    """

    time: str
    subject: str
    what: str
    pit: int | None = None
    pit_id: UUID | None = None
    held_ms: float | None = None
    chunks: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    why: str | None = None


def timestamp(time_s: float) -> str:
    """ISO 8601 in UTC with milliseconds. These texts are in the same order as their times."""
    text = datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
