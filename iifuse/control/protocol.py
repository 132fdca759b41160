"""The requests to the service and its answers. `lines` turns these structs into bytes.

A target names sets by the paths of their shadows, or it names a group. If it names neither, it
means every set, where the verb allows that. Paths are absolute: the client makes them so.

A request that would overwrite what may be the only copy of something is answered with Question,
unless it is `sure`. Then the tool asks its user and sends the request again.
"""

import json
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec

from iifuse.units import Path

Chunks = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
"""The number of a chunk, or a number of chunks."""
LIMIT_S_MAX: Final = 86_400
DEFAULT_SOCKET: Final = "/run/iifuse/control.sock"
SOCKET_VARIABLE: Final = "IIFUSE_SOCKET"


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sets that a verb works on: `sets`, or all sets of `group`."""

    sets: tuple[Path, ...] = ()
    group: str | None = None


class Tuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change of a policy (state.Policy). A field that is None stays as it is."""

    break_write: bool | None = None
    limit_s: Annotated[int, msgspec.Meta(ge=0, le=LIMIT_S_MAX)] | None = None


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="verb"):
    """The base class of all requests."""


class Hello(Request, frozen=True, tag="hello"):
    """Asks which service this is. Answered with ServiceInfo."""


class Enable(Request, frozen=True, tag="enable"):
    """`-e`: make a set, and put it into `group`. Answered with Noted.

    `reserve`: allocate all of the shadow's space now.
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
    """`--attach`: bring back the sets of these bitmap volumes. Answered with Noted."""

    bitmaps: tuple[Path, ...]
    group: str | None = None


class Tune(Request, frozen=True, tag="tune"):
    """`-o`: change what a failing or slow shadow means for writers. Answered with Noted."""

    target: Target
    tuning: Tuning


class Disable(Request, frozen=True, tag="disable"):
    """`-d`: take sets apart. Answered with Noted."""

    target: Target
    sure: bool = False


class Update(Request, frozen=True, tag="flip"):  # the tag stays, for tools of other versions
    """`-u` and `-c` (`full`): make a new PIT on all sets. Answered with SetStatus rows."""

    direction: Literal["s", "m"]
    full: bool
    target: Target
    sure: bool = False


class DryRun(Request, frozen=True, tag="dry_run"):
    """`-u` and `-c` with `--dry-run`: say what they would copy. Answered with Cost rows."""

    direction: Literal["s", "m"]
    full: bool
    target: Target


class Abort(Request, frozen=True, tag="abort"):
    """`-a`: abort the running copies. Answered with Noted."""

    target: Target


class Wait(Request, frozen=True, tag="wait"):
    """`-w`: wait for the copies, `timeout` seconds at most. Answered with Noted."""

    target: Target
    timeout: Annotated[float, msgspec.Meta(ge=0)] | None = None


class Status(Request, frozen=True, tag="status"):
    """`-i` and `-l`. Answered with a SetStatus for each set. An empty target means every set."""

    target: Target


class History(Request, frozen=True, tag="history"):
    """`--history`: answered with some HistoryRows, the first after number `after`.

    A disabled set is named by its shadow, and a volume by its path. An empty target means all.
    """

    target: Target
    after: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] = 0


class Health(Request, frozen=True, tag="health"):
    """`--health`: answered with Concerns, or none if all is well."""


class Reset(Request, frozen=True, tag="reset"):
    """`-R`: bring back what is offline, or take back an exported shadow. Answered with Noted."""

    target: Target
    sure: bool = False


class GiveUp(Request, frozen=True, tag="give_up"):
    """`--give-up`: end an aborted restore. Answered with Noted; unless `sure`, with Question."""

    shadow: Path
    sure: bool = False


class NotRestored(Request, frozen=True, tag="not_restored"):
    """Asks which of `count` chunks from `first` on are not restored. Answered with Compared."""

    shadow: Path
    first: Chunks
    count: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]


class Compare(Request, frozen=True, tag="compare"):
    """Compare, of `count` chunks from `first` on, those with equal bits. Answered with Compared."""

    shadow: Path
    first: Chunks
    count: Chunks


class MarkChanged(Request, frozen=True, tag="mark_changed"):
    """Count these runs, (first chunk, count), as different. Answered with Noted."""

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
    """Do all checks of Import, but change nothing. Answered with Noted."""

    shadow: Path
    bitmap: Path
    ticket: Path | None = None
    sure: bool = False


class CheckJoin(Request, frozen=True, tag="check_join"):
    """Do all checks of Join, but change nothing. Answered with Noted."""

    shadow: Path
    bitmap: Path
    accept_unclosed: bool = False


class Join(Request, frozen=True, tag="join"):
    """`-J`: merge a secondary bitmap, which has to be closed or accepted. Answered with Noted."""

    shadow: Path
    bitmap: Path
    accept_unclosed: bool = False


class Move(Request, frozen=True, tag="move"):
    """`-g GRP -m`: put sets into a group; an empty name takes them out of theirs."""

    group: str
    sets: tuple[Path, ...]


class Groups(Request, frozen=True, tag="groups"):
    """`-g -L`: answered with the names of all groups, sorted."""


class Control(Request, frozen=True, tag="control"):
    """`svadm -e`: put volumes on the mount without a set. Answered with Noted."""

    volumes: tuple[Path, ...]


class Release(Request, frozen=True, tag="release"):
    """`svadm -d`: take such volumes off the mount. Answered with Noted."""

    volumes: tuple[Path, ...]
    sure: bool = False


class Volumes(Request, frozen=True, tag="volumes"):
    """`svadm -i`: answered with a VolumeStatus for each file of the mount."""


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
    """Runs of chunks, as (first chunk, count).

    After Compare: the chunks whose bits say equal and whose bytes differ. After NotRestored: the
    chunks that the restore has not restored.
    """

    runs: tuple[tuple[int, int], ...]


class Concern(msgspec.Struct, frozen=True):
    """Something that needs attention.

    `subject`: a set, a volume or a file. `what`: what is wrong. `todo`: what to do about it.
    """

    subject: str
    what: str
    todo: str


class HistoryRow(msgspec.Struct, frozen=True):
    """An event (core.event.Event).

    `subject`: None for an event of the service itself. `number` rises from row to row.
    """

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
    """What an update or a copy of a set would copy, and why so much."""

    shadow: str
    source: str
    target: str
    chunks: int
    bytes: int
    why: str


class VolumeStatus(msgspec.Struct, frozen=True):
    """One file of the mount. `role`: master, shadow or none (pass-through).

    `missing`: why the path does not lead to the volume. Either the volume is still missing, and its
    size is not known, or it was replaced while in use.
    """

    path: str
    file: str
    role: Literal["master", "shadow", "none"]
    size_bytes: int
    opens: int
    missing: str | None = None


SPACE_TOLD_PERCENT: Final = 80
"""From this percentage on, people are told how full the file system of a sparse shadow is."""


class SetStatus(msgspec.Struct, frozen=True):
    """One row of `iiadm -i --json` (iiadm(8)). A field that does not apply is None.

    `shadow_bits` and `copy_bits` are numbers of chunks. `percent` is the share of chunks with
    either bit. `pit_time` is ISO 8601 with a zone. If the point in time is not known, `pit` is 0
    and `pit_time` is None.
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
    """Chunks that the running or the last copy has copied since its PIT."""
    break_write: bool = False
    limit_s: int | None = None
    unjoined: tuple[str, ...] = ()
    """The bitmaps of known imports of the last export that are not joined. If there is one, an
    update copies everything."""
    space_percent: int | None = None
    """How full the file system of a sparse shadow is, in percent."""
    waiting: tuple[str, ...] | None = None
    """Volumes of `offline` that are missing. The set takes them back when they return."""
    replaced: tuple[str, ...] | None = None
    """Volumes whose paths lead to another file. Each is offline too, unless it is still open."""
    ticket: str | None = None
    """The path of the ticket of an exported set."""
    remote: tuple[str, ...] = ()
    """Volumes on which a call may have to wait for another machine."""

    @property
    def fills(self) -> bool:
        """Is the file system of a sparse shadow nearly full?"""
        return self.space_percent is not None and self.space_percent >= SPACE_TOLD_PERCENT


def to_json(value: object) -> str:
    """JSON for people and scripts, indented by two spaces."""
    return json.dumps(msgspec.to_builtins(value), indent=2)
