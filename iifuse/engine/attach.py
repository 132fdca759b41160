"""Take sets in again of which only the bitmap volumes know (`iiadm --attach`): a lost database.

What a set is stands in the header of its bitmap volume. What the lost state directory alone knew
is whether a group command was under way when the service died; where that can matter, nothing is
believed that it may have touched.
"""

from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from iifuse import errors
from iifuse.core.bitmap import Bitmap
from iifuse.core.header import Closure, Header
from iifuse.core.sector import Region
from iifuse.core.state import Custody, Kind, Progress, Role
from iifuse.engine import recovery
from iifuse.engine.engine import Engine, checked_path
from iifuse.engine.opening import check_distinct, check_unused
from iifuse.engine.threads import blocking
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.statedb import SetRow
from iifuse.store.volume import open_volume


async def attach(engine: Engine, paths: tuple[str, ...], group: str | None) -> list[str]:
    """Bring back the sets of these bitmap volumes; remarks for the user.

    All are checked before the first is taken in. Raises BadBitmap, BadVolume, InUse, Refused.
    """
    with ExitStack() as undo:
        found = [await blocking(partial(_read, engine, path, undo)) for path in paths]
        _check_each_once([header for _, header in found])
        notes = [await blocking(partial(_adopt, *one)) for one in found]
    rows = [SetRow.of(replace(h, bitmap=bitmap.volume.path), group) for bitmap, h in found]
    for row in rows:
        await blocking(partial(engine.db.add_set, row))
    members = await recovery.bring_back(engine, rows)
    for member in members:
        await recovery.show(engine, engine.family(member))
        await engine.note(member, "--attach")
    recovery.start_copies(engine, members)
    offline = [f"{s.name}: offline ({s.header.offline_reason})" for s in members if s.state.offline]
    return [note for note in notes if note] + offline


def _check_each_once(headers: list[Header]) -> None:
    if min(len({h.shadow for h in headers}), len({h.uuid for h in headers})) < len(headers):
        raise errors.UsageError("", "two of these bitmap volumes are of one set")


def _read(engine: Engine, path: str, undo: ExitStack) -> tuple[BitmapFile, Header]:
    checked_path(engine, path)
    check_unused(engine, path)
    volume = open_volume(path)
    undo.callback(volume.close)
    bitmap = BitmapFile(volume)
    header = bitmap.read_header()
    _check(engine, path, header)
    return bitmap, header


def _check(engine: Engine, path: str, header: Header) -> None:
    if header.closure is not Closure.OPEN:
        raise errors.Refused(path, "its set was disabled", "there is nothing to bring back")
    if header.shadow in engine.sets or any(s.key == header.uuid for s in engine.sets.values()):
        raise errors.InUse(header.shadow, "is a set of this service already", "see 'iiadm -l'")
    imported = header.custody is Custody.IMPORTED
    check_distinct(
        engine, (header.shadow, path) if imported else (header.master, header.shadow, path)
    )
    check_unused(engine, header.shadow)


def _adopt(bitmap: BitmapFile, header: Header) -> str | None:
    """In a thread: the header says where the bitmap is, and only what is certain; a remark."""
    header = replace(header, bitmap=bitmap.volume.path)
    unsure = not header.clean and header.progress is Progress.IDLE
    if unsure and header.kind is Kind.DEPENDENT:
        reason = "a group command may have been cut short, and the state directory is lost"
        offline = header.offline | Role.SHADOW
        header = replace(header, offline=offline, offline_reason=reason)
    header = bitmap.write_header(header)
    return _keep_union(bitmap, header) if unsure else None


def _keep_union(bitmap: BitmapFile, header: Header) -> str | None:
    """An update that was cut short has set copy bits before it cleared the first shadow bit."""
    shadow, damaged = bitmap.read_bits(header, Region.SHADOW)
    copy, damaged_too = bitmap.read_bits(header, Region.COPY)
    if header.kind is Kind.DEPENDENT or not (damaged_too or copy.count()):
        return None
    shadow.merge(copy)
    shadow.set_runs(damaged + damaged_too)
    bitmap.write_region(header, Region.SHADOW, shadow)
    bitmap.write_region(header, Region.COPY, Bitmap(shadow.chunks))
    return f"{header.shadow}: an update that was cut short was taken back"
