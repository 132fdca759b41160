"""A service starts on a bitmap volume that was damaged or forged: the real recovery, in memory.

Damaged: bytes changed as a bad disk does, no checksum mended. Then nothing wrong is ever shown.
Forged: with right checksums. Then the service still starts and serves the set beside it.
"""

from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random

import trio
from crash_disk import CHUNK, SYSTEM, Disk, Image, installed
from crash_host import Host
from crash_schedule import run
from fuzz_garble import fix_header, fix_sector, garble, put_number
from fuzz_loop import Part

from iifuse import errors
from iifuse.core import header as fmt
from iifuse.core import sector
from iifuse.core.sector import Region
from iifuse.core.state import Custody, Kind, Verb
from iifuse.verbs import enable, exchange, reset
from iifuse.verbs.opening import NewSet

CHUNKS = 9
SIZE = CHUNKS * CHUNK - 700
MASTER, SHADOW, BITMAP = "/m", "/s", "/b"
BESIDE = ("/m2", "/s2", "/b2")

Play = Callable[[Host], Awaitable[None]]


@dataclass
class Stage:
    """A set, and another one beside it, as a service left them. `shown`: what the mount showed."""

    image: Image
    uuid: bytes
    shown: dict[str, bytes] = field(default_factory=dict)


async def _write(host: Host, path: str, chunk: int, mark: int) -> None:
    await host.instance.views[path].write(chunk * CHUNK + 100, bytes([mark]) * 1000)


async def _idle(host: Host) -> None:
    await host.wait(SHADOW)
    for path, chunk in ((MASTER, 1), (SHADOW, 2), (MASTER, CHUNKS - 1)):
        await _write(host, path, chunk, chunk)


async def _to_shadow(host: Host) -> None:
    await _idle(host)
    await host.flip(Verb.UPDATE_SHADOW, SHADOW)
    await host.abort(SHADOW)


async def _to_master(host: Host) -> None:
    await _idle(host)
    await host.flip(Verb.UPDATE_MASTER, SHADOW)
    await host.abort(SHADOW)


async def _exported(host: Host) -> None:
    await _idle(host)
    await host.flip(Verb.UPDATE_SHADOW, SHADOW)
    await host.wait(SHADOW)
    await exchange.export(host.instance, host.set(SHADOW))
    await _write(host, MASTER, 3, 3)


STAGES: dict[str, tuple[Kind, Play]] = {
    "ind idle": (Kind.INDEPENDENT, _idle),
    "ind to shadow": (Kind.INDEPENDENT, _to_shadow),
    "ind to master": (Kind.INDEPENDENT, _to_master),
    "ind exported": (Kind.INDEPENDENT, _exported),
    "dep idle": (Kind.DEPENDENT, _idle),
    "dep to master": (Kind.DEPENDENT, _to_master),
}


async def _make(kind: Kind, play: Play, *, clean: bool) -> Stage:
    disk = SYSTEM.disk = Disk()
    for number, path in enumerate((MASTER, BESIDE[0])):
        disk.create(path, bytes([65 + number]) * SIZE)
    async with trio.open_nursery() as nursery:
        host = Host(disk, "main")
        await host.up(nursery)
        await enable.enable(host.instance, NewSet(Kind.DEPENDENT, *BESIDE))
        await _write(host, BESIDE[0], 4, 200)
        await enable.enable(host.instance, NewSet(kind, MASTER, SHADOW, BITMAP))
        await play(host)
        shown = {path: host.look(path) for path in host.instance.views}
        uuid = host.set(SHADOW).key.bytes
        if clean:
            await host.down()
        nursery.cancel_scope.cancel()
    return Stage(disk.image(), uuid, shown)


# -- one start ------------------------------------------------------------------------------


def _garbled(random: Random, good: bytes, uuid: bytes, *, forge: bool) -> bytes:
    blob = bytearray(good)
    for at in fmt.SLOT_OFFSETS:
        if random.random() < 0.6:
            slot = garble(random, blob[at : at + 512], most=2)[:512].ljust(512, b"\0")
            put_number(random, slot, random.randrange(0, 400))
            blob[at : at + 512] = slot
            if forge and random.random() < 0.95:
                fix_header(blob, at)
    for region in Region:
        at = sector.region_offset(region, CHUNKS)
        if random.random() < 0.4:
            blob[at + random.randrange(512)] ^= random.randint(1, 255)
            blob[at] ^= random.choice((0, 0, 255))
        if forge:
            fix_sector(blob, at, uuid, region, 0)
    return bytes(garble(random, blob, most=1)) if random.random() < 0.2 else bytes(blob)


async def _start(stage: Stage, blob: bytes, *, forged: bool) -> bool:
    disk = SYSTEM.disk = Disk(stage.image.share())
    disk.cache[disk.names[BITMAP]] = blob
    async with trio.open_nursery() as nursery:
        host = Host(disk, "main")
        await host.up(nursery)
        for path in BESIDE[:2] if forged else stage.shown:
            _judge(host, path, stage.shown[path])
        believed = SHADOW in host.instance.sets and not host.set(SHADOW).state.offline
        if SHADOW in host.instance.sets:
            await _go_on(host, forged=forged)
        await host.down()
        nursery.cancel_scope.cancel()
    return believed


def _judge(host: Host, path: str, shown: bytes) -> None:
    """Right, or not there with the reason said; the set beside is right."""
    if path not in host.instance.views:
        assert path == SHADOW, f"{path} is not served"
        assert SHADOW in host.instance.sets, "the set is gone"
        assert host.set(SHADOW).header.offline_reason
        return
    try:
        found = host.look(path)
    except OSError:
        assert path not in BESIDE
        assert host.set(SHADOW).header.offline_reason
        return
    assert found == shown, f"{path} shows wrong bytes"


async def _go_on(host: Host, *, forged: bool) -> None:
    """Bring it back, update, and compare: what the bits call equal is equal."""
    try:
        await _write(host, MASTER, 5, 77)
        if len(host.disk.content(BITMAP)) < sector.bitmap_bytes(CHUNKS):
            host.disk.rename(BITMAP, None)  # as the message asks for
        if host.set(SHADOW).state.offline:
            await reset.reset(host.instance, host.set(SHADOW))
        await host.wait(SHADOW)
        await host.flip(Verb.UPDATE_SHADOW, SHADOW)
        await host.wait(SHADOW)
    except (errors.IifuseError, OSError):
        member = host.set(SHADOW)
        is_lent = member.header.custody is Custody.EXPORTED
        assert forged or member.restoring or is_lent, "it does not come back"
        return
    if not forged:
        assert host.look(SHADOW) == host.look(MASTER), "the update left them different"


def make_stages() -> list[Stage]:
    """Every state of a set, as a stop and as a kill leave it; on an installed disk."""
    return [
        run(partial(_make, kind, play, clean=clean), 1)
        for kind, play in STAGES.values()
        for clean in (True, False)
    ]


@contextmanager
def _starts(*, forged: bool):
    with installed():
        stages = make_stages()

        def try_one(random: Random) -> bool:
            stage = random.choice(stages)
            good = bytes(stage.image.files[stage.image.names[BITMAP]])
            blob = _garbled(random, good, stage.uuid, forge=forged)
            return run(partial(_start, stage, blob, forged=forged), 1)

        yield try_one


PARTS = [
    Part("start on a damaged bitmap", 700, partial(_starts, forged=False)),
    Part("start on a forged bitmap", 500, partial(_starts, forged=True)),
]
