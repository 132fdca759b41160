"""The model of a file system loses what real ones may lose, and nothing else."""

import random

import pytest
from crash_disk import Image, Sync, Write
from crash_history import History
from crash_unsynced import FailedSync, Resize
from fs_answers import Act, Answer
from fs_images import images, whole
from fs_judge import FsCase, looks_of
from fs_log import DIRECTORY, DirectorySync, Durable, Entries
from fs_rig import FsRecording
from fs_trace import Replay, calls
from stamps import SECTOR

ROOT = "/r"
OLD, NEW = b"o" * SECTOR, b"n" * SECTOR


def after(*events, journals=()):
    state = Durable({1: OLD}, {"/r/a": 1, "/r/d": DIRECTORY}, journals)
    for position, event in enumerate(events):
        state.apply(position, event)
    return state


def contents(state):
    """Every combination of names and what they hold that a loss may leave."""
    found = images(state, random.Random(1), 300, ROOT)
    return {tuple(sorted((n, i.files[f]) for n, f in i.names.items())) for i in found}


def test_data_may_be_lost_until_its_files_sync():
    write = Write(1, 0, NEW)
    assert contents(after(write)) == {(("/r/a", OLD),), (("/r/a", NEW),)}
    assert contents(after(write, Sync(1, 1))) == {(("/r/a", NEW),)}
    assert contents(after(write, Sync(1, 0))) == {(("/r/a", OLD),), (("/r/a", NEW),)}


def test_failed_sync_leaves_doubt_until_the_sector_is_written_anew():
    write, again = Write(1, 0, NEW), Write(1, 0, b"a" * SECTOR)
    assert len(contents(after(write, FailedSync(1), Sync(1, 2)))) == 2
    assert contents(after(write, FailedSync(1), again, Sync(1, 3))) == {(("/r/a", b"a" * SECTOR),)}


def test_size_may_be_lost_until_its_files_sync():
    longer = Resize(1, 2 * SECTOR)
    assert contents(after(longer)) == {(("/r/a", OLD),), (("/r/a", OLD + bytes(SECTOR)),)}


def test_name_may_be_lost_until_its_directorys_sync():
    made = [Entries((("/r/d/b", 2),)), Write(2, 0, NEW), Sync(2, 2)]
    assert contents(after(*made)) == {(("/r/a", OLD),), (("/r/a", OLD), ("/r/d/b", NEW))}
    for lost in (DirectorySync("/r", 3), DirectorySync("/r/d", 0)):
        assert len(contents(after(*made, lost))) == 2
    assert contents(after(*made, DirectorySync("/r/d", 3))) == {(("/r/a", OLD), ("/r/d/b", NEW))}


def test_removed_file_may_come_back():
    assert contents(after(Entries((("/r/a", None),)))) == {(), (("/r/a", OLD),)}


def test_file_whose_directory_is_lost_is_lost():
    made = [Entries((("/r/e", DIRECTORY),)), Entries((("/r/e/b", 2),)), DirectorySync("/r/e", 2)]
    assert contents(after(*made)) == {(("/r/a", OLD),), (("/r/a", OLD), ("/r/e/b", b""))}


def test_rename_is_done_or_not():
    renamed = Entries((("/r/a", None), ("/r/b", 1)))
    assert contents(after(renamed)) == {(("/r/a", OLD),), (("/r/b", OLD),)}


def test_journal_keeps_the_order_of_names_and_those_of_synced_files():
    made = [Entries((("/r/d/b", 2),)), Entries((("/r/c", 3),))]
    alone = (("/r/a", OLD), ("/r/c", b""))
    assert alone in contents(after(*made))
    assert alone not in contents(after(*made, journals=("/r/",)))
    assert len(contents(after(*made, Sync(3, 2), journals=("/r/",)))) == 1
    assert len(contents(after(*made, Sync(3, 2), journals=("/r/d/", "/r/")))) == 2


def test_torn_write_leaves_some_of_its_sectors():
    found = {c[0][1] for c in contents(after(Write(1, 0, NEW + NEW)))}
    zeros = bytes(SECTOR)  # where the size has come and the data has not
    assert {OLD, OLD + zeros, NEW + zeros, OLD + NEW, NEW + NEW} == found


BEFORE, AFTER = ({"st_mtime_ns": n, "st_ctime_ns": n} for n in (10**10, 2 * 10**10))
NOTE = (Write(2, 0, NEW), Sync(2, 1))
"""What a service does before it writes to a volume."""


def looks(verb, log, position, old=frozenset()):
    """What stat says of a file when the power fails in the middle of a verb."""
    answers = [Answer(stats={"/r/a": stat}) for stat in (BEFORE, AFTER)]
    acts = [Act("all before", 0, 0, Answer(), answers[0]), Act(verb, 0, 9, *answers)]
    recording = FsRecording(
        "one", 0, Image(), list(log), History(), {}, may_be_offline=False, first_pits={},
        ordered=True, root=ROOT, acts=acts, hosts=("main",), fails_from=9, unnoted=False,
    )  # fmt: skip
    image = whole(after(*log[:position]), ROOT)
    return looks_of(FsCase(recording, position, image, old_times=old))[1]


@pytest.mark.parametrize("write", [Write(1, 0, NEW), Resize(1, 0)])
@pytest.mark.parametrize("verb", ["write to /r/a", "start main"])
def test_file_looks_as_before_until_it_is_written(verb, write):
    """Else a loss between the note of a write and the write itself takes a set offline."""
    found = [looks(verb, [*NOTE, write], position) for position in range(1, 4)]
    assert found == [BEFORE, AFTER, AFTER], "of what ends next nobody knows whether it has begun"


def test_times_of_a_write_may_be_lost():
    lost = looks("write to /r/a", [*NOTE, Write(1, 0, NEW)], 3, frozenset({1}))
    assert lost["st_mtime_ns"] < AFTER["st_mtime_ns"]


# ruff: noqa: E501
TRACE = r"""
7 1.000000000 mkdir("/r/s", 0700) = 0 <0.000000001>
7 2.000000000 openat(AT_FDCWD</>, "/r/s", O_RDWR|O_TMPFILE, 0600) = 5</r/s/#9>(deleted) <0.000000001>
7 3.000000000 write(5</r/s/#9>(deleted), "ab\0\"", 4) = 4 <0.000000001>
7 4.000000000 linkat(5</r/s/#9>(deleted), "/proc/self/fd/5", AT_FDCWD</>, "/r/s/f", AT_SYMLINK_FOLLOW) = 0 <0.000000001>
8 5.000000000 pwrite64(6</r/s/f>, "c", 1, 1 <unfinished ...>
7 6.000000000 fdatasync(5</r/s/f>) = 0 <0.000000001>
8 7.000000000 <... pwrite64 resumed>) = 1 <2.000000000>
7 8.000000000 fsync(9</r/s>) = 0 <0.000000001>
7 9.000000000 unlink("/r/gone") = -1 ENOENT (No such file or directory) <0.000000001>
"""


def test_trace_is_understood():
    replay = Replay(ROOT).run(calls(TRACE))
    assert replay.names == {"/r/s": DIRECTORY, "/r/s/f": 1}
    assert bytes(replay.files[1]) == b'ac\0"'
    assert replay.events == [
        Entries((("/r/s", DIRECTORY),)), Write(1, 0, b'ab\0"'), Entries((("/r/s/f", 1),)),
        Sync(1, 3), Write(1, 0, b'ac\0"'), DirectorySync("/r/s", 5),
    ]  # fmt: skip


def test_trace_that_is_not_whole_is_refused():
    with pytest.raises(AssertionError, match="unknown file"):
        Replay(ROOT).run(call for call in calls(TRACE) if call.name != "linkat")


def test_trace_with_a_call_that_nobody_knows_is_refused():
    with pytest.raises(AssertionError, match="what does"):
        Replay(ROOT).run(calls(TRACE.replace("linkat(", "exchange(")))


def test_nothing_is_lost_without_a_power_failure():
    state = after(Write(1, 0, NEW), Entries((("/r/b", 1),)))
    assert whole(state, ROOT).names == {"/r/a": 1, "/r/b": 1}
