"""What happens to sets while the power may fail: every verb, every kind of write."""

from functools import partial

import trio
from crash_disk import CHUNK
from crash_rig import Rig, Scenario, path

from iifuse.core.state import Kind, Verb

IND, DEP = Kind.INDEPENDENT, Kind.DEPENDENT
CHUNKS, TAIL = 5, 700


def _pair(rig: Rig, number: str = "", *, chunks: int = CHUNKS) -> tuple[str, str]:
    """A master, one of whose chunks is a hole, and a shadow full of something else."""
    hole = rig.seed % chunks if rig.seed % 2 else None
    return (
        rig.volume(f"m{number}", chunks, TAIL, hole=hole),
        rig.volume(f"s{number}", chunks, TAIL),
    )


async def new_set(rig: Rig, kind: Kind, number: str = "") -> tuple[str, str]:
    master, shadow = _pair(rig, number)
    await rig.whole(kind, master, shadow)
    return master, shadow


def _writers(rig: Rig, files: list[str], count: int, each: int):
    """`count` writers, dealt out over the files."""
    return [
        partial(rig.writer, files[n % len(files)], n // len(files), each) for n in range(count)
    ]


async def enable(rig: Rig, kind: Kind, writers: int) -> None:
    """A second set of a master that is written all the time."""
    master, shadow = _pair(rig)
    first = rig.volume("s1", CHUNKS, TAIL)
    await rig.whole(DEP if writers == 1 else IND, master, first)
    rig.begin()
    verb = partial(rig.enable, kind, master, shadow)
    await rig.together(verb, *_writers(rig, [master], writers, 8 // writers))
    await rig.main.wait(shadow)
    rig.check()


async def first_touches(rig: Rig, kind: Kind, writers: int) -> None:
    master, shadow = await new_set(rig, kind)
    rig.begin()
    await rig.together(*_writers(rig, [master, shadow], writers, 24 // writers))
    await rig.touch(master, 0, 2, 4)
    rig.check()
    await rig.sync(master)


async def _later(rig: Rig, name: str, chunk: int, turns: int = 8) -> None:
    for _ in range(rig.random.randrange(turns)):
        await trio.lowlevel.checkpoint()
    await rig.touch(name, chunk)


async def neighbours(rig: Rig) -> None:
    """Two chunks of one region, which are marked together, are touched at nearly one moment."""
    master, shadow = await new_set(rig, IND)
    rig.begin()
    for first in (0, 2):
        await rig.together(
            partial(rig.touch, master, first),
            partial(_later, rig, master, first + 1),
            partial(_later, rig, shadow, first + 1),
        )
    rig.check()


async def last_chunk(rig: Rig, *, relaxed: bool = False) -> None:
    """A writer brings the last chunk of a copy while the copier is about to end.

    `relaxed`: with durability=process, where it brings it at once and without a sync, and so has
    to begin at once to be first; but no restore, of which a power failure leaves nothing that could
    be judged then.
    """
    master, shadow = await new_set(rig, IND)
    await rig.touch(master, 2)
    if relaxed:
        await rig.relax()
    rig.begin()
    turns = 1 if relaxed else 8
    for name in (master, master) if relaxed else (master, shadow):
        verb = Verb.UPDATE_SHADOW if name == master else Verb.UPDATE_MASTER
        await rig.flip(verb, shadow)
        await rig.together(
            partial(rig.main.wait, shadow),
            partial(_later, rig, master, 2, turns),
            partial(_later, rig, shadow, 2, turns),
        )
    rig.check()


async def process(rig: Rig, kind: Kind) -> None:
    """durability=process: nothing is promised of a dependent shadow once the power has failed."""
    master, shadow = await new_set(rig, kind)
    await rig.relax()
    rig.begin()
    await rig.touch(master, 0, 2)
    await rig.together(*_writers(rig, [master, shadow], 2, 3))
    await rig.sync(shadow)
    await rig.flip(Verb.UPDATE_SHADOW, shadow)
    await rig.touch(master, 1)
    await rig.main.wait(shadow)
    await rig.touch(shadow, 4)
    rig.check()


async def unaligned(rig: Rig, kind: Kind) -> None:
    """Writes over the end of a chunk, of parts of sectors, of whole chunks."""
    master, shadow = await new_set(rig, kind)
    rig.begin()
    await rig.write(master, CHUNK - 300, 900)
    await rig.write(shadow, 2 * CHUNK - 1000, 2 * CHUNK)
    await rig.sync(shadow)
    await rig.write(master, 3 * CHUNK, CHUNK + 700)
    await rig.write(master, CHUNK - 100, 300)
    rig.check()


async def first_copy(rig: Rig, writers: int) -> None:
    """Writers on both sides of a copy to the shadow."""
    master, shadow = _pair(rig)
    rig.bitmap(shadow, CHUNKS + 1)
    rig.begin()
    await rig.enable(IND, master, shadow)
    await rig.together(
        partial(rig.main.wait, shadow),
        *_writers(rig, [master, shadow], writers, 8 // writers),
    )
    rig.check()


async def update(rig: Rig, kind: Kind, verb: Verb) -> None:
    """Writers on both sides before, during and after."""
    master, shadow = await new_set(rig, kind)
    rig.begin()
    await rig.touch(master, 0, 3)
    await rig.touch(shadow, 1)
    await rig.together(
        partial(rig.flip, verb, shadow), *_writers(rig, [master, shadow], 4, 2)
    )
    await rig.together(partial(rig.main.wait, shadow), *_writers(rig, [master, shadow], 2, 3))
    rig.check()


async def two_updates(rig: Rig) -> None:
    """The second comes while the first still copies."""
    master, shadow = await new_set(rig, IND)
    rig.begin()
    await rig.touch(master, 0, 2, 4)
    await rig.flip(Verb.UPDATE_SHADOW, shadow)
    await rig.touch(master, 1, 2)
    await rig.flip(Verb.UPDATE_SHADOW, shadow)
    await rig.touch(shadow, 0)
    await rig.main.wait(shadow)
    rig.check()


async def restore(rig: Rig, kind: Kind, verb: Verb) -> None:
    """Writers on both sides; a dependent and an independent sibling keep their points in time."""
    master, shadow = await new_set(rig, kind)
    for number, other in enumerate((DEP, IND)):
        await rig.whole(other, master, rig.volume(f"t{number}", CHUNKS, TAIL))
    await rig.touch(master, 0, 3)
    rig.begin()
    await rig.touch(master, 1)
    await rig.touch(shadow, 3)
    await rig.together(
        partial(rig.flip, verb, shadow), *_writers(rig, [master, shadow], 2, 2)
    )
    await rig.together(
        partial(rig.main.wait, shadow), *_writers(rig, [master, shadow, path("t0")], 3, 2)
    )
    rig.check()


async def abort_resume(rig: Rig, kind: Kind, verb: Verb) -> None:
    master, shadow = await new_set(rig, kind)
    await rig.touch(master, 0, 1, 3, 4)
    rig.begin()
    await rig.flip(verb, shadow)
    await rig.together(
        partial(rig.main.abort, shadow), *_writers(rig, [master, shadow], 2, 2)
    )
    await rig.touch(master, 2)
    await rig.touch(shadow, 4)
    await rig.flip(verb, shadow)
    await rig.touch(master, 1)
    await rig.main.wait(shadow)
    rig.check()


async def group(rig: Rig, verb: Verb) -> None:
    """Two masters, three sets, of which two are of the first master (but for a restore)."""
    master, shadow = await new_set(rig, IND)
    other, second = await new_set(rig, DEP if verb is Verb.UPDATE_SHADOW else IND, "2")
    sets = [shadow, second]
    if not verb.to_master:
        third = rig.volume("t", CHUNKS, TAIL)
        await rig.whole(DEP, master, third)
        sets.append(third)
    rig.begin()
    await rig.touch(master, 0, 2)
    await rig.touch(other, 1)
    await rig.touch(second, 3)
    await rig.together(
        partial(rig.flip, verb, *sets), *_writers(rig, [master, other, shadow, second], 4, 2)
    )
    await rig.touch(master, 2)
    for name in sets:
        await rig.main.wait(name)
    rig.check()


async def group_many(rig: Rig) -> None:
    """So many sets that their record takes more than one sector."""
    master = rig.volume("m", 2)
    shadows = [rig.volume(f"s{n}", 2) for n in range(7)]
    for shadow in shadows:
        await rig.whole(DEP, master, shadow)
    await rig.touch(master, 0)
    rig.begin()
    await rig.flip(Verb.UPDATE_SHADOW, *shadows)
    await rig.touch(master, 1)
    rig.check()


async def exchange(rig: Rig) -> None:
    """Export, import, writes on both sides, join, update."""
    master, shadow = await new_set(rig, IND)
    rig.begin()
    await rig.touch(master, 0)
    await rig.touch(shadow, 1)
    await rig.together(partial(rig.export, shadow), partial(rig.writer, master, 0, 3))
    await rig.take_in(shadow)
    await rig.touch(master, 2)
    await rig.together(
        partial(rig.writer, shadow, 1, 3, "other"), partial(rig.writer, master, 2, 3)
    )
    await rig.give_back(shadow)
    await rig.together(partial(rig.join, shadow), partial(rig.writer, master, 3, 2))
    rig.check()
    await rig.touch(shadow, 4)
    await rig.flip(Verb.UPDATE_SHADOW, shadow)
    await rig.main.wait(shadow)
    rig.check()


async def join(rig: Rig) -> None:
    """The bits that the other host noted, and a master that is written meanwhile."""
    master, shadow = await new_set(rig, IND)
    await rig.export(shadow)
    await rig.take_in(shadow)
    await rig.touch(shadow, 1, 4, host="other")
    await rig.give_back(shadow)
    rig.begin()
    await rig.together(partial(rig.join, shadow), partial(rig.touch, master, 2))
    await rig.touch(shadow, 0)
    rig.check()


async def lent_again(rig: Rig) -> None:
    """The second night: the importer's bitmap volume holds an import that was joined."""
    master, shadow = await new_set(rig, IND)
    for night in range(2):
        await rig.touch(master, night)
        await rig.export(shadow)
        if night:
            await rig.hosts["other"].down()
            await rig.hosts["other"].up(rig.nursery)
            rig.begin()
        await rig.take_in(shadow)
        await rig.touch(shadow, 4, host="other")
        await rig.give_back(shadow)
        await rig.join(shadow)
    await rig.touch(shadow, 2)
    rig.check()


async def taken_back(rig: Rig) -> None:
    """The importer is lost: -R counts all chunks as different."""
    master, shadow = await new_set(rig, IND)
    rig.begin()
    await rig.touch(master, 0)
    await rig.export(shadow)
    await rig.touch(master, 3)
    await rig.reset(shadow)
    await rig.touch(shadow, 1)
    rig.check()


async def disable(rig: Rig, kind: Kind) -> None:
    master, shadow = await new_set(rig, kind)
    await rig.whole(DEP, master, rig.volume("t0", CHUNKS, TAIL))
    rig.begin()
    await rig.touch(master, 0)
    await rig.touch(shadow, 1)
    await rig.together(partial(rig.disable, shadow), partial(rig.writer, master, 0, 3))
    await rig.touch(master, 3)


async def offline_reset(rig: Rig, kind: Kind) -> None:
    """The shadow fails at a first touch; -R brings it back."""
    master, shadow = await new_set(rig, kind)
    rig.begin()
    await rig.touch(master, 0)
    rig.fails = True
    rig.disk.failing[f"{shadow}.b" if kind is IND else shadow] = "write"
    await rig.touch(master, 4)
    rig.disk.failing.clear()
    await rig.touch(master, 1, 2)
    await rig.reset(shadow)
    await rig.touch(master, 3)
    await rig.main.wait(shadow)
    rig.check()


async def shadow_lost(rig: Rig, kind: Kind) -> None:
    """The shadow vanishes while the service is down."""
    master, shadow = await new_set(rig, kind)
    await rig.touch(master, 1)
    await rig.main.down()
    rig.fails = True
    rig.disk.rename(shadow, None)
    rig.begin()
    await rig.main.up(rig.nursery)
    await rig.touch(master, 0, 4)
    await rig.reset(shadow)
    await rig.touch(master, 3)
    await rig.main.wait(shadow)
    rig.check()


async def clean_stop(rig: Rig, kind: Kind) -> None:
    """Stop and start, with an update's copy under way."""
    master, shadow = await new_set(rig, kind)
    rig.begin()
    await rig.touch(master, 0, 2)
    await rig.flip(Verb.UPDATE_SHADOW, shadow)
    await rig.touch(shadow, 2)
    await rig.touch(master, 4)
    await rig.main.down()
    await rig.main.up(rig.nursery)
    await rig.touch(master, 1)
    await rig.touch(shadow, 3)
    await rig.main.wait(shadow)
    rig.check()


SCENARIOS: dict[str, Scenario] = {
    **{
        f"{f.__name__}-{kind.name[:3].lower()}-{n}": partial(f, kind=kind, writers=n)
        for f in (enable, first_touches) for kind in Kind for n in (1, 4)
    },
    **{f"first_copy-{n}": partial(first_copy, writers=n) for n in (1, 4)},
    **{
        f"{f.__name__}-{kind.name[:3].lower()}": partial(f, kind=kind)
        for f in (process, unaligned, disable, offline_reset, shadow_lost, clean_stop)
        for kind in Kind
    },
    "update-ind": partial(update, kind=IND, verb=Verb.UPDATE_SHADOW),
    "update-dep": partial(update, kind=DEP, verb=Verb.UPDATE_SHADOW),
    "copy-to-shadow": partial(update, kind=IND, verb=Verb.COPY_SHADOW),
    "two_updates": two_updates,
    "restore-ind": partial(restore, kind=IND, verb=Verb.UPDATE_MASTER),
    "restore-dep": partial(restore, kind=DEP, verb=Verb.UPDATE_MASTER),
    "copy-to-master": partial(restore, kind=IND, verb=Verb.COPY_MASTER),
    "abort_resume-to-shadow": partial(abort_resume, kind=IND, verb=Verb.UPDATE_SHADOW),
    "abort_resume-to-master": partial(abort_resume, kind=IND, verb=Verb.UPDATE_MASTER),
    "abort_resume-dep": partial(abort_resume, kind=DEP, verb=Verb.UPDATE_MASTER),
    "group-update": partial(group, verb=Verb.UPDATE_SHADOW),
    "group-restore": partial(group, verb=Verb.UPDATE_MASTER),
    "neighbours": neighbours,
    "last_chunk": last_chunk,
    "last_chunk-process": partial(last_chunk, relaxed=True),
    "group-many": group_many,
    "exchange": exchange,
    "join": join,
    "lent_again": lent_again,
    "taken_back": taken_back,
}  # fmt: skip
