"""What is taken for zeros on a bitmap volume is zeros, whatever failed or ran side by side."""

import os
import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iifuse.core.bitmap import SECTOR_BIT_BYTES
from iifuse.core.sector import SECTOR_BYTES
from iifuse.store.writtenrows import WrittenRows

SECTORS = 40
ZERO = bytes(SECTOR_BIT_BYTES) + b"\xaa" * 4
ONES = b"\xff" * SECTOR_BIT_BYTES + b"\xbb" * 4
LAST = bytes(SECTOR_BIT_BYTES - 1) + b"\x80" + b"\xcc" * 4


class Disk:
    def __init__(self) -> None:
        self.rows = WrittenRows(SECTORS)
        self.content = [os.urandom(SECTOR_BYTES)] * SECTORS

    def put(self, first: int, sectors: list[bytes]) -> None:
        self.content[first : first + len(sectors)] = sectors

    def write(self, first: int, sectors: list[bytes], fails_after: int | None = None) -> None:
        def write() -> None:
            self.put(first, sectors[:fails_after])
            if fails_after is not None:
                raise OSError(5, "planted")

        self.rows.write(first, b"".join(sectors), write)

    def zeros(self) -> list[int]:
        found = self.rows.not_zero(0, SECTORS)
        return [n for n in range(SECTORS) if not found[n]]

    def check(self) -> None:
        assert all(not any(self.content[n][:SECTOR_BIT_BYTES]) for n in self.zeros())


writes = st.tuples(
    st.integers(0, SECTORS - 1),
    st.lists(st.sampled_from((ZERO, ONES, LAST)), min_size=1, max_size=20),
    st.none() | st.integers(0, 5),
)


@given(st.lists(writes, max_size=20))
def test_written_rows_of_zeros_are_zeros_on_the_disk_whatever_failed(script):
    disk = Disk()
    for first, sectors, fails_after in script:
        with suppress(OSError):
            disk.write(first, sectors[: SECTORS - first], fails_after)
        disk.check()


def test_written_rows_are_not_known_while_they_are_written():
    disk = Disk()
    disk.write(0, [ZERO] * 3)
    seen: list[int] = []
    disk.rows.write(1, ZERO, lambda: seen.extend(disk.zeros()))
    assert seen == [0, 2]


def test_written_rows_are_known_only_after_zeros_were_written():
    disk = Disk()
    assert disk.zeros() == []
    disk.write(3, [ZERO] * 4)
    disk.write(20, [ZERO] * 12)
    disk.write(21, [LAST])
    assert disk.zeros() == [3, 4, 5, 6, 20, *range(22, 32)]


@pytest.mark.parametrize("ends_first", ["zeros", "ones"])
@pytest.mark.parametrize("begins_first", ["zeros", "ones"])
@pytest.mark.parametrize("fails", [False, True])
def test_written_rows_of_writes_side_by_side_are_not_known(begins_first, ends_first, fails):
    """Whichever began, and whichever reached the disk last."""
    disk = Disk()
    other = "ones" if begins_first == "zeros" else "zeros"
    content = {"zeros": [ZERO], "ones": [ONES]}

    def finish(name: str) -> None:
        disk.put(5, content[name])
        if fails and name == "ones":
            raise OSError(5, "planted")

    def second_inside_first() -> None:
        if ends_first == begins_first:
            finish(begins_first)
        with suppress(OSError):
            disk.rows.write(5, content[other][0], lambda: finish(other))
        if ends_first != begins_first:
            finish(begins_first)

    with suppress(OSError):
        disk.rows.write(5, content[begins_first][0], second_inside_first)
    assert disk.zeros() == []
    disk.write(5, [ZERO])
    assert disk.zeros() == [5]


def test_written_rows_of_a_write_that_outlasts_another_are_not_known():
    """A begins, B begins, A ends, B ends; what A wrote may be there."""
    disk = Disk()
    order: list[str] = []
    b_began, a_ended = threading.Event(), threading.Event()

    def b_writes() -> None:
        disk.put(5, [ZERO])
        b_began.set()
        a_ended.wait(60)
        order.append("B")

    def a_writes() -> None:
        b.start()
        b_began.wait(60)
        disk.put(5, [ONES])
        order.append("A")

    b = threading.Thread(target=lambda: disk.rows.write(5, ZERO, b_writes))
    disk.rows.write(5, ONES, a_writes)
    a_ended.set()
    b.join()
    assert order == ["A", "B"]
    disk.check()
    assert disk.zeros() == []
