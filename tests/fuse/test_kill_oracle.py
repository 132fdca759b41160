"""What judges the hundred kills notices what it has to notice."""

import numpy as np
import pytest
from kill_sectors import Part, Truth, check_instant, clock
from lost import Lost
from stamps import SECTOR, sector

COUNT = 64


@pytest.fixture
def truth():
    return Truth("m", 7, COUNT)


def shown(tags):
    """A file that shows these tags."""
    return b"".join(sector(int(tag), n) for n, tag in enumerate(tags))


def write(truth, first, count, *, answered=True):
    made = truth.begin(first, count)
    if answered:
        truth.acknowledge(made)
    return made


def with_writes(truth, *writes):
    tags = truth.tags.copy()
    for made in writes:
        tags[made.range] = made.tag
    return tags


# -- one file ---------------------------------------------------------------------------------


def test_oracle_accepts_answered_writes_and_old_or_new_sectors_of_others(truth):
    first, second = write(truth, 0, 8), write(truth, 20, 8, answered=False)
    tags = with_writes(truth, first)
    tags[22:25] = second.tag
    truth.settle(shown(tags))
    truth.settle(shown(tags))  # known from now on
    with pytest.raises(Lost, match="hold"):
        truth.settle(shown(with_writes(truth, second)))


def test_oracle_notices_an_answered_write_that_is_gone(truth):
    write(truth, 0, 8)
    with pytest.raises(Lost):
        truth.settle(shown(truth.tags))


def test_oracle_notices_an_older_write_over_a_newer_one(truth):
    older, newer = write(truth, 0, 8), write(truth, 4, 8)
    with pytest.raises(Lost):
        truth.settle(shown(with_writes(truth, newer, older)))


@pytest.mark.parametrize("at", [0, 100, 511])
def test_oracle_notices_a_turned_byte(truth, at):
    blob = bytearray(shown(truth.tags))
    blob[5 * SECTOR + at] ^= 1
    with pytest.raises(Lost, match="damaged"):
        truth.settle(bytes(blob))


def test_oracle_notices_sectors_in_another_place(truth):
    blob = shown(truth.tags)
    with pytest.raises(Lost, match="another place"):
        truth.settle(blob[SECTOR:] + blob[:SECTOR])


# -- a point in time --------------------------------------------------------------------------


def test_oracle_accepts_a_point_in_time_anywhere_within_its_command(truth):
    before = write(truth, 0, 8)
    begun = clock()
    within, late = write(truth, 8, 8), write(truth, 16, 8)
    ended = clock()
    write(truth, 0, 8)
    for found in ((before,), (before, within), (before, within, late)):
        check_instant([Part(truth, "s", with_writes(truth, *found))], begun, ended)


def test_oracle_notices_what_is_missing_late_half_or_out_of_order(truth):
    before = write(truth, 0, 8)
    begun = clock()
    first, second = write(truth, 8, 8), write(truth, 16, 8)
    ended = clock()
    after = write(truth, 24, 8)
    half = with_writes(truth, before)
    half[first.range.start] = first.tag
    strange = with_writes(truth, before)
    strange[40] = 99
    for tags, why in (
        (truth.tags, "before the command"),
        (with_writes(truth, before, first, second, after), "after it"),
        (with_writes(truth, before, second), "before that is not"),
        (half, "half"),
        (strange, "never"),
    ):
        with pytest.raises(Lost, match=why):
            check_instant([Part(truth, "s", np.array(tags))], begun, ended)


def test_oracle_notices_two_files_of_a_group_at_two_instants(truth):
    other = Truth("n", 8, COUNT)
    begun = clock()
    first, second = write(truth, 0, 8), write(other, 0, 8)
    good = [Part(truth, "s", with_writes(truth, first)), Part(other, "t", other.tags)]
    check_instant(good, begun, clock())
    bad = [Part(truth, "s", truth.tags), Part(other, "t", with_writes(other, second))]
    with pytest.raises(Lost):
        check_instant(bad, begun, clock())
