"""A wrong byte names the write that it came from."""

import pytest
from stamps import SECTOR, difference, stamped, tag_of

OLD, NEW = tag_of(3, 7), tag_of(4, 1 << 33)
START, LENGTH = 100, 3 * SECTOR


def test_stamp_of_a_part_is_that_part_of_the_whole():
    assert stamped(OLD, START, LENGTH) == stamped(OLD, 0, 9 * SECTOR)[START : START + LENGTH]


@pytest.mark.parametrize("at", [0, 15, 16, SECTOR - START, 2 * SECTOR, LENGTH - 20])
def test_stamp_names_write_volume_and_place(at):
    want, other = (stamped(tag, START, LENGTH) for tag in (OLD, NEW))
    assert difference(START, want, want) == ""
    said = difference(START, other[: at + 20] if at else other, want[: at + 20] if at else want)
    assert f"write {1 << 33} of volume 4" in said
    assert "write 7 of volume 3" in said


def test_stamp_tells_zeros_and_what_was_never_written():
    want = stamped(OLD, 0, SECTOR)
    assert "found zeros, expected write 7 of volume 3 to sector 0" in difference(
        0, bytes(SECTOR), want
    )
    assert "no stamp" in difference(0, b"x" * SECTOR, want)
