"""Steps 12 and 13: the shadows come home, and only what either host has changed is copied."""

import numpy as np

from iifuse.units import format_size

from . import books, chunks
from .chunks import CHUNK_BYTES, ChunkSet
from .lend import TICKET, marked
from .places import VOLUMES, Volume
from .play import GROUP, Play, Rest
from .rest import at_rest


def join(play: Play) -> None:
    """Step 12."""
    with play.stage.step("Step 12: join what both hosts have noted"):
        play.app.type(f"iijoin {TICKET}", show=True)
        home = all(play.app.status(volume).custody == "local" for volume in VOLUMES)
        play.stage.claim(home, "all five sets are whole again")
        there = all(play.app.has_on_mount(play.site.shadow(volume)) for volume in VOLUMES)
        play.stage.claim(there, "their shadows are back on the mount")


def resync(play: Play, before: Rest, there: dict[Volume, ChunkSet]) -> Rest:
    """Step 13; what the masters were at the new point in time.

    `there`: chunks that the backup host has changed since `before`.
    """
    with play.stage.step("Step 13: the next evening: rest, fast resync"), at_rest(play) as hold:
        union = _expect(play, before, hold.rest, there)
        play.app.type(f"iiresync s -g {GROUP}", show=True)
        show_copied(play, union)
        for volume in VOLUMES:
            wrong = chunks.differing(play.site.master(volume), play.site.shadow(volume))
            text = f"{np.count_nonzero(wrong)} chunks of {volume.name} differ"
            if wrong.any():
                play.stage.claim(False, "raw masters and raw shadows are equal", text)
        play.stage.claim(True, "raw masters and raw shadows are equal, byte for byte")
    play.stage.remark(f"entries at the new point in time: {hold.rest.entries:,}")
    books.acknowledged(play)
    return hold.rest


def _expect(
    play: Play, before: Rest, now: Rest, there: dict[Volume, ChunkSet]
) -> dict[Volume, int]:
    """How many chunks have to be copied: those of raw volumes that differ, if they are marked."""
    play.stage.explain("Chunks that have changed since the point in time, from the raw volumes:")
    union, rows = {}, []
    for volume in VOLUMES:
        here = chunks.changed(before.images[volume], now.images[volume])
        union[volume] = here | there[volume]
        counts = (here, there[volume], here & there[volume], union[volume])
        rows.append((volume.name, *(f"{np.count_nonzero(one):,}" for one in counts)))
    play.stage.table(("volume", "by app", "by bak", "by both", "union"), rows)
    return {
        volume: marked(play, volume, changed, play.app.status(volume).shadow_bits)
        for volume, changed in union.items()
    }


def show_copied(play: Play, expected: dict[Volume, int]) -> None:
    """What an update has copied, and claim that it is what had changed."""
    rows = []
    for volume, number in expected.items():
        row = play.app.status(volume)
        play.stage.claim(
            row.copied_chunks == number,
            f"{volume.name}: {number:,} chunks copied, those that have changed",
            f"{row.copied_chunks:,} were copied",
        )
        size = format_size(min(number * CHUNK_BYTES, volume.size_bytes))
        rows.append((volume.name, f"{number:,}", size, f"{100 * number / row.chunks:.1f} %"))
    play.stage.table(("volume", "chunks copied", "bytes", "of the volume"), rows)
