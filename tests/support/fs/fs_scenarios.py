"""What happens to sets of the real service while the power may fail.

One step comes after the other here, and stops, kills and failing files between them: what is asked
is whether an answer outlasts names, notes and syncs. crash_scenarios has the same verbs, with their
steps interleaved in one process in every order that a seed draws; a script that both could play
would have neither.
"""

import errno
import os
from collections.abc import Callable
from functools import partial

from fs_rig import FsRig

Scenario = Callable[[FsRig], None]


def new_set(rig: FsRig, kind: str) -> tuple[str, str]:
    """A service with one set, whose first copy has ended: its master and its shadow."""
    master, shadow = rig.volume("m"), rig.volume("s")
    rig.up()
    rig.whole(kind, master, shadow)
    return master, shadow


def two_sets(rig: FsRig, group: str | None = None) -> tuple[str, str, str]:
    """A service with a master, an independent shadow whose copy has ended, and a dependent one."""
    master, shadow, dep = rig.volume("m"), rig.volume("s"), rig.volume("t")
    rig.up()
    rig.whole("ind", master, shadow, group)
    rig.enable("dep", master, dep, group)
    return master, shadow, dep


def two_pairs(rig: FsRig) -> list[tuple[str, str]]:
    """Two masters, and for each what is to be its shadow."""
    return [(rig.volume(f"m{n}"), rig.volume(f"s{n}")) for n in range(2)]


def enable(rig: FsRig) -> None:
    """Sets whose shadow and bitmap are made by -e, of each kind, and taken apart again."""
    master, other = rig.volume("m"), rig.volume("n")
    shadow, second = f"{rig.volumes}/s", rig.volume("t")
    rig.up()
    rig.whole("ind", master, shadow)
    rig.touch(master, 0)
    rig.enable("dep", other, second, "G")
    rig.touch(other, 1)
    rig.touch(second, 2)
    rig.sync(other)
    rig.disable(second)
    rig.touch(shadow, 1)
    rig.disable(shadow)


def update(rig: FsRig) -> None:
    """Updates of each kind in each direction."""
    master, shadow, dep = two_sets(rig)
    rig.touch(master, 0, 2)
    rig.touch(shadow, 1)
    rig.flip("s", shadow)
    rig.touch(master, 0)
    rig.wait(shadow)
    rig.sync(master)
    rig.touch(master, 1)
    rig.flip("m", shadow)
    rig.touch(master, 2)
    rig.wait(shadow)
    rig.flip("s", dep)
    rig.touch(master, 1)


def restore_dependent(rig: FsRig) -> None:
    """The master's truth is on a shadow that is made of differences."""
    master, shadow = rig.volume("m"), rig.volume("s")
    rig.up()
    rig.enable("dep", master, shadow)
    rig.touch(master, 0, 1)
    rig.touch(shadow, 2)
    rig.flip("m", shadow)
    rig.touch(master, 0)
    rig.wait(shadow)
    rig.sync(master)
    rig.touch(master, 2)


def group(rig: FsRig) -> None:
    """Two masters; sets come into a group, are updated at one instant, and leave it."""
    pairs = two_pairs(rig)
    shadows = [shadow for _, shadow in pairs]
    rig.up()
    for (master, shadow), kind in zip(pairs, ("ind", "dep"), strict=True):
        rig.whole(kind, master, shadow)
    rig.move("night", *shadows)
    for master, _ in pairs:
        rig.touch(master, 0, 1)
    rig.flip("s", *shadows)
    rig.touch(pairs[1][0], 1)
    rig.wait(shadows[0])
    rig.move("", shadows[1])


def volumes(rig: FsRig) -> None:
    """Volumes with no set, one of which gets a set and outlives it."""
    plain, master, shadow = rig.volume("p"), rig.volume("m"), rig.volume("s")
    rig.up()
    rig.control(plain, master)
    rig.touch(plain, 0)
    rig.sync(plain)
    rig.enable("dep", master, shadow)
    rig.touch(master, 1)
    rig.release(plain)
    rig.disable(shadow)
    rig.touch(master, 2)
    rig.release(master)


def lend(rig: FsRig, make: Callable[[FsRig, str], str] = FsRig.volume) -> None:
    """Export, import elsewhere, write on both sides, join, update."""
    master, shadow = make(rig, "m"), make(rig, "s")
    rig.up()
    rig.whole("ind", master, shadow)
    rig.touch(master, 0)
    rig.export(shadow)
    rig.up("other")
    rig.take_in(shadow)
    rig.touch(master, 1)
    rig.touch(shadow, 2, host="other")
    rig.sync(shadow, "other")
    rig.disable(shadow, "other")
    rig.join(shadow)
    rig.flip("s", shadow)
    rig.wait(shadow)


def take_back(rig: FsRig) -> None:
    """Exports whose importer is lost."""
    master, shadow = new_set(rig, "ind")
    rig.export(shadow)
    rig.touch(master, 1)
    rig.reset(shadow)
    rig.touch(shadow, 0)
    rig.flip("s", shadow)
    rig.wait(shadow)
    rig.export(shadow)


def restart(rig: FsRig) -> None:
    """A stop in order and a kill, each followed by a start."""
    master, shadow, dep = two_sets(rig, "G")
    rig.touch(master, 0)
    rig.down()
    rig.up()
    rig.touch(master, 1)
    rig.touch(shadow, 2)
    rig.flip("s", shadow, dep)
    rig.kill()
    rig.up()
    rig.touch(master, 2)
    rig.sync(master)


def fault(rig: FsRig, kind: str, operation: str, volume: str) -> None:
    """A volume of a set fails; the master is written on, and is synced."""
    master, shadow = new_set(rig, kind)
    if kind == "dep":  # an independent set marks all of so small a volume at the first touch
        rig.touch(master, 0)
    rig.fail(operation, volume.format(shadow), errno.EIO)
    rig.touch(master, 1, 2)
    assert rig.told("main", shadow)["offline"], "nothing has failed"
    rig.sync(master)
    rig.touch(master, 0)
    rig.sync(master)


def fault_and_kill(rig: FsRig, kind: str) -> None:
    """A bitmap fails; the service is killed, finds all well again, and is told -R."""
    fault(rig, kind, "sync", "{}.b")
    master, shadow = f"{rig.volumes}/m", f"{rig.volumes}/s"
    rig.kill()
    rig.repair()
    rig.up()
    rig.touch(master, 1)
    rig.reset(shadow)
    rig.touch(master, 2)
    rig.wait(shadow)
    rig.flip("s", shadow)


def copy_fails(rig: FsRig) -> None:
    """The shadow fails in an update, after which it is brought back."""
    master, shadow = new_set(rig, "ind")
    rig.touch(master, 0, 1)
    rig.fail("sync", shadow, errno.EIO)
    rig.flip("s", shadow)
    rig.wait(shadow)
    rig.touch(master, 2)
    rig.repair()
    rig.reset(shadow)
    rig.wait(shadow)


def state_fails(rig: FsRig, operation: str, code: int) -> None:
    """Nothing can be noted in the state database; verbs go on or are refused."""
    pairs = two_pairs(rig)
    plain, late, (shadow, second) = rig.volume("p"), rig.volume("t"), [s for _, s in pairs]
    rig.up()
    for (master, made), kind in zip(pairs, ("ind", "dep"), strict=True):
        rig.whole(kind, master, made)
    for name in ("state.db", "state.db-journal"):
        rig.fail(operation, f"main/state/{name}", code)
    rig.touch(pairs[0][0], 0)
    rig.touch(pairs[1][0], 0)
    rig.flip("s", shadow)
    rig.wait(shadow)
    rig.move("night", shadow, second)
    rig.control(plain)
    rig.enable("dep", pairs[0][0], late)
    rig.flip("s", shadow, second)
    rig.wait(shadow)
    rig.export(shadow)
    rig.disable(second)
    rig.touch(pairs[0][0], 1)
    rig.repair()
    rig.touch(pairs[0][0], 2)
    rig.kill()
    rig.up()
    rig.touch(pairs[0][0], 0)


def record_fails(rig: FsRig) -> None:
    """The record of a group's point in time cannot be synced."""
    pairs = two_pairs(rig)
    shadows = [shadow for _, shadow in pairs]
    rig.up()
    for master, shadow in pairs:
        rig.enable("dep", master, shadow)
        rig.touch(master, 0)
    rig.fail("sync", "main/state/transitions", errno.EIO)
    rig.flip("s", *shadows)
    rig.touch(pairs[0][0], 1)
    rig.repair()
    rig.flip("s", *shadows)
    rig.touch(pairs[0][0], 2)


def nothing_can_be_noted(rig: FsRig, kind: str) -> None:
    """Bitmap and state fail together: what needs a bit is refused."""
    master, shadow = new_set(rig, kind)
    rig.unnoted = True
    for name in (f"{shadow}.b", "main/state/state.db", "main/state/state.db-journal"):
        rig.fail("any", name, errno.EIO)
    rig.touch(master, 1, 2)
    rig.sync(master)
    rig.repair()
    rig.touch(master, 0)
    rig.sync(master)


def writers(rig: FsRig) -> None:
    """Several programs write and sync at once, to a master and to both of its shadows."""
    master, shadow, dep = two_sets(rig)
    rig.at_once(master, shadow, dep, master, dep)
    rig.flip("s", dep)
    rig.at_once(dep, master, master)
    rig.at_once(shadow, shadow, master, dep, dep)


def writers_and_copies(rig: FsRig) -> None:
    """The same while a copy runs between them, in each direction."""
    master, shadow = rig.volume("m", 9), rig.volume("s", 9)
    rig.up()
    rig.enable("ind", master, shadow)
    rig.at_once(master, shadow, master, shadow)
    rig.wait(shadow)
    for direction in "sm":
        rig.touch(master, *range(9))
        rig.flip(direction, shadow)
        rig.at_once(shadow, master, shadow)
        rig.wait(shadow)


def give_up(rig: FsRig, kind: str) -> None:
    """A restore fails, is given up, and the master is used on; the shadow is brought back."""
    master, shadow = new_set(rig, kind)
    rig.touch(master, 0, 2)
    rig.sync(master)
    rig.fail("read", shadow, errno.EIO)
    rig.flip("m", shadow)
    rig.wait(shadow)
    rig.repair()
    rig.give_up(shadow)
    rig.touch(master, 1)
    rig.sync(master)
    rig.kill()
    rig.up()
    rig.touch(master, 0)
    rig.reset(shadow)
    rig.touch(master, 2)
    rig.wait(shadow)


def devices(rig: FsRig) -> None:
    """All volumes are block devices: nothing of them has a name or a size that could be lost."""
    master, shadow, dep = (rig.device(name) for name in "mst")
    for name in (shadow, dep):
        rig.device(f"{os.path.basename(name)}.b")
    rig.up()
    rig.whole("ind", master, shadow)
    rig.enable("dep", master, dep)
    rig.touch(master, 0, 2)
    rig.touch(shadow, 1)
    rig.sync(master)
    rig.flip("s", shadow, dep)
    rig.touch(master, 1)
    rig.wait(shadow)
    rig.down()
    rig.up()
    rig.touch(dep, 0)
    rig.flip("m", shadow)
    rig.touch(master, 2)
    rig.wait(shadow)
    rig.sync(shadow)
    rig.kill()
    rig.up()
    rig.touch(shadow, 2)


SCENARIOS: dict[str, Scenario] = {
    **{
        f.__name__: f
        for f in (
            enable, update, restore_dependent, group, volumes, lend, take_back, restart,
            copy_fails, record_fails, writers, writers_and_copies, devices,
        )
    },
    "lend-devices": partial(lend, make=FsRig.device),
    **{
        f"fault-{kind}-{operation}-bitmap": partial(
            fault, kind=kind, operation=operation, volume="{}.b"
        )
        for kind in ("ind", "dep") for operation in ("any", "sync")
    },
    "fault-dep-any-shadow": partial(fault, kind="dep", operation="any", volume="{}"),
    **{
        f"{f.__name__}-{kind}": partial(f, kind=kind)
        for f in (fault_and_kill, nothing_can_be_noted, give_up) for kind in ("ind", "dep")
    },
    "state_fails": partial(state_fails, operation="any", code=errno.EIO),
    "state_full": partial(state_fails, operation="write", code=errno.ENOSPC),
}  # fmt: skip
