"""A master with two shadows and a volume with no set, on the engine without a mount."""

import os
from pathlib import Path

from harness import CHUNK

from iifuse.core import header as fmt
from iifuse.core.sector import bitmap_bytes
from iifuse.core.state import Kind
from iifuse.verbs import enable, passthrough
from iifuse.verbs.opening import NewSet

CHUNKS = 4


class Sets:
    """A master with an independent and a dependent shadow, and a volume with no set."""

    def __init__(self, place: Path) -> None:
        self.place, self.state = place, place / "state"
        for name in ("m", "ind", "dep", "alone"):
            self.file(name).parent.mkdir()
            self.file(name).write_bytes(os.urandom(CHUNKS * CHUNK))
        for name in ("ind", "dep"):
            self.file(f"{name}.b").parent.mkdir()
            self.file(f"{name}.b").write_bytes(bytes(bitmap_bytes(CHUNKS)))

    def file(self, name: str) -> Path:
        """Each in its own directory, which can be moved and no time of the file with it."""
        return self.place / name / "volume"

    async def make(self, instance):
        for kind, name in ((Kind.INDEPENDENT, "ind"), (Kind.DEPENDENT, "dep")):
            paths = map(str, (self.file("m"), self.file(name), self.file(f"{name}.b")))
            member = await enable.enable(instance, NewSet(kind, *paths))
            await at_rest(instance, member)
        await passthrough.control(instance, [str(self.file("alone"))])

    def view(self, instance, name):
        return instance.views[str(self.file(name))]

    def set(self, instance, name):
        return instance.sets[str(self.file(name))]

    def away(self, name):
        os.rename(self.place / name, self.place / f"{name}.away")

    def back(self, name):
        os.rename(self.place / f"{name}.away", self.place / name)

    def write_past(self, name):
        with self.file(name).open("r+b") as file:
            file.write(b"past the service")


async def at_rest(instance, member):
    copier = instance.running(member)
    if copier is not None:
        await copier.wait()


async def quiet(instance):
    """As it is when nothing was written for five seconds."""
    for view in list(instance.views.values()):
        await instance.timekeeper.record_exact(view)


def shown(view):
    return view.times.mtime_ns, view.times.ctime_ns


def recorded_header(bitmap):
    blob = bitmap.read_bytes()
    slots = [blob[at : at + fmt.SLOT_BYTES] for at in fmt.SLOT_OFFSETS]
    return fmt.newest(str(bitmap), slots)[0]


def moved(before, after):
    return after[0] > before[0] and after[1] > before[1]
