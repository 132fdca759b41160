"""The bars of programs that wait for copies."""

from types import SimpleNamespace

import pytest

from iitools import bars, waiting


def copy(copied, left):
    return SimpleNamespace(
        shadow="/s",
        copying=True,
        copied_chunks=copied,
        copy_bits=left,
        chunk_bytes=32768,
        size_bytes=327680,
    )


@pytest.mark.parametrize(
    ("copied", "left", "percent"), [(0, 5, 0), (5, 5, 50), (10, 0, 100)]
)
def test_bar_of_a_copy_is_full_when_nothing_is_left(copied, left, percent):
    row = copy(copied, left)
    shown = waiting._Bars([row])
    shown.show([row])
    (task,) = shown._progress.tasks
    assert task.percentage == percent


def test_copy_of_nothing_has_no_bar():
    assert waiting._Bars([copy(0, 0)])._progress.tasks == []


@pytest.mark.parametrize(("speed", "shown"), [(None, ""), (3 << 20, "3 MiB/s")])
def test_speed_has_binary_units(speed, shown):
    task = SimpleNamespace(finished_speed=None, speed=speed)
    assert bars._Speed().render(task).plain == shown
