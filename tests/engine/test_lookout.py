"""Looks at paths of which one does not answer."""

import threading

import pytest
import trio

from iifuse.loop import lookout
from iifuse.loop.lookout import Lookout


@pytest.fixture
def hang(monkeypatch):
    """A look that hangs until the event is set; a moment is patience enough."""
    monkeypatch.setattr(lookout, "PATIENCE_S", 0.2)
    released = threading.Event()

    def look():
        released.wait(60)
        return "late"

    yield look, released
    released.set()


async def test_path_that_hangs_is_left_out_and_the_others_are_looked_at(hang, loop):
    with trio.fail_after(60):
        found = await Lookout(loop).look({"a": lambda: 1, "hangs": hang[0], "b": lambda: 2})
    assert found == {"a": 1, "b": 2}


async def test_path_that_hangs_keeps_one_thread_and_no_more(hang, loop):
    out = Lookout(loop)
    with trio.fail_after(60):
        await out.look({"hangs": hang[0]})
        before = threading.active_count()
        for _ in range(20):
            assert await out.look({"hangs": hang[0], "a": lambda: 1}) == {"a": 1}
    assert threading.active_count() <= before + 1


async def test_path_is_looked_at_again_once_it_has_answered(hang, loop):
    out = Lookout(loop)
    look, released = hang
    with trio.fail_after(60):
        assert await out.look({"hangs": look}) == {}
        released.set()
        while not await out.look({"hangs": lambda: "answers"}):  # noqa: ASYNC110 - of a thread
            await trio.sleep(0.01)


async def test_path_whose_look_fails_is_left_out_told_once_and_the_others_are_looked_at(
    caplog, loop
):
    out = Lookout(loop)

    def fail():
        raise OSError(5, "Input/output error")

    looks = {"a": lambda: 1, "fails": fail, "b": lambda: 2}
    for _ in range(3):
        assert await out.look(looks) == {"a": 1, "b": 2}
    assert [r.message for r in caplog.records] == [
        "fails: the look at its path failed: [Errno 5] Input/output error"
    ]
    assert not caplog.records[0].exc_info
    await out.look({"fails": lambda: 3})
    await out.look(looks)
    assert len(caplog.records) == 2, "it had answered meanwhile"


async def test_path_that_fails_before_one_that_hangs_does_not_hide_it(hang, loop):
    looks = {"fails": lambda: 1 // 0, "hangs": hang[0], "b": lambda: 2}
    with trio.fail_after(60):
        assert await Lookout(loop).look(looks) == {"b": 2}


async def test_end_of_the_service_waits_for_no_look(hang, loop):
    with trio.fail_after(60), trio.move_on_after(0.1) as scope:
        await Lookout(loop).look({"hangs": hang[0]})
    assert scope.cancelled_caught


async def test_looks_that_take_long_together_are_all_made(hang, loop):
    slow = threading.Event()
    looks = {str(n): lambda n=n: slow.wait(0.05) or n for n in range(20)}
    assert await Lookout(loop).look(looks) == {str(n): n for n in range(20)}
