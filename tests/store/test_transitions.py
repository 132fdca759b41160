"""The record of a group command is there whole or not at all."""

import os
from uuid import UUID

import pytest

from iifuse import errors
from iifuse.core.transition import Member, Transition
from iifuse.store.transitions import SLOT_BYTES, TransitionFile
from iifuse.store.volume import Volume

MEMBERS = tuple(Member(UUID(int=n), n, n + 1, 2) for n in range(1, 4))
FIRST = Transition(UUID(int=100), UUID(int=101), 10**18, MEMBERS)
SECOND = Transition(UUID(int=200), UUID(int=201), 2 * 10**18, MEMBERS[:1])


@pytest.fixture
def opened(place):
    """Open the file of the state directory, one after the other."""
    files = []

    def again() -> TransitionFile:
        for file in files:
            file.close()
        files[:] = [TransitionFile.open(str(place))]
        return files[0]

    yield again
    for file in files:
        file.close()


def test_transition_is_kept_from_begin_to_finish(opened):
    assert opened().standing == ()
    opened().begin(FIRST)
    assert opened().standing == (FIRST,)
    opened().finish()
    assert opened().standing == ()
    for transition in (SECOND, FIRST, SECOND):
        file = opened()
        file.begin(transition)
        assert file.standing == (transition,)
        assert opened().standing == (transition,)


def test_transition_that_a_set_has_still_to_follow_stays_beside_later_ones(opened):
    """A bitmap volume may be away for longer than until the next group command."""
    opened().begin(FIRST)
    opened().begin(SECOND, (FIRST,))
    assert opened().standing == (FIRST, SECOND)
    opened().finish((FIRST,))
    assert opened().standing == (FIRST,)
    opened().finish()
    assert opened().standing == ()


def test_transition_that_is_disowned_is_followed_no_more_and_the_earlier_ones_are(opened):
    opened().begin(SECOND, (FIRST,))
    file = opened()
    for other in (None, FIRST.id):
        file.disown(other)
        assert file.standing == (FIRST, SECOND)
    file.disown(SECOND.id)
    assert file.standing == (FIRST,)


def test_transition_that_fails_leaves_the_earlier_ones(opened, monkeypatch):
    file = opened()
    file.begin(FIRST)
    real, failures = Volume.sync_anew, [OSError(5, "once")]

    def sync_anew(volume):
        if failures:
            raise failures.pop()
        return real(volume)

    monkeypatch.setattr(Volume, "sync_anew", sync_anew)
    with pytest.raises(OSError, match="once"):
        file.begin(SECOND, (FIRST,))
    assert opened().standing == (FIRST,)


def test_transition_of_a_killed_service_is_durable_before_it_is_read(opened, monkeypatch):
    """F5: else a power loss during the start takes it back when half the group has followed."""
    opened().begin(FIRST)
    calls = []
    for name in ("sync", "read"):
        real = getattr(Volume, name)

        def logged(volume, *words, real=real, name=name):
            calls.append((name, volume.is_synced))
            return real(volume, *words)

        monkeypatch.setattr(Volume, name, logged)
    assert opened().standing == (FIRST,)
    assert calls[0] == ("sync", False)
    assert {synced for name, synced in calls if name == "read"} == {True}


@pytest.mark.parametrize("torn", [1, 23, 24, 60, 200])
def test_transition_write_that_was_torn_leaves_the_one_before(opened, place, torn):
    path = place / "transitions"
    for before, write in (
        ((), lambda file: file.begin(FIRST)),
        ((FIRST,), lambda file: file.finish()),
        ((), lambda file: file.begin(SECOND, (FIRST,))),
    ):
        file = opened()
        assert file.standing == before
        old = path.read_bytes()
        write(file)
        file.close()
        new = path.read_bytes()
        (changed,) = [n for n in (0, 1) if slot(old, n) != slot(new, n)]
        at = changed * SLOT_BYTES
        cut = old[:at] + new[at : at + torn] + old[at + torn :]
        if cut not in (old, new):
            path.write_bytes(cut)
            assert opened().standing == before
        opened().close()
        path.write_bytes(new)


def slot(blob: bytes, number: int) -> bytes:
    return blob[number * SLOT_BYTES : (number + 1) * SLOT_BYTES]


@pytest.mark.parametrize("at", [0, 9, 16, 20, 30, 90])
def test_transition_that_is_damaged_is_not_believed(opened, place, at):
    opened().begin(FIRST)
    opened().close()
    path = place / "transitions"
    blob = bytearray(path.read_bytes())
    for base in (0, SLOT_BYTES):
        blob[base + at] ^= 0x11
    path.write_bytes(blob)
    assert opened().standing == ()


def test_transition_file_is_preallocated_and_private(opened, place):
    opened()
    found = (place / "transitions").stat()
    assert found.st_size == 2 * SLOT_BYTES
    assert found.st_blocks * 512 >= 2 * SLOT_BYTES
    assert found.st_mode & 0o777 == 0o600


def test_transition_file_keeps_a_second_service_off(opened, place):
    file = opened()
    with pytest.raises(errors.ServiceError, match="another service"):
        TransitionFile.open(str(place))
    file.close()
    opened()


def test_transition_of_too_many_sets_is_refused_before_anything_is_written(opened):
    members = tuple(Member(UUID(int=n), n, n + 1, 1) for n in range(1, 40_000))
    file = opened()
    with pytest.raises(errors.UsageError, match="too many"):
        file.begin(Transition(UUID(int=1), UUID(int=2), 3, members))
    assert opened().standing == ()


def failing(times):
    """A sync that fails so often."""
    left = [times]

    def sync():
        if left[0]:
            left[0] -= 1
            raise OSError(5, "planted")

    return sync


def test_transition_that_cannot_be_made_durable_is_overwritten(opened, monkeypatch):
    """What was written may reach the disk all the same, and nothing may follow it (F11)."""
    file = opened()
    monkeypatch.setattr(file._volume, "sync_anew", failing(1))
    with pytest.raises(OSError, match="planted"):
        file.begin(FIRST)
    assert opened().standing == ()


def test_transition_file_is_usable_again_after_a_failed_sync(opened, monkeypatch):
    file = opened()
    broken = failing(2)
    monkeypatch.setattr(os, "fdatasync", lambda fd: broken())
    with pytest.raises(OSError, match="planted"):
        file.begin(FIRST)
    monkeypatch.undo()
    file.begin(SECOND)
    assert opened().standing == (SECOND,)
