"""A master or shadow that somebody wrote, swapped or resized while the service was down."""

import os
import shutil

import pytest
from harness import CHUNK, Service
from wrong_pieces import SIZE, stopped


def written(path):
    with path.open("r+b") as file:
        file.seek(2 * CHUNK)
        file.write(b"behind the back")


def written_and_times_set_back(path):
    """Only ctime tells, which nobody can set."""
    found = path.stat()
    written(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def replaced_by_a_copy(path):
    """The same bytes, sizes and times in another file: as a restore from a backup leaves it."""
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    os.rename(copy, path)


def link_to_a_copy(path):
    copy = path.with_name("elsewhere")
    shutil.copy2(path, copy)
    path.unlink()
    path.symlink_to(copy)


MEDDLINGS = (written, written_and_times_set_back)
REPLACEMENTS = (replaced_by_a_copy, link_to_a_copy)


@pytest.fixture(params=["tmpfs", "disk"])
def where(request, place, disk_place):
    return place if request.param == "tmpfs" else disk_place


def meddled(service, where, kind, changes):
    """Stop, meddle with one volume of each set, start; (pieces by name, what the log says now)."""
    names = {f"{role} {change.__name__}": (role, change) for role in ("master", "shadow")
             for change in changes}  # fmt: skip
    pieces = stopped(service, where, kind, [*names, "untouched"])
    for name, (role, change) in names.items():
        change(getattr(pieces[name], role))
    before = len(service.log.read_text())
    service.start()
    return pieces, service.log.read_text()[before:]


def test_volume_written_behind_our_back_makes_all_chunks_differ(service, where):
    """F17: of an independent set; the log says why, and the next update makes it true again."""
    pieces, log = meddled(service, where, "ind", MEDDLINGS)
    good = pieces.pop("untouched")
    assert service.status(good.shadow).shadow_bits == 2
    for name, piece in pieces.items():
        role = name.split()[0]
        status = service.status(piece.shadow)
        assert (status.offline, status.shadow_bits) == ((), status.chunks), name
        assert f"{piece.shadow}: the {role} was written or replaced while" in log
        raw = getattr(piece, role).read_bytes()
        assert service.read(getattr(piece, role)) == raw, name
        service.flip("s", piece.shadow)
    service.wait(*(piece.shadow for piece in pieces.values()))
    for name, piece in pieces.items():
        assert service.read(piece.shadow) == piece.master.read_bytes(), name


def test_volume_written_behind_our_back_takes_a_dependent_shadow_offline(service, where):
    """F17: its unchanged chunks are the master's, its changed ones its own: nothing can be said."""
    pieces, _ = meddled(service, where, "dep", MEDDLINGS)
    good = pieces.pop("untouched")
    assert service.read(good.shadow) == good.pit
    for name, piece in pieces.items():
        role = name.split()[0]
        status = service.status(piece.shadow)
        assert status.offline == ("shadow",), name
        assert f"the {role} was written or replaced" in status.offline_reason
        with pytest.raises(OSError):
            service.read(piece.shadow)
        assert service.read(piece.master) == piece.master.read_bytes(), name
        done = service.run("iiadm", "-u", piece.shadow)
        assert done.returncode == 2
    assert service.restart()
    for name, piece in pieces.items():
        assert "shadow" in service.status(piece.shadow).offline, f"{name}: forgotten at a restart"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_copy_in_the_place_of_a_volume_is_a_stranger_until_the_old_one_is_back(
    service, where, kind
):
    """Nobody but the administrator knows whether it is as good; no verb reads or writes it."""
    pieces, log = meddled(service, where, kind, REPLACEMENTS)
    good = pieces.pop("untouched")
    assert service.read(good.shadow) == good.pit
    for name, piece in pieces.items():
        role = name.split()[0]
        status = service.status(piece.shadow)
        assert (status.replaced, status.waiting) == ((role,), None), name
        assert log.count(f"{piece.shadow}: the {role} was replaced: {getattr(piece, role)}") == 1
        assert service.read(piece.master) == piece.live, name
        left = piece.look()
        for words in (("-u", "s"), ("-c", "m"), ("-E",), ("-u", "m")):
            done = service.run("iiadm", "-n", *words, piece.shadow)
            assert done.returncode == 2, name
            assert f"the {role} was replaced" in done.stderr
        assert piece.look() == left, f"{name}: a volume was written"


# -- size and kind ----------------------------------------------------------------------------


def shorter(path, other):
    os.truncate(path, SIZE - CHUNK)


def empty(path, other):
    os.truncate(path, 0)


def gone(path, other):
    path.unlink()


def directory(path, other):
    path.unlink()
    path.mkdir()


def fifo(path, other):
    path.unlink()
    os.mkfifo(path)


def device(path, other):
    path.unlink()
    path.symlink_to("/dev/zero")


def broken_link(path, other):
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def endless_link(path, other):
    path.unlink()
    path.symlink_to(path)


def link_to_its_own_bitmap(path, other):
    path.unlink()
    path.symlink_to(path.with_name("b"))


def hard_link_of_another_shadow(path, other):
    path.unlink()
    os.link(other.shadow, path)


def hard_link_of_another_master(path, other):
    path.unlink()
    os.link(other.master, path)


UNUSABLE = (
    shorter, empty, gone, directory, fifo, device, broken_link, endless_link,
    link_to_its_own_bitmap, hard_link_of_another_shadow, hard_link_of_another_master,
)  # fmt: skip


def remains(piece):
    """The bytes of what is still a volume; None for the rest."""
    return [
        path.read_bytes() if path.is_file() and path.stat().st_size == SIZE else None
        for path in (piece.master, piece.shadow)
    ]


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_shadow_that_is_none_any_more_goes_offline_with_the_reason(service: Service, place, kind):
    """F16, F18: each other set is served, whatever stands in the shadow's place."""
    names = [change.__name__ for change in UNUSABLE]
    pieces = stopped(service, place, kind, ["first", *names])
    other = pieces.pop("first")  # it comes back first, so its volumes are its own
    for change in UNUSABLE:
        change(pieces[change.__name__].shadow, other)
    left = {name: remains(piece) for name, piece in pieces.items()}
    service.start()
    for name, piece in pieces.items():
        status = service.status(piece.shadow)
        assert "shadow" in status.offline, name
        assert str(piece.shadow) in status.offline_reason, name
        assert service.read(piece.master) == piece.live, name
        assert not service.path(piece.shadow).exists(), name
        done = service.run("iiadm", "-u", piece.shadow)
        assert done.returncode == 2, name
        assert remains(piece) == left[name], f"{name}: a volume was written"
    assert_first_is_served(service, other, kind)


def assert_first_is_served(service, other, kind):
    """Its volumes got second names, which moved their ctime: that alone is a sign to be heeded."""
    assert service.read(other.master) == other.live
    if kind == "ind":
        assert service.read(other.shadow) == other.pit
        service.flip("s", other.shadow)
        service.wait(other.shadow)
        assert service.read(other.shadow) == other.live
    else:
        assert "written or replaced" in service.status(other.shadow).offline_reason
    assert service.stop() == 0


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_master_that_is_none_any_more_stops_no_other_set(service: Service, place, kind):
    """F16: an independent shadow stays readable; nothing is written to what stands there now."""
    names = [change.__name__ for change in UNUSABLE]
    pieces = stopped(service, place, kind, ["first", *names])
    other = pieces.pop("first")
    for change in UNUSABLE:
        change(pieces[change.__name__].master, other)
    left = {name: remains(piece) for name, piece in pieces.items()}
    service.start()
    for name, piece in pieces.items():
        status = service.status(piece.shadow)
        assert "master" in status.offline, name
        assert status.offline_reason, name
        if kind == "dep":
            with pytest.raises(OSError):
                service.read(piece.shadow)
        elif "shadow" not in status.offline:
            assert service.read(piece.shadow) == piece.pit, name
        done = service.run("iiadm", "-u", piece.shadow)
        assert done.returncode == 2, name
        assert remains(piece) == left[name], f"{name}: a volume was written"
    assert_first_is_served(service, other, kind)
