"""Fuzzed requests to the real engine in memory, and fuzzed files for `iibitmap`."""

import contextlib
import io
import os
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from unittest.mock import patch

import msgspec
import trio
from bitmaps import EXACT, INEXACT, SHADOW, make_bitmap
from crash_disk import SYSTEM, Disk, Image, installed
from crash_host import Host
from crash_schedule import run
from fuzz_formats import garbled_file
from fuzz_garble import line
from fuzz_loop import Part
from fuzz_start import BESIDE, make_stages
from fuzz_state import memory
from fuzz_talk import requests

from iifuse.control.dispatch import Dispatcher
from iifuse.control.protocol import ServiceInfo
from iifuse.control.server import Server
from iifuse.loop.timelimits import TimeLimits
from iitools import iibitmap

INFO = ServiceInfo("0", 1, "/mnt", "/state")
NAMES = ("/m", "/s", "/b", "/new", *BESIDE)


async def _ask(image: Image, lines: list[bytes]) -> bool:
    disk = SYSTEM.disk = Disk(image.share())
    async with trio.open_nursery() as nursery:
        host = Host(disk, "main")
        await host.up(nursery)
        server = Server("/no/socket", Dispatcher(host.instance, INFO).answer, TimeLimits())
        worked = [_judge(await server._reply(asked)) for asked in lines]
        for path in list(host.instance.views):
            with contextlib.suppress(OSError):
                host.look(path)
        await host.down()
        nursery.cancel_scope.cancel()
    return any(worked)


def _judge(reply: bytes) -> bool:
    """One line; no failure in it is a defect of ours."""
    assert reply.endswith(b"\n")
    assert reply.count(b"\n") == 1
    found = msgspec.json.decode(reply)
    failure = found.get("failure")
    assert failure is None or failure["error"] != "InternalError", failure
    return failure is None


@contextmanager
def _verbs():
    with installed():
        images = [stage.image for stage in make_stages()]

        def try_one(random: Random) -> bool:
            lines = []
            for _ in range(3):
                good = requests(tuple(random.sample(NAMES, 3)))
                wanted = random.choice(good)
                garbled = random.random() < 0.4
                lines.append(line(random, wanted) if garbled else msgspec.json.encode(wanted))
            return run(partial(_ask, random.choice(images), lines), 1)

        yield try_one


# -- iibitmap -------------------------------------------------------------------------------

_CALLS = (
    ("check", "b"), ("check", "b", "b2"), ("dump", "b"), ("dump", "--bits", "b"),
    ("--json", "dump", "--bits", "b"), ("changed", "b"), ("--json", "changed", "b"),
    ("repair", "b", "new"), ("-n", "finish", "b", "m", "s"),
)  # fmt: skip


@contextmanager
def _programs():
    with tempfile.TemporaryDirectory(prefix="iifuse-fuzz-", dir=memory()) as folder:
        place = Path(folder)
        goods = []
        for number, fields in enumerate((*INEXACT, *EXACT)):
            made = make_bitmap(place / f"good{number}", marked=SHADOW, **fields)
            goods.append((place / f"good{number}").read_bytes())
        for name in "ms":
            with (place / name).open("wb") as file:
                file.truncate(made.size_bytes)

        def try_one(random: Random) -> bool:
            for name in ("b", "b2"):
                blob = garbled_file(random, random.choice(goods), made.geometry.chunks)
                (place / name).write_bytes(blob)
            (place / "new").unlink(missing_ok=True)
            return _call(place, random.choice(_CALLS))

        with patch("os.statvfs", _small):
            yield try_one


def _small(path: str, real: Callable[[str], os.statvfs_result] = os.statvfs) -> SimpleNamespace:
    """Room for 16 MiB: a forged header may ask for a bitmap of any size, which takes its time."""
    found = real(path)
    room = min(found.f_bavail, (16 << 20) // found.f_frsize)
    return SimpleNamespace(f_bavail=room, f_frsize=found.f_frsize, f_blocks=found.f_blocks)


def _call(place: Path, words: tuple[str, ...]) -> bool:
    """Exit codes of the manual, no defect, and only `repair` and `finish` write."""
    before = [(place / name).read_bytes() for name in ("b", "b2")]
    said, out = io.StringIO(), io.StringIO()
    here = os.getcwd()
    os.chdir(place)
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(out):
            code = iibitmap.main(list(words))
    finally:
        os.chdir(here)
    assert code in (0, 1, 2, 3), code
    assert "unexpected" not in said.getvalue(), said.getvalue()
    assert all(sign.isprintable() or sign == "\n" for sign in out.getvalue())
    assert "finish" in words or before == [(place / n).read_bytes() for n in ("b", "b2")]
    assert "repair" in words or not (place / "new").exists()
    assert code == 0 or not (place / "new").exists(), "what failed left a file behind"
    return code == 0


PARTS = [Part("verbs", 700, _verbs), Part("iibitmap", 1200, _programs)]
