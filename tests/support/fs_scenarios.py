"""What happens to sets of the real service while the power may fail."""

import errno
from collections.abc import Callable

from fs_rig import FsRig

Scenario = Callable[[FsRig], None]


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
    master, shadow, dep = rig.volume("m"), rig.volume("s"), rig.volume("t")
    rig.up()
    rig.whole("ind", master, shadow)
    rig.enable("dep", master, dep)
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
    pairs = [(rig.volume(f"m{n}"), rig.volume(f"s{n}")) for n in range(2)]
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


def lend(rig: FsRig) -> None:
    """Export, import elsewhere, write on both sides, join, update."""
    master, shadow = rig.volume("m"), rig.volume("s")
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
    master, shadow = rig.volume("m"), rig.volume("s")
    rig.up()
    rig.whole("ind", master, shadow)
    rig.export(shadow)
    rig.touch(master, 1)
    rig.reset(shadow)
    rig.touch(shadow, 0)
    rig.flip("s", shadow)
    rig.wait(shadow)
    rig.export(shadow)


def restart(rig: FsRig) -> None:
    """A stop in order and a kill, each followed by a start."""
    master, shadow, dep = rig.volume("m"), rig.volume("s"), rig.volume("t")
    rig.up()
    rig.whole("ind", master, shadow, "G")
    rig.enable("dep", master, dep, "G")
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


def _fault(rig: FsRig, kind: str, operation: str, volume: str) -> None:
    """A volume of a set fails; the master is written on, and is synced."""
    master, shadow = rig.volume("m"), rig.volume("s")
    rig.up()
    rig.whole(kind, master, shadow)
    if kind == "dep":  # an independent set marks all of so small a volume at the first touch
        rig.touch(master, 0)
    rig.fail(operation, volume.format(shadow), errno.EIO)
    rig.touch(master, 1, 2)
    assert rig.told("main", shadow)["offline"], "nothing has failed"
    rig.sync(master)
    rig.touch(master, 0)
    rig.sync(master)


SCENARIOS: dict[str, Scenario] = {
    f.__name__: f
    for f in (
        enable, update, restore_dependent, group, volumes, lend, take_back, restart,
    )
}  # fmt: skip


def _add(kind: str, operation: str, volume: str) -> None:
    ending = volume.format("s").partition(".")[2]
    name = f"fault-{kind}-{operation}-{'bitmap' if ending else 'shadow'}"
    SCENARIOS[name] = lambda rig: _fault(rig, kind, operation, volume)


for _kind in ("ind", "dep"):
    _add(_kind, "any", "{}.b")
    _add(_kind, "sync", "{}.b")
_add("dep", "any", "{}")
