"""The bars of programs that wait for copies."""

from types import SimpleNamespace

import pytest

from iitools import bars


def copy(copied, left):
    return SimpleNamespace(
        shadow="/s",
        copying=True,
        copied_chunks=copied,
        copy_bits=left,
        chunk_bytes=32768,
        size_bytes=327680,
    )


@pytest.fixture
def display(monkeypatch):
    shown = bars.bars()
    monkeypatch.setattr(bars, "bars", lambda: shown)
    return shown


@pytest.mark.parametrize(
    ("copied", "left", "percent"), [(0, 5, 0), (5, 5, 50), (10, 0, 100)]
)
def test_bar_of_a_copy_is_full_when_nothing_is_left(display, copied, left, percent):
    row = copy(copied, left)
    with bars.of_copies([row]) as show:
        show([row])
    (task,) = display.tasks
    assert task.percentage == percent


def test_copy_of_nothing_has_no_bar(display):
    with bars.of_copies([copy(0, 0)]):
        assert display.tasks == []


@pytest.mark.parametrize(("speed", "shown"), [(None, ""), (3 << 20, "3 MiB/s")])
def test_speed_has_binary_units(speed, shown):
    task = SimpleNamespace(finished_speed=None, speed=speed)
    assert bars._Speed().render(task).plain == shown
