"""A mistake, and the way back: a rapid restore, with the volumes in use while it runs."""

import time

from iifuse.units import format_size

from . import books, chunks
from .chunks import CHUNK_BYTES
from .hosts import wait_until
from .lend import marked
from .places import BOOKS, RAW, VOLUMES, Volume
from .play import GROUP, Play, Rest, attach, detach
from .setting import start_books

MISTAKE = "DELETE FROM entry WHERE account <> 7"


def mistake(play: Play, rest: Rest) -> dict[Volume, int]:
    """Rows deleted, documents and a volume overwritten; what has changed since the resync."""
    with play.stage.step("A mistake: <> for =, and shred on the wrong files"):
        play.app.type(f"sqlite3 -cmd '.timeout 5000' $DATA/bank.db '{MISTAKE}'")
        play.app.type("shred --iterations=1 $DATA/documents/* && sync --file-system $DATA")
        play.app.type("shred --iterations=1 --exact $APP$PROD/vol05")
        left = books.count(play.app, "$DATA/bank.db")
        play.stage.claim(left < rest.entries, f"{rest.entries - left:,} entries are lost")
    with play.stage.step("Rapid restore, 1: stop what uses the masters"):
        for program in play.programs():
            code = play.app.stop(program)
            play.stage.claim(code == 0, f"{program.name}: stopped in order", f"exit code {code}")
        detach(play.app, play.device, "$DATA")
        play.stage.explain("Chunks that have changed since then, from the raw volumes:")
        lost = {}
        for volume in VOLUMES:
            raw = play.site.master(volume), play.site.shadow(volume)
            found = chunks.differing(*raw)
            lost[volume] = marked(play, volume, found, play.app.status(volume).shadow_bits)
    return lost


def restore(play: Play, rest: Rest, lost: dict[Volume, int]) -> None:
    """`-u m`, and on with the work at once."""
    with play.stage.step("Rapid restore, 2: one command, and the masters are usable at once"):
        began = time.monotonic()
        play.app.type(f"iiadm -n -g {GROUP} -u m")
        play.device = attach(play.app, f"$APP$PROD/{BOOKS.name}", "$DATA")
        found = books.count(play.app, "$DATA/bank.db")
        running = {volume.name: play.app.status(volume) for volume in VOLUMES}
        seconds = time.monotonic() - began
        play.stage.claim(
            found == rest.entries, f"all {found:,} entries are back, {seconds:.2f} s after -u m"
        )
        left = ", ".join(f"{n} {r.copy_bits:,}" for n, r in running.items() if r.copying)
        play.stage.remark(
            f"chunks still to be restored when they were counted: {left or 'none any more'}"
        )
        start_books(play)
        play.app.type(f"iiadm -g {GROUP} -w")
        seconds = time.monotonic() - began
        play.stage.remark(f"{seconds:.2f} s from -u m until the last chunk was restored")
        _show_restored(play, lost)


def _show_restored(play: Play, lost: dict[Volume, int]) -> None:
    """What was copied. A chunk that a program writes first is brought for it, not by the copy."""
    rows = []
    for volume in VOLUMES:
        row, number = play.app.status(volume), lost[volume]
        early = number - row.copied_chunks
        play.stage.claim(
            row.progress == "idle" and 0 <= early <= (volume is BOOKS) * row.shadow_bits,
            f"{volume.name}: {number:,} chunks restored, those that have changed",
            f"{row.copied_chunks:,} were copied, {row.progress}",
        )
        size = format_size(min(number * CHUNK_BYTES, volume.size_bytes))
        percent = f"{100 * number / row.chunks:.1f} %"
        rows.append((volume.name, f"{number:,}", size, percent, f"{early:,}"))
    headings = "volume", "chunks restored", "bytes", "of the volume", "for a write"
    play.stage.table(headings, rows)


def verify(play: Play, rest: Rest) -> None:
    """The masters are what they were at the point in time, but for what came after."""
    with play.stage.step("Rapid restore, 3: is everything as it was?"):
        play.app.type("cd $DATA && sha256sum --check --quiet $D/documents.sha256")
        play.stage.claim(True, "every document is the one that was put there")
        assert play.books is not None
        wait_until(lambda: books.acknowledged(play) > rest.entries, "the application goes on", 30)
        code = play.app.stop(play.books)
        play.stage.claim(code == 0, "the application has gone on, and stops in order")
        books.check(play, play.app, "$DATA/bank.db", books.acknowledged(play))
        detach(play.app, play.device, "$DATA")
        play.app.type("e2fsck -fn $APP$PROD/vol01", show=True)
        play.stage.claim(True, "e2fsck finds the file system sound")
        for volume in RAW:
            play.same(rest.images, play.site.master(volume), volume)
            play.same(rest.images, play.site.shadow(volume), volume)
        play.stage.claim(True, "raw masters vol02..05 are what they were, byte for byte")
        play.same(rest.images, play.site.shadow(BOOKS), BOOKS)
        play.stage.claim(True, "no write to a master has reached a shadow")
        raw = play.site.master(BOOKS), play.site.shadow(BOOKS)
        marked(play, BOOKS, chunks.differing(*raw), play.app.status(BOOKS).shadow_bits)


def finish(play: Play) -> None:
    """Disable, and stop the services."""
    with play.stage.step("Afterwards: disable the sets, stop the services"):
        play.app.type(f"iiadm -g {GROUP} -d")
        for host, service in zip((play.app, play.bak), play.services, strict=True):
            code = host.stop(service)
            play.stage.claim(code == 0, f"{service.name} stops in order", f"{code}: {host.log()}")
