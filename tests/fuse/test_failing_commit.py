"""A bitmap that cannot be written in the middle of a command.

RLIMIT_FSIZE of the running service makes writes behind an offset of a regular file fail: the
headers of a bitmap volume lie in its first 24 KiB, its bits behind them.
"""

import contextlib

import pytest
from harness import CHUNK

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import SetStatus, Target

HEADERS = 24 * 1024


@pytest.mark.parametrize("commits", [0, 1])
def test_update_whose_bits_fail_stays_offline_after_a_kill(service, volume, place, commits):
    """F8: the pending header that is on disk already must not win over the note that it failed.

    `commits`: header slots take turns, and either may hold the pending one.
    """
    master, shadow = volume("m", 300 * CHUNK), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    for _ in range(commits):
        service.kill()
        service.start()
    service.write(master, 3 * CHUNK, b"noted")
    with service.files_end_at(HEADERS), pytest.raises(errors.StorageError):
        service.flip("s", shadow)
    assert "bitmap" in service.status(shadow).offline
    service.write(master, 200 * CHUNK, b"noted nowhere, since the set is offline")
    service.kill()
    service.start()
    assert "bitmap" in service.status(shadow).offline
    assert service.run("iiadm", "-u", shadow).returncode == 2
    assert service.run("iiadm", "-R", shadow, "-n").returncode == 0
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.read(shadow) == service.read(master)


def test_member_that_failed_in_a_group_update_neither_copies_nor_counts_after_a_kill(
    service, volume, place
):
    """F8, F25: the command counts as done, and who could not follow is offline for good."""
    masters = [volume(f"m{n}", 300 * CHUNK) for n in range(2)]
    shadows = [place / f"s{n}" for n in range(2)]
    for master, shadow in zip(masters, shadows, strict=True):
        service.enable("ind", master, shadow, group="g")
    service.wait(*shadows)
    for master in masters:
        service.write(master, 3 * CHUNK, b"noted")
    request = protocol.Update("s", False, Target(group="g"))
    with service.files_end_at(HEADERS), pytest.raises(errors.StorageError):
        service.client.call(request, list[SetStatus])
    for how in (None, "kill"):
        if how:
            service.kill()
            service.start()
        for shadow in shadows:
            status = service.status(shadow)
            assert status.offline
            assert not status.copying
            with contextlib.suppress(errors.CopyStopped):  # it answers at once
                service.client.notes(protocol.Wait(Target((str(shadow),)), 20))
    for shadow in shadows:
        assert service.run("iiadm", "-R", shadow, "-n").returncode == 0
    service.client.call(request, list[SetStatus])
    service.wait(*shadows)
    for master, shadow in zip(masters, shadows, strict=True):
        assert service.read(shadow) == service.read(master)
