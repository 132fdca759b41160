"""A bitmap that is older than its set, as a restore from a backup leaves it, is noticed (F14)."""

import shutil

import pytest
from harness import CHUNK
from wrong_pieces import stopped


@pytest.fixture
def piece(service, place):
    """The two kinds of a set; running, with some bits set."""

    def make(kind):
        (piece,) = stopped(service, place, kind, ["old"]).values()
        service.start()
        return piece

    return make


def is_noticed(service, piece, kind):
    """No bit of it is believed, and the reason is said."""
    status = service.status(piece.shadow)
    assert "bitmap" in status.offline, status
    assert "older copy" in status.offline_reason
    assert service.read(piece.master) == piece.live
    if kind == "dep":
        with pytest.raises(OSError):
            service.read(piece.shadow)
    done = service.run("iiadm", "-u", piece.shadow)
    assert done.returncode == 2
    assert service.run("iiadm", "-R", piece.shadow).returncode == 0
    if kind == "ind":
        service.flip("s", piece.shadow)
        service.wait(piece.shadow)
    assert service.read(piece.shadow) == service.read(piece.master)


def write_on(service, piece):
    """A first touch of another chunk: a bit that the older bitmap has not got."""
    service.write(piece.master, 4 * CHUNK, b"noted in the newer bitmap only")
    piece.live = service.read(piece.master)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_bitmap_of_an_earlier_run_is_noticed(service, place, piece, kind, end):
    """The same point in time, only some bits are older; also where a device would give no sign."""
    piece = piece(kind)
    service.stop()
    shutil.copy(piece.bitmap, place / "kept")
    service.start()
    write_on(service, piece)
    getattr(service, end)()
    shutil.copy(place / "kept", piece.bitmap)
    service.start()
    is_noticed(service, piece, kind)


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_bitmap_copied_earlier_in_the_same_run_is_noticed_after_a_stop(service, place, piece, kind):
    """A backup that ran beside the service took it along."""
    piece = piece(kind)
    shutil.copy(piece.bitmap, place / "kept")
    write_on(service, piece)
    service.stop()
    shutil.copy(place / "kept", piece.bitmap)
    service.start()
    is_noticed(service, piece, kind)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_bitmap_of_an_older_point_in_time_is_noticed(service, place, piece, kind, end):
    """Copied before an update of the same run; the volumes need not have changed since."""
    piece = piece(kind)
    shutil.copy(piece.bitmap, place / "kept")
    service.flip("s", piece.shadow)
    service.wait(piece.shadow)
    getattr(service, end)()
    shutil.copy(place / "kept", piece.bitmap)
    service.start()
    is_noticed(service, piece, kind)
