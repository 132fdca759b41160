"""What needs attention (`iiadm --health`): a sentence for each thing, with the remedy."""

from collections.abc import Iterator

from iifuse.control.protocol import Concern, SetStatus, VolumeStatus
from iifuse.control.rows import status, volumes
from iifuse.core.missing import HELD_ONLY
from iifuse.host.instance import Instance
from iifuse.store.programs import GONE, NAME, RESTART, Programs
from iifuse.units import command, count


async def concerns(instance: Instance, mountpoint: str) -> list[Concern]:
    """All concerns of the service, in the order of its sets; none if all is well."""
    found: list[Concern] = []
    for member in list(instance.sets.values()):
        found += of_set(await status(instance, member))
    for row in await volumes(instance, mountpoint):
        found += of_volume(row)
    found += of_programs(instance.hooks.programs)
    behind = sorted(instance.notes.behind())
    return found + [
        Concern(name, "the state database does not have its latest state", _MAKE_ROOM)
        for name in behind
    ]


_MAKE_ROOM = "make room in the state directory, or mend it; then it is noted by itself"


def of_programs(programs: Programs) -> Iterator[Concern]:
    """A concern if no program can be run, because the nursery has ended."""
    if not programs.is_there:
        yield Concern(NAME, GONE, RESTART)


def of_set(row: SetStatus) -> Iterator[Concern]:
    """The concerns about a set."""
    waiting, replaced = row.waiting or (), row.replaced or ()
    for role in row.replaced or ():
        held = role not in row.offline
        way = HELD_ONLY if held else (
            f"put the old one back, or give it up with {command('iiadm -R', row.shadow)}"
        )  # fmt: skip
        yield Concern(row.shadow, f"another {role} stands in the place of its own", way)
    for role in waiting:
        yield Concern(
            row.shadow,
            f"its {role} is not there",
            "it goes on by itself when that is back; "
            f"{command('iiadm -R', row.shadow)} gives it up",
        )
    failed = [role for role in row.offline if role not in (*waiting, *replaced)]
    if failed:
        why = f" ({row.offline_reason})" if row.offline_reason else ""
        yield Concern(
            row.shadow,
            f"offline: its {' and '.join(failed)}{why}",
            f"mend what failed, then {command('iiadm -R', row.shadow)}",
        )
    yield from _of_copy(row)
    yield from _of_rest(row)


def _of_copy(row: SetStatus) -> Iterator[Concern]:
    if row.progress == "idle" or row.copying or row.offline:
        return
    left = f"still to be copied: {count(row.copy_bits, 'chunk')}"
    if row.progress == "to_master":
        yield Concern(
            row.shadow,
            f"its restore was aborted: {left}, {row.master} shows it whole only through the mount",
            f"{command('iiadm -u m', row.shadow)} goes on; "
            f"{command('iiadm --give-up', row.shadow)} ends it",
        )
    else:
        yield Concern(
            row.shadow,
            f"its copy was aborted: {left}",
            f"{command('iiadm -u s', row.shadow)} makes a new point in time",
        )


def _of_rest(row: SetStatus) -> Iterator[Concern]:
    for bitmap in row.unjoined:
        yield Concern(
            row.shadow,
            f"the import with {bitmap} is not joined, so an update copies everything",
            f"{command('iiadm -J', row.shadow, bitmap)} joins it",
        )
    if row.fills:
        yield Concern(
            row.shadow,
            f"is sparse, and its file system is {row.space_percent}% full",
            "make room there: a full one costs the point in time",
        )


def of_volume(row: VolumeStatus) -> Iterator[Concern]:
    """A concern about a volume without a set. `of_set` has those about other volumes."""
    if row.role == "none" and row.missing:
        yield Concern(
            row.path,
            row.missing,
            "put it back, and it is taken in by itself; or take it off the mount with "
            f"{command('svadm -d', row.path)}",
        )
