"""One line of the history: what happened to a set or a volume, or to the service itself."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

SERVICE: Final = ""
"""The subject of what the service does by itself."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. A field that is not known, or does not apply, is None.

    `subject`: the path of a set's shadow, or of a volume with no set. `time`: see `written`.
    `held_ms`: how long writes were held. `chunks`, `bytes`: copied since the point in time, or
    what else the event is about; `seconds`: how long that took. `why`: the reason, for people.
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


def written(time_s: float) -> str:
    """ISO 8601 in UTC, milliseconds: two of them compare as the times do."""
    text = datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
