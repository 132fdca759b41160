"""Before the curtain: two hosts at work. Steps 1 to 5 of the procedure are planning."""

import os

from iifuse.units import format_size

from . import chunks
from .hosts import PROGRAMS, wait_until
from .places import BOOKS, DOCUMENT_BYTES, DOCUMENTS, RAW, VOLUMES, make_volumes
from .play import Play, attach

LEDGER = "python $DEMO/ledger.py $DATA/bank.db $D/acknowledged"


def begin(play: Play) -> None:
    """Services on both hosts, applications on one."""
    with play.stage.step("Before: two hosts, five volumes in production, a SAN"):
        _show_variables(play)
        make_volumes(play.site)
        play.services = [play.app.start_service(), play.bak.start_service()]
        play.app.type("svadm -e $PROD/vol0[1-5]")
        play.app.type("mkfs.ext4 -q -b 4096 -E nodiscard,lazy_itable_init=0 $APP$PROD/vol01")
        play.device = attach(play.app, f"$APP$PROD/{BOOKS.name}", "$DATA")
        _write_documents(play)
        start_books(play)
        views = " ".join(f"$APP$PROD/{volume.name}" for volume in RAW)
        play.raw = play.app.start(f"python $DEMO/rawwriter.py {views}", "the program on vol02..05")


def _show_variables(play: Play) -> None:
    places = play.site.variables
    play.stage.explain("In the commands below, on both hosts:")
    play.stage.output("\n".join(f"export {name}={value}" for name, value in places.items()))
    play.stage.output(f"export PATH={PROGRAMS}:$PATH")
    play.stage.explain("app# is the application host, bak# the backup host:")
    for host in (play.app, play.bak):
        play.stage.output(f"{host.prompt} export IIFUSE_SOCKET=$D/{host.name}/socket")


def _write_documents(play: Play) -> None:
    size, last = format_size(DOCUMENT_BYTES)[0] + "M", f"{DOCUMENTS:02}"
    play.app.type(
        f"mkdir $DATA/documents && for n in {{01..{last}}}; "
        f"do head -c {size} /dev/urandom >$DATA/documents/$n; done"
    )
    play.app.type("cd $DATA && sha256sum documents/* >$D/documents.sha256")


def start_books(play: Play) -> None:
    """Let the application on the database run."""
    program = play.books = play.app.start(LEDGER, "the bank's books")

    def is_at_work() -> bool:
        program.check()
        path = play.site.path("$D/acknowledged")
        return os.path.exists(path) and os.path.getsize(path) > 0

    wait_until(is_at_work, "the application makes transactions", 30)


def plan(play: Play) -> None:
    """Step 5: how large bitmap volumes have to be."""
    with play.stage.step("Step 5: sizes. Shadows as large as their masters, and bitmap volumes"):
        play.stage.explain("The paper: 24 KiB and 8 KiB for each GiB. Here, with checksums: ")
        play.stage.output("24,576 + 2 x 512 x ceil(chunks / 4,064) bytes; a chunk is 32 KiB")
        rows = []
        for volume in VOLUMES:
            number = chunks.count(volume.size_bytes)
            bitmap = chunks.bitmap_bytes(volume.size_bytes)
            size = f"{volume.size_bytes:,}"
            rows.append((volume.name, size, f"{number:,}", f"{bitmap:,}", format_size(bitmap)))
        play.stage.table(("volume", "bytes", "chunks", "bitmap bytes", ""), rows)
