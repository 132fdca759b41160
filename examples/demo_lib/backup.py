"""Steps 10 and 11: the backup host takes the shadows in, backs them up, gives them back."""

from . import books, chunks
from .chunks import ChunkSet
from .lend import TICKET, check_still_at_work, marked
from .places import BOOKS, RAW, VOLUMES, Volume
from .play import GROUP, Play, Rest, attach, detach

TAPE = f"$TAPE/{GROUP}"
NAMES = " ".join(volume.name for volume in RAW)


def take_in(play: Play, rest: Rest) -> str:
    """Step 10; the loop device that is below $SNAP then."""
    with play.stage.step("Step 10: import the shadows on the backup host, mount the file system"):
        play.bak.type(f"iiimport {TICKET}", show=True)
        for volume in VOLUMES:
            play.same(rest.images, play.site.view("BAK", play.site.shadow(volume)), volume)
        play.stage.claim(True, "each shadow reads there as the master was, byte for byte")
        return attach(play.bak, f"$BAK$SAN/{BOOKS.name}", "$SNAP")


def back_up(play: Play, rest: Rest, device: str) -> dict[Volume, ChunkSet]:
    """Step 11; the chunks that the backup host has changed."""
    with play.stage.step("Step 11: back up, check, write, give back"):
        _archive(play)
        books.check(play, play.bak, "$SNAP/bank.db", rest.entries)
        play.bak.type("cd $SNAP && sha256sum --check --quiet $D/documents.sha256")
        play.stage.claim(True, "every document is the one that was put there")
        _check_tape(play, rest)
        _write(play)
        detach(play.bak, device, "$SNAP")
        written = _written(play, rest)
        play.bak.type(f"iiadm -g {GROUP} -d")
        there = [v.name for v in VOLUMES if play.bak.has_on_mount(play.site.shadow(v))]
        play.stage.claim(not there, "the backup host has let go of all shadows", ", ".join(there))
        check_still_at_work(play, rest)
    return written


def _archive(play: Play) -> None:
    """Two archives; tar itself compares them with what they were made of."""
    for verb in ("create", "compare"):
        play.bak.type(f"tar --{verb} --file {TAPE}-files.tar --directory $SNAP .")
        play.bak.type(f"tar --{verb} --file {TAPE}-volumes.tar --directory $BAK$SAN {NAMES}")
    play.stage.claim(True, "both archives hold what they were made of")
    listed = play.bak.type(f"tar --list --verbose --file {TAPE}-volumes.tar", show=True)
    play.stage.claim(len(listed.splitlines()) == len(RAW), "four volumes are in the archive")


def _check_tape(play: Play, rest: Rest) -> None:
    """The backup is worth what can be read from it."""
    play.bak.type(f"mkdir $TAPE/try && tar -xf {TAPE}-files.tar -C $TAPE/try ./bank.db{{,-wal}}")
    books.check(play, play.bak, "$TAPE/try/bank.db", rest.entries)
    play.bak.type(f"tar -xf {TAPE}-volumes.tar -C $TAPE/try {RAW[0].name}")
    play.same(rest.images, play.site.path(f"$TAPE/try/{RAW[0].name}"), RAW[0])
    play.stage.claim(True, f"{RAW[0].name} from the archive is what the master was")


def _write(play: Play) -> None:
    """The backup host may write to what it has borrowed; some of it where the other one wrote."""
    play.bak.type("date >$SNAP/backed-up && cp $SNAP/documents/0[1-3] $SNAP/")
    random = "dd status=none if=/dev/urandom conv=notrunc bs=4k"
    play.bak.type(f"{random} of=$BAK$SAN/vol02 seek=9000 count=300")
    play.bak.type(f"{random} of=$BAK$SAN/vol04 seek=0 count=700")


def _written(play: Play, rest: Rest) -> dict[Volume, ChunkSet]:
    found = {}
    for volume in VOLUMES:
        now = chunks.image(play.site.shadow(volume))
        found[volume] = chunks.changed(rest.images[volume], now)
        marked(play, volume, found[volume], play.bak.status(volume).shadow_bits)
    return found
