"""A start that finds something missing, or somebody else in its place."""

import os
import subprocess

import pytest
from devices import opened
from harness import CHUNK, Service

# -- something is missing -----------------------------------------------------------------


@pytest.mark.sampled(2)
@pytest.mark.parametrize("lost", ["shadow", "bitmap", "master"])
@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_missing_volume_stops_no_other_set(service, volume, place, lost, kind):
    paths = {"master": volume("v"), "shadow": place / "s", "bitmap": place / "s.bmp"}
    other, its_shadow = volume("other"), place / "other.s"
    service.enable(kind, paths["master"], paths["shadow"])
    service.enable("ind", other, its_shadow)
    service.wait(paths["shadow"], its_shadow)
    service.write(paths["master"], 0, b"changed")
    live = service.read(paths["master"])
    service.stop()
    os.rename(paths[lost], place / "lost")
    service.start()
    assert service.read(its_shadow) == service.read(other)
    status = service.status(paths["shadow"])
    text = service.run("iiadm", "-i", paths["shadow"]).stdout
    assert (status.waiting, status.replaced) == ((lost,), None)
    assert lost in status.offline
    assert str(paths[lost]) in status.offline_reason
    assert f"waiting for the {lost}" in text
    if lost == "master":
        return
    assert service.read(paths["master"]) == live
    service.write(paths["master"], CHUNK, b"goes on")
    assert paths["master"].read_bytes()[CHUNK : CHUNK + 7] == b"goes on"
    done = service.run("iiadm", "-u", paths["shadow"])
    assert done.returncode == 2
    is_lost = (lost, kind) != ("shadow", "ind")  # the write needed it
    assert ("offline" if is_lost else "waiting for the shadow") in done.stderr
    if (lost, kind) == ("bitmap", "ind"):
        assert service.status(paths["shadow"]).shadow_bits == status.chunks
    assert service.stop() == 0


def test_foreign_bitmap_at_start_is_not_believed(service, volume, place):
    master, shadow = volume("v"), place / "s"
    service.enable("dep", master, shadow)
    service.write(master, 0, b"changed")
    service.stop()
    (place / "s.bmp").write_bytes(os.urandom((place / "s.bmp").stat().st_size))
    service.start()
    assert set(service.status(shadow).offline) >= {"shadow", "bitmap"}
    assert service.read(master)[:7] == b"changed"
    with pytest.raises(OSError):
        service.read(shadow)


# -- a second service -------------------------------------------------------------------------


def two_sets(service, volume, place):
    """(masters, shadows)"""
    masters, shadows = [volume("a"), volume("b")], [place / "a.s", place / "b.s"]
    for kind, master, shadow in zip(("ind", "dep"), masters, shadows, strict=True):
        service.enable(kind, master, shadow)
        service.wait(shadow)
        service.write(master, 0, b"new 0")
    return masters, shadows


def run_second(service, **changed):
    """A second `iifuse`; (exit code, what it said)."""
    second = Service(service.home, "second")
    for name, value in changed.items():
        setattr(second, name, value)
    done = subprocess.run(
        second.command(), capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("shared", ["state", "socket", "mountpoint"])
def test_second_service_on_the_same_place_is_refused(service, volume, place, shared):
    """F18: one state, one socket, one mount point."""
    masters, _ = two_sets(service, volume, place)
    before = service.client.status()
    with opened(service.path(masters[0])) as fd:
        code, said = run_second(service, **{shared: getattr(service, shared)})
        assert code == 2
        assert str(getattr(service, shared)) in said
        assert "Traceback" not in said
        assert os.pwrite(fd, b"undisturbed", 0) == 11
    assert service.read(masters[0])[:11] == b"undisturbed"
    assert service.client.status() == before
    assert service.stop() == 0


def test_second_service_may_not_touch_the_volumes_of_the_first(service, new_service, volume, place):
    """F18: a volume has one service."""
    masters, shadows = two_sets(service, volume, place)
    second = new_service("second")
    for program, *words in [
        ("svadm", "-e", masters[0]),
        ("svadm", "-e", shadows[0]),
        ("iiadm", "-e", "ind", masters[0], service.home / "x", service.home / "x.bmp"),
    ]:
        done = second.run(program, *words)
        assert done.returncode == 2
        assert str(words[-1] if program == "svadm" else masters[0]) in done.stderr
    assert second.client.status() == []
    assert service.read(masters[0])[:5] == b"new 0"


def test_start_without_a_directory_is_refused(place):
    service = Service(place)
    os.rmdir(service.mountpoint)
    done = subprocess.run(service.command(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert str(service.mountpoint) in done.stderr
    assert not service.socket.exists()


@pytest.mark.parametrize("words", ["nonsense", "stop_wait=soon", "durability=maybe"])
def test_unknown_option_is_refused(place, words):
    service = Service(place, options=(words,))
    done = subprocess.run(service.command(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert words in done.stderr


