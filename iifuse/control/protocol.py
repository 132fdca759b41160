"""What is asked of the service, and what it answers. Pure: only structs (`lines` has the bytes).

A target names sets by their shadows' paths, or a group, or (with neither) every set where the
verb allows it. Paths are absolute: the client completes them.

A request that would overwrite what may be the only copy of something is answered with Question
unless it is `sure`. The service knows what is at stake; the tool asks, and sends it again.
"""

import json
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec

from iifuse.units import Path

Chunks = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
"""A chunk's number, or how many of them."""
LIMIT_S_MAX: Final = 86_400
DEFAULT_SOCKET: Final = "/run/iifuse/control.sock"
SOCKET_VARIABLE: Final = "IIFUSE_SOCKET"


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sets that a verb is about: `sets`, or all members of `group`."""

    sets: tuple[Path, ...] = ()
    group: str | None = None


class Tuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See state.Policy; what is None stays as it is. `limit_s` in seconds, 0 for no limit."""

    break_write: bool | None = None
    limit_s: Annotated[int, msgspec.Meta(ge=0, le=LIMIT_S_MAX)] | None = None


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="verb"):
    """Base of all requests."""


class Hello(Request, frozen=True, tag="hello"):
    """Who are you? Answered with ServiceInfo."""


class Enable(Request, frozen=True, tag="enable"):
    """`-e`: make a set; with `group` it becomes a member. Answered with Noted.

    `reserve`: all of the shadow's space is allocated now.
    """

    kind: Literal["ind", "dep"]
    master: Path
    shadow: Path
    bitmap: Path
    group: str | None = None
    tuning: Tuning = Tuning()
    reserve: bool = False
    sure: bool = False


class Attach(Request, frozen=True, tag="attach"):
    """`--attach`: take sets in again of which only the bitmap volumes know. Answered with Noted."""

    bitmaps: tuple[Path, ...]
    group: str | None = None


class Tune(Request, frozen=True, tag="tune"):
    """`-o`: what a failing or slow shadow means for the master's writers. Answered with Noted."""

    target: Target
    tuning: Tuning


class Disable(Request, frozen=True, tag="disable"):
    """`-d`. Answered with Noted."""

    target: Target
    sure: bool = False


class Update(Request, frozen=True, tag="flip"):
    """`-u`, `-c` (`full`): a new PIT on all sets at one instant; answered with SetStatus rows."""

    direction: Literal["s", "m"]
    full: bool
    target: Target
    sure: bool = False


class DryRun(Request, frozen=True, tag="dry_run"):
    """`-u`, `-c` with `--dry-run`: what they would copy, or their refusal. Answered with Costs."""

    direction: Literal["s", "m"]
    full: bool
    target: Target


class Abort(Request, frozen=True, tag="abort"):
    """`-a`. Answered with Noted."""

    target: Target


class Wait(Request, frozen=True, tag="wait"):
    """`-w`: answered when no copy of the target runs, at the latest after `timeout` seconds."""

    target: Target
    timeout: Annotated[float, msgspec.Meta(ge=0)] | None = None


class Status(Request, frozen=True, tag="status"):
    """`-i`, `-l`: answered with SetStatus rows; an empty target means every set."""

    target: Target


class History(Request, frozen=True, tag="history"):
    """`--history`: answered with the first HistoryRows, so many, after number `after`.

    A set that is no more is named by its shadow, a volume by itself; an empty target: everything.
    """

    target: Target
    after: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] = 0


class Health(Request, frozen=True, tag="health"):
    """`--health`: answered with Concerns; none when all is well."""


class Reset(Request, frozen=True, tag="reset"):
    """`-R`: bring back what is offline, or take back a lent shadow. Answered with Noted."""

    target: Target
    sure: bool = False


class GiveUp(Request, frozen=True, tag="give_up"):
    """`--give-up`: end an aborted restore half-way. Answered with Noted; it always asks."""

    shadow: Path
    sure: bool = False


class NotRestored(Request, frozen=True, tag="not_restored"):
    """What an aborted restore has not brought, out of `count` chunks from `first` on.

    Answered with Compared; `count` is 1,048,576 at the most.
    """

    shadow: Path
    first: Chunks
    count: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]


class Compare(Request, frozen=True, tag="compare"):
    """Compare what the bits call equal, in `count` chunks from `first`; answered with Compared."""

    shadow: Path
    first: Chunks
    count: Chunks


class MarkChanged(Request, frozen=True, tag="mark_changed"):
    """Count these (first chunk, count) as different. Answered with Noted."""

    shadow: Path
    runs: tuple[tuple[Chunks, Chunks], ...]


class Export(Request, frozen=True, tag="export"):
    """`-E`. Answered with the TicketEntry of each set; otherwise no set was exported.

    `again`: sets that are exported already are left as they are, and are in the answer as well.
    """

    target: Target
    again: bool = False


class Import(Request, frozen=True, tag="import"):
    """`-I`: take in a shadow that another host lends; `ticket` is a path on the service's host.

    Answered with Noted.
    """

    shadow: Path
    bitmap: Path
    ticket: Path | None = None
    sure: bool = False


class CheckImport(Request, frozen=True, tag="check_import"):
    """Everything that Import checks, and nothing done."""

    shadow: Path
    bitmap: Path
    ticket: Path | None = None
    sure: bool = False


class CheckJoin(Request, frozen=True, tag="check_join"):
    """Everything that Join checks, and nothing done."""

    shadow: Path
    bitmap: Path
    accept_unclosed: bool = False


class Join(Request, frozen=True, tag="join"):
    """`-J`: merge a secondary bitmap. Raises NotClosed unless it was closed or is accepted so."""

    shadow: Path
    bitmap: Path
    accept_unclosed: bool = False


class Move(Request, frozen=True, tag="move"):
    """`-g GRP -m`: put sets into a group; an empty name takes them out of theirs."""

    group: str
    sets: tuple[Path, ...]


class Groups(Request, frozen=True, tag="groups"):
    """`-g -L`: answered with the sorted names."""


class Control(Request, frozen=True, tag="control"):
    """`svadm -e`: volumes on the mount with no set. Answered with Noted."""

    volumes: tuple[Path, ...]


class Release(Request, frozen=True, tag="release"):
    """`svadm -d`: take such volumes off the mount. Answered with Noted."""

    volumes: tuple[Path, ...]
    sure: bool = False


class Volumes(Request, frozen=True, tag="volumes"):
    """`svadm -i`: answered with VolumeStatus rows."""


AnyRequest = (
    Hello | Enable | Disable | Update | Abort | Wait | Status | Reset | Export | Import
    | CheckImport | CheckJoin | Join | GiveUp | NotRestored | Compare | MarkChanged | Move | Groups
    | Control | Release | Volumes | Attach | Tune | Health | DryRun | History
)  # fmt: skip


class ServiceInfo(msgspec.Struct, frozen=True):
    """The service that answers."""

    version: str
    pid: int
    mountpoint: str
    state: str
    socket: str = ""


class Noted(msgspec.Struct, frozen=True):
    """Remarks for the user; nothing failed."""

    notes: tuple[str, ...] = ()


class Compared(msgspec.Struct, frozen=True):
    """(first chunk, count) of the chunks that were asked for.

    Compare: their bits say equal and their bytes differ. NotRestored: the restore has still to
    bring them.
    """

    runs: tuple[tuple[int, int], ...]


class Concern(msgspec.Struct, frozen=True):
    """Something that needs attention: a set, a volume or a file; what it is; the way out."""

    subject: str
    what: str
    todo: str


class HistoryRow(msgspec.Struct, frozen=True):
    """An event (core.event.Event). `subject`: None for the service itself. `number`: counts up."""

    number: int
    time: str
    subject: str | None
    event: str
    pit: int | None
    pit_id: UUID | None
    held_ms: float | None
    chunks: int | None
    bytes: int | None
    seconds: float | None
    why: str | None


class Cost(msgspec.Struct, frozen=True):
    """What an update or a copy of a set would copy from `source` to `target`, and why so much."""

    shadow: str
    source: str
    target: str
    chunks: int
    bytes: int
    why: str


class VolumeStatus(msgspec.Struct, frozen=True):
    """One file of the mount. `role`: master, shadow or none (pass-through).

    `missing`: why the path does not lead to the volume: it is late, and has no size yet, or it was
    replaced while in use.
    """

    path: str
    file: str
    role: Literal["master", "shadow", "none"]
    size_bytes: int
    opens: int
    missing: str | None = None


SPACE_TOLD_PERCENT: Final = 80
"""How full the file system of a sparse shadow is when people are told."""


class SetStatus(msgspec.Struct, frozen=True):
    """One row of `iiadm -i --json` (iiadm(8)). What is absent is None.

    `shadow_bits` and `copy_bits` count chunks; `percent` is (shadow OR copy) of all chunks;
    `pit_time` is ISO 8601 with a zone, None of a point in time that nobody knows (`pit` is 0 then).
    """

    master: str | None
    shadow: str
    bitmap: str
    overflow: str | None
    group: str | None
    uuid: UUID
    kind: Literal["independent", "dependent", "compact"]
    progress: Literal["idle", "to_shadow", "to_master"]
    copying: bool
    custody: Literal["local", "exported", "imported"]
    offline: tuple[str, ...]
    offline_reason: str | None
    size_bytes: int
    chunk_bytes: int
    chunks: int
    shadow_bits: int
    copy_bits: int
    percent: float
    pit: int
    pit_id: UUID
    pit_time: str | None
    out_of_space: bool
    export_number: int | None = None
    copied_chunks: int = 0
    """Chunks that the running or the last copy has brought since its PIT."""
    break_write: bool = False
    limit_s: int | None = None
    unjoined: tuple[str, ...] = ()
    """Bitmaps of imports of the last export that are known and not joined: while there are any,
    an update copies everything."""
    space_percent: int | None = None
    """How full the file system of a sparse shadow is."""
    waiting: tuple[str, ...] | None = None
    """Those of `offline` that are not there, and are taken back when they are."""
    replaced: tuple[str, ...] | None = None
    """Volumes in whose place something else stands; offline too, unless the old one is open."""
    ticket: str | None = None
    """Where the ticket of an exported set lies."""
    remote: tuple[str, ...] = ()
    """Volumes on which a call may wait for somebody far away."""

    @property
    def fills(self) -> bool:
        """Is the file system of a sparse shadow nearly full?"""
        return self.space_percent is not None and self.space_percent >= SPACE_TOLD_PERCENT


def to_json(value: object) -> str:
    """JSON for people and scripts: indented, two spaces."""
    return json.dumps(msgspec.to_builtins(value), indent=2)
