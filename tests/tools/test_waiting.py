"""The bars of programs that wait for copies."""

from types import SimpleNamespace

import pytest

from iitools import waiting


@pytest.mark.parametrize(
    ("copied", "left", "percent"), [(0, 0, 100), (0, 5, 0), (5, 5, 50), (10, 0, 100)]
)
def test_bar_of_a_copy_is_full_when_nothing_is_left(copied, left, percent):
    """Also of one that had nothing to copy at all."""
    row = SimpleNamespace(
        shadow="/s",
        copying=True,
        copied_chunks=copied,
        copy_bits=left,
        chunk_bytes=32768,
        size_bytes=327680,
    )
    bars = waiting._Bars([row])
    bars.show([row])
    (task,) = bars._progress.tasks
    assert task.percentage == percent
