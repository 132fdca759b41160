"""Steps 6 to 9: a common point in time of five volumes, lent to the backup host."""

import time
from contextlib import ExitStack

import numpy as np

from iifuse.units import format_size

from . import books, chunks
from .places import BOOKS, VOLUMES, Volume
from .play import GROUP, Play, Rest
from .rest import at_rest

REWRITTEN_MAX = 8
"""Chunks in which a file system may, between two steps, have written only what was there."""
TICKET = f"$SAN/{GROUP}.iiticket"


def take_and_lend(play: Play) -> Rest:
    """Rest, enable, update, go on, export; what the masters were at that instant."""
    with ExitStack() as resting:
        with play.stage.step("Step 6: bring the applications to rest"):
            hold = resting.enter_context(at_rest(play))
        with play.stage.step("Step 7: enable five sets in a group, give them one point in time"):
            began = time.monotonic()
            _enable(play)
            play.app.type(f"iiadm -g {GROUP} -u")
            _check_one_instant(play)
        with play.stage.step("Step 8: let the applications go on"):
            resting.close()
            _check_shows_at_once(play, hold.rest, VOLUMES[-1])
    with play.stage.step("Step 9: wait for the first copy, lend the shadows"):
        play.app.type(f"iiadm -g {GROUP} -w")
        seconds = time.monotonic() - began
        play.stage.remark(f"{seconds:.2f} s from the first -e until the last chunk was copied")
        _export(play, hold.rest)
    return hold.rest


def _enable(play: Play) -> None:
    for volume in VOLUMES:
        name = volume.name
        play.app.type(f"iiadm -g {GROUP} -e ind $PROD/{name} $SAN/{name} $PROD/{name}.bmp")
        with open(play.site.bitmap(volume), "rb") as file:
            found = file.seek(0, 2)
        expected = chunks.bitmap_bytes(volume.size_bytes)
        if found != expected:
            text = f"{found} bytes, not {expected}"
            play.stage.claim(False, f"the bitmap of {name} has the size of step 5", text)
    play.stage.claim(True, "the five bitmap volumes have the sizes of step 5")


def _check_one_instant(play: Play) -> None:
    instants = {play.app.status(volume).pit_id for volume in VOLUMES}
    play.stage.claim(len(instants) == 1, "the five shadows have one point in time in common")


def _check_shows_at_once(play: Play, rest: Rest, last: Volume) -> None:
    running = [volume.name for volume in VOLUMES if play.app.status(volume).copying]
    play.stage.remark(f"copies that run at this moment: {', '.join(running) or 'none any more'}")
    play.same(rest.images, play.site.view("APP", play.site.shadow(last)), last)
    play.stage.claim(
        True, f"the shadow of {last.name} reads as its master was, while that one is written to"
    )


def _export(play: Play, rest: Rest) -> None:
    _show_first_copy(play)
    for volume in VOLUMES:
        play.same(rest.images, play.site.shadow(volume), volume)
        play.same(rest.images, play.site.view("APP", play.site.shadow(volume)), volume)
    play.stage.claim(
        True, "each shadow is what its master was, byte for byte: raw, and on the mount"
    )
    play.app.type(f"iiexport -g {GROUP} --ticket {TICKET}", show=True)
    _check_lent(play)


def _show_first_copy(play: Play) -> None:
    rows = []
    for volume in VOLUMES:
        row = play.app.status(volume)
        play.stage.claim(
            row.copy_bits == 0 and row.progress == "idle",
            f"the first copy of {volume.name} is complete",
            f"{row.copy_bits} chunks are missing",
        )
        figures = f"{row.chunks:,}", format_size(volume.size_bytes), "100 %"
        rows.append((volume.name, *figures, f"{row.copied_chunks:,}"))
    play.stage.table(("volume", "chunks copied", "bytes", "of the volume", "since -u"), rows)


def _check_lent(play: Play) -> None:
    lent = all(play.app.status(volume).custody == "exported" for volume in VOLUMES)
    play.stage.claim(lent, "all five are exported")
    there = [volume.name for volume in VOLUMES if play.app.has_on_mount(play.site.shadow(volume))]
    play.stage.claim(not there, "no shadow is on the mount any more", ", ".join(there))


def check_still_at_work(play: Play, rest: Rest) -> None:
    """The masters never stopped."""
    play.programs()
    now = books.acknowledged(play)
    play.stage.claim(
        now > rest.entries, f"the application has gone on: {now - rest.entries:,} entries more"
    )


def marked(play: Play, volume: Volume, found: chunks.ChunkSet, shadow_bits: int) -> int:
    """Claim that the service has marked just the chunks that were found to have changed.

    Returns how many are marked. A file system now and then writes what is there already: that is a
    write, though a comparison cannot find it.
    """
    number = int(np.count_nonzero(found))
    same = shadow_bits - number if volume is BOOKS else 0
    extra = f" (and {same} written with what they held)" if same else ""
    play.stage.claim(
        number + same == shadow_bits and 0 <= same <= REWRITTEN_MAX,
        f"{volume.name}: {number:,} chunks have changed, and so many are marked{extra}",
        f"{shadow_bits:,} are marked",
    )
    return shadow_bits
