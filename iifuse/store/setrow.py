"""A set as the state database knows it."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from iifuse.core.header import FileId, Header
from iifuse.core.state import Custody, Kind, Progress


@dataclass(frozen=True, slots=True)
class SetRow:
    """The row of a set, which comes back at every start.

    `doubt`: why its bitmap volume must not be believed; None: it may be. `session`, `sequence`: as
    in its header; `previous`: the session before, while a start changes it. `closing`: a disable
    has begun. `entering`: an enable or import has begun, and the header may not be written yet.
    """

    shadow: str
    uuid: UUID
    master: str | None
    bitmap: str
    group: str | None
    size_bytes: int
    kind: Kind
    progress: Progress = Progress.IDLE
    custody: Custody = Custody.LOCAL
    doubt: str | None = None
    session: int = 0
    previous: int | None = None
    closing: bool = False
    sequence: int = 0
    entering: bool = False
    master_file: FileId = field(default_factory=FileId)
    shadow_file: FileId = field(default_factory=FileId)
    bitmap_file: FileId = field(default_factory=FileId)

    @classmethod
    def of(
        cls, header: Header, group: str | None = None, bitmap_file: FileId | None = None,
        *, entering: bool = False,
    ) -> "SetRow":  # fmt: skip
        """The row for a header. `entering`: the header is not written yet."""
        master = None if header.custody is Custody.IMPORTED else header.master
        names = (header.shadow, header.uuid, master, header.bitmap, group)
        what = (header.size_bytes, header.kind, header.progress, header.custody)
        return cls(
            *names, *what, session=header.session, sequence=header.sequence, entering=entering,
            master_file=header.master_file, shadow_file=header.shadow_file,
            bitmap_file=bitmap_file or FileId(),
        )  # fmt: skip

    @property
    def files(self) -> tuple[int, ...]:
        """The numbers of the files, in the order of their columns."""
        files = self.master_file, self.shadow_file, self.bitmap_file
        return tuple(number for file in files for number in (file.inode, file.birth_ns))


def row_of(*columns: Any) -> SetRow:
    """Make the row from its columns, in the order of StateDB.sets."""
    *_, closing, sequence, entering, mi, mb, si, sb, bi, bb = columns
    shadow, uuid, master, bitmap, group, size, kind, progress, custody, doubt, *_ = columns
    session, previous = columns[10:12]
    return SetRow(
        shadow, UUID(uuid), master, bitmap, group, size, Kind(kind), Progress(progress),
        Custody(custody), doubt, session, previous, closing, sequence, entering,
        FileId(mi, mb), FileId(si, sb), FileId(bi, bb),
    )  # fmt: skip


def checked(row: SetRow) -> SetRow:
    """Check a row: SQLite keeps any type in any column. Raises ValueError or TypeError."""
    for path in (row.shadow, row.bitmap, row.master or "/"):
        if not path.startswith("/") or "\0" in path:
            raise ValueError(f"{path!r} is no path")
    if not isinstance(row.size_bytes, int) or not 0 < row.size_bytes < 1 << 60:
        raise ValueError(f"a volume of {row.size_bytes} bytes")
    if not all(isinstance(text, str | None) for text in (row.group, row.doubt)):
        raise TypeError("a text that is none")
    flags = (row.closing, row.entering)
    numbers = (row.session, row.previous or 0, *flags, row.sequence >> 30)
    if not all(isinstance(n, int) and 0 <= n < 1 << 32 for n in numbers):
        raise TypeError("a session or a number that is none")
    if not all(isinstance(n, int) and 0 <= n < 1 << 63 for n in row.files):
        raise TypeError("a file's number that is none")
    if (row.custody is Custody.IMPORTED) != (row.master is None):
        raise ValueError("a master that does not go with the custody")
    return row
