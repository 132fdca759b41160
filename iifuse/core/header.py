"""The header of a bitmap volume. It has two slots, of which the newer counts (iifuse-bitmap(5))."""

import struct
import zlib
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final
from uuid import UUID

from iifuse import errors
from iifuse.core.geometry import CHUNK_BYTES, Geometry
from iifuse.core.state import (
    NOTHING_OFFLINE,
    Change,
    Custody,
    Kind,
    Policy,
    Progress,
    Role,
    SetState,
)
from iifuse.core.times import TIME_NS_MAX, Times
from iifuse.units import ceil_div

MAGIC: Final = b"iifusebm"
VERSION: Final = 2
"""The version of every header that is written. A header of version 1 ends with `joined`."""
SLOT_BYTES: Final = 12 * 1024
SLOT_OFFSETS: Final = (0, SLOT_BYTES)
PATH_BYTES_MAX: Final = 4096
PATHS_BYTES_MAX: Final = 9 * 1024
"""The most bytes for the three paths together, so that there is still room for a reason."""
REASON_CHARACTERS_MAX: Final = 512
JOINED_MAX: Final = 8
"""How many imports of the last export a header remembers as joined."""

_SECTOR_BYTES: Final = 512
_NIL: Final = UUID(int=0)
_PREFIX: Final = struct.Struct("<8sIIII")  # magic, version, length, crc, incompatible features
_FIXED: Final = struct.Struct(
    "<Q16sBBBBBBBBIIQ"  # sequence .. size_bytes
    "Q16sqQ16s16s"  # pit .. boot_id
    "BBBxxxxxQ16sq16s"  # pending .. transition_id
    "qqqqqqBB2xIHHHH"  # volume stamps .. limit_s, lengths of reason and of three paths
)
_ADDED: Final = struct.Struct("<6qQqQq")  # after `joined`, since version 2: times, files


class BitmapRole(IntEnum):
    """Whose bitmap this is: that of a set with its master, or that of an imported shadow."""

    MAIN = 1
    IMPORTED = 2


class Closure(IntEnum):
    """Whether a bitmap is still in use."""

    OPEN = 0
    CLOSED = 1
    """`-d` has closed it: its bits do not change any more."""
    JOINED = 2
    """`-J` has merged it into the bitmap of the set that was exported."""


@dataclass(frozen=True, slots=True)
class Pit:
    """A point in time.

    `number` counts the points in time of its set. `id` is common to all sets of one command.
    `time_ns` is in nanoseconds since 1970, UTC.
    """

    number: int = 0
    id: UUID = _NIL
    time_ns: int = 0


@dataclass(frozen=True, slots=True)
class Stamp:
    """Size and times of a volume's file after the service had last written it.

    The times are in nanoseconds since 1970. If all fields are 0, the stamp is unknown. `ctime_ns`
    is 0 while the volume is in use, because others may rename the file or change its owner then. So
    that field counts only after a clean stop.
    """

    size_bytes: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0

    def differs(self, now: "Stamp") -> bool:
        """Was the file written since then? `now` is its stamp at this moment."""
        if self == Stamp():
            return False
        return self != (now if self.ctime_ns else replace(now, ctime_ns=0))


@dataclass(frozen=True, slots=True)
class FileId:
    """Inode number and birth time of a file, by which it differs from another of the same name.

    `birth_ns` is in nanoseconds since 1970. A field of 0 is unknown.
    """

    inode: int = 0
    birth_ns: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """Everything that defines a set. `sequence` rises by one with each commit."""

    uuid: UUID
    kind: Kind
    size_bytes: int
    master: str
    shadow: str
    bitmap: str
    sequence: int = 0
    role: BitmapRole = BitmapRole.MAIN
    progress: Progress = Progress.IDLE
    copying: bool = False
    custody: Custody = Custody.LOCAL
    offline: Role = NOTHING_OFFLINE
    offline_reason: str = ""
    clean: bool = False
    process_durability: bool = False
    closure: Closure = Closure.OPEN
    restored_offline: bool = False
    """`iibitmap finish` has written to the master. It knows no other set of that master, so the
    next start has to doubt those."""
    pit: Pit = field(default_factory=Pit)
    export_number: int = 0
    import_id: UUID = _NIL
    boot_id: UUID = _NIL
    pending: Change = Change.NONE
    pending_pit: Pit = field(default_factory=Pit)
    transition_id: UUID = _NIL
    master_stamp: Stamp = field(default_factory=Stamp)
    shadow_stamp: Stamp = field(default_factory=Stamp)
    joined: tuple[UUID, ...] = ()
    policy: Policy = field(default_factory=Policy)
    session: int = 0
    """A random number that each start draws anew and keeps in the state database as well. By it the
    service recognises an older copy of a bitmap volume."""
    master_times: Times = field(default_factory=Times)
    shadow_times: Times = field(default_factory=Times)
    master_file: FileId = field(default_factory=FileId)
    shadow_file: FileId = field(default_factory=FileId)

    @property
    def state(self) -> SetState:
        """The part of the header that decides what may be done with the set."""
        return SetState(self.kind, self.progress, self.copying, self.custody, self.offline)

    @property
    def geometry(self) -> Geometry:
        """How the volumes are cut into chunks."""
        return Geometry(self.size_bytes)

    def completed(self) -> "Header":
        """The header after the pending change: the new PIT counts, and its copy runs."""
        progress = self.pending.progress
        return replace(
            self,
            pit=self.pending_pit,
            pending=Change.NONE,
            pending_pit=Pit(),
            progress=progress,
            copying=progress is not Progress.IDLE,
        )


def pack(header: Header) -> bytes:
    """The bytes of one slot, padded with zeros to whole sectors of 512 bytes.

    Raises UsageError when the paths are too long.
    """
    reason = header.offline_reason[:REASON_CHARACTERS_MAX]
    texts = [
        text.encode("utf-8", "surrogateescape")
        for text in (reason, header.master, header.shadow, header.bitmap)
    ]
    if sum(map(len, texts[1:])) > PATHS_BYTES_MAX:
        raise errors.UsageError(
            header.shadow[:80], "the paths of its volumes are too long together",
            f"{PATHS_BYTES_MAX} bytes are the most",
        )  # fmt: skip
    joined = header.joined[-JOINED_MAX:]
    body = _FIXED.pack(
        *_fixed_fields(header), len(joined), *_policy_fields(header), *map(len, texts)
    )
    body += b"".join(u.bytes for u in joined).ljust(16 * JOINED_MAX, b"\0")
    body += _ADDED.pack(*_added_fields(header)) + b"".join(texts)
    length = _PREFIX.size + len(body)
    crc = zlib.crc32(_PREFIX.pack(MAGIC, VERSION, length, 0, 0) + body)
    blob = _PREFIX.pack(MAGIC, VERSION, length, crc, 0) + body
    return blob.ljust(ceil_div(length, _SECTOR_BYTES) * _SECTOR_BYTES, b"\0")


def _fixed_fields(h: Header) -> tuple[object, ...]:
    return (
        h.sequence, h.uuid.bytes, h.role, h.kind, h.progress, h.copying, h.custody, h.offline,
        h.clean, h.process_durability, CHUNK_BYTES, h.session, h.size_bytes,
        h.pit.number, h.pit.id.bytes, h.pit.time_ns, h.export_number, h.import_id.bytes,
        h.boot_id.bytes,
        h.pending, h.closure, h.restored_offline,
        h.pending_pit.number, h.pending_pit.id.bytes, h.pending_pit.time_ns, h.transition_id.bytes,
        h.master_stamp.size_bytes, h.master_stamp.mtime_ns, h.master_stamp.ctime_ns,
        h.shadow_stamp.size_bytes, h.shadow_stamp.mtime_ns, h.shadow_stamp.ctime_ns,
    )  # fmt: skip


def _added_fields(h: Header) -> tuple[int, ...]:
    return (
        h.master_times.mtime_ns, h.master_times.ctime_ns, h.master_times.ceiling_ns,
        h.shadow_times.mtime_ns, h.shadow_times.ctime_ns, h.shadow_times.ceiling_ns,
        h.master_file.inode, h.master_file.birth_ns, h.shadow_file.inode, h.shadow_file.birth_ns,
    )  # fmt: skip


def _policy_fields(h: Header) -> tuple[int, int]:
    return h.policy.break_write, h.policy.limit_s


def unpack(path: str, slot: bytes) -> Header:
    """Read one slot. The CRC is checked before any other byte is used.

    `path` is for messages. Raises BadBitmap.
    """
    if len(slot) < _PREFIX.size:
        raise errors.BadBitmap(path, "too short for a header")
    magic, version, length, crc, incompatible = _PREFIX.unpack_from(slot)
    if magic != MAGIC:
        raise errors.BadBitmap(path, "not a bitmap volume of iifuse")
    if not _PREFIX.size < length <= len(slot):
        raise errors.BadBitmap(path, "the header is damaged (length)")
    body = slot[_PREFIX.size : length]
    if crc != zlib.crc32(_PREFIX.pack(magic, version, length, 0, incompatible) + body):
        raise errors.BadBitmap(path, "the header is damaged (checksum)")
    if not 0 < version <= VERSION or incompatible:
        raise errors.BadBitmap(
            path, f"format version {version}, features {incompatible:#x} are not known here",
            "use the iifuse that wrote it",
        )  # fmt: skip
    added_bytes = _ADDED.size if version > 1 else 0
    if length < _PREFIX.size + _FIXED.size + 16 * JOINED_MAX + added_bytes:
        raise errors.BadBitmap(path, "the header is damaged (length)")
    try:
        return _checked(_unpack_body(body, added_bytes))
    except (ValueError, IndexError) as error:
        raise errors.BadBitmap(path, f"the header holds an impossible value ({error})") from error


def _unpack_body(body: bytes, added_bytes: int) -> Header:
    (
        sequence, uuid, role, kind, progress, copying, custody, offline, clean, process,
        chunk_bytes, session, size, pit, pit_id, pit_time, export_number, import_id, boot_id,
        pending, closure, restored_offline, next_pit, next_id, next_time, transition_id,
        m_size, m_mtime, m_ctime, s_size, s_mtime, s_ctime, joined_count,
        break_write, limit_s, *lengths,
    ) = _FIXED.unpack_from(body)  # fmt: skip
    if chunk_bytes != CHUNK_BYTES or joined_count > JOINED_MAX or size <= 0 or size >= 1 << 60:
        raise ValueError("chunk size, volume size or joined imports")
    if max(sequence, pit, next_pit, export_number) >= 1 << 62:
        raise ValueError("a number that is too large")
    at = _FIXED.size
    joined = tuple(UUID(bytes=body[at + 16 * i : at + 16 * i + 16]) for i in range(joined_count))
    at += 16 * JOINED_MAX
    added = _ADDED.unpack_from(body, at) if added_bytes else (0,) * 10
    reason, master, shadow, bitmap = _texts(body, at + added_bytes, lengths)
    return Header(
        uuid=UUID(bytes=uuid), kind=Kind(kind), size_bytes=size,
        master=master, shadow=shadow, bitmap=bitmap, sequence=sequence, role=BitmapRole(role),
        progress=Progress(progress), copying=bool(copying), custody=Custody(custody),
        offline=_roles(offline), offline_reason=reason, clean=bool(clean),
        process_durability=bool(process), closure=Closure(closure),
        restored_offline=bool(restored_offline),
        pit=Pit(pit, UUID(bytes=pit_id), pit_time), export_number=export_number,
        import_id=UUID(bytes=import_id), boot_id=UUID(bytes=boot_id), pending=Change(pending),
        pending_pit=Pit(next_pit, UUID(bytes=next_id), next_time),
        transition_id=UUID(bytes=transition_id), master_stamp=Stamp(m_size, m_mtime, m_ctime),
        shadow_stamp=Stamp(s_size, s_mtime, s_ctime), joined=joined,
        policy=Policy(bool(break_write), limit_s), session=session,
        master_times=Times(*added[:3]), shadow_times=Times(*added[3:6]),
        master_file=FileId(*added[6:8]), shadow_file=FileId(*added[8:]),
    )  # fmt: skip


def _checked(header: Header) -> Header:
    """Raise ValueError for impossible values. A right CRC does not exclude them."""
    paths = (header.master, header.shadow, header.bitmap)
    if any("\0" in path or path[:1] not in ("", "/") for path in paths):
        raise ValueError("a path that is not absolute")
    if sum(len(path.encode("utf-8", "surrogateescape")) for path in paths) > PATHS_BYTES_MAX:
        raise ValueError("length of the paths")
    if len(header.offline_reason) > REASON_CHARACTERS_MAX:
        raise ValueError("length of a reason")
    for times in (header.master_times, header.shadow_times):
        if max(map(abs, (times.mtime_ns, times.ctime_ns, times.ceiling_ns))) > TIME_NS_MAX:
            raise ValueError("a time that is out of range")
    if header.copying and header.progress is Progress.IDLE:
        raise ValueError("a copy without a direction")
    if (header.role is BitmapRole.IMPORTED) != (header.custody is Custody.IMPORTED):
        raise ValueError("role and custody")
    whole = header.progress is not Progress.TO_SHADOW and header.custody is Custody.LOCAL
    if header.kind is Kind.DEPENDENT and not whole:
        raise ValueError("a dependent shadow that is copied or lent")
    return header


def _roles(value: int) -> Role:
    if value & ~0x0F:
        raise ValueError("offline roles")
    return Role(value)


def _texts(body: bytes, at: int, lengths: list[int]) -> list[str]:
    texts = []
    for length in lengths:
        if at + length > len(body):
            raise ValueError("length of a path")
        texts.append(body[at : at + length].decode("utf-8", "surrogateescape"))
        at += length
    return texts


def newest(path: str, slots: list[bytes]) -> tuple[Header, int]:
    """The newest valid header and the index of its slot.

    Raises the BadBitmap of the first slot if no slot is valid.
    """
    found: list[tuple[Header, int]] = []
    failure: errors.BadBitmap | None = None
    for index, slot in enumerate(slots):
        try:
            found.append((unpack(path, slot), index))
        except errors.BadBitmap as error:
            failure = failure or error
    if not found:
        raise failure or errors.BadBitmap(path, "no header")
    return max(found, key=lambda pair: pair[0].sequence)
