"""Two contents of a file never show the same times, however clocks and power behave."""

from hypothesis import given
from hypothesis import strategies as st

from iifuse.core.times import (
    AHEAD_NS,
    ASKED_NS_MAX,
    TIME_NS_MAX,
    FileTimes,
    Times,
    after,
    doubted,
    in_range,
    resumed,
    times_of_import,
)

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
clock = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([-3600 * SECOND, 3600 * SECOND, SECOND, AHEAD_NS, -AHEAD_NS]),
)
acts = st.one_of(
    st.tuples(st.sampled_from(["write", "settle", "kill", "stop", "pit", "elsewhere"]), st.just(0)),
    st.tuples(st.just("utimens"), st.one_of(
        st.integers(NOW - 5, NOW + 5), st.sampled_from([0, -NOW, NOW + 7200 * SECOND, 1 << 62]),
    )),
)  # fmt: skip


class Machine:
    """One file of a service that notes before it changes, as the timekeeper does."""

    def __init__(self, durable: Times) -> None:
        self.durable, self.file = durable, FileTimes(durable)

    def _note(self, now: int) -> None:
        if now >= self.file.ceiling_ns:
            self.durable = self.file.written(now)
            self.file.ceiling_ns = self.durable.ceiling_ns

    def act(self, act: str, argument: int, now: int) -> None:
        if act in ("write", "pit"):
            self._note(now)
            self.file.change(now)
        elif act == "utimens":
            self._note(max(now, in_range(argument)))
            self.file.set_mtime(argument, now)
        elif act == "elsewhere":  # the raw file was written while the service was down
            self.durable = doubted(self.file.exact(), now)
            self.file = FileTimes(resumed([self.durable], now))
        else:
            if act != "kill":
                self.durable = self.file.exact()
            if act == "settle":
                self.file.ceiling_ns = 0
            else:
                self.file = FileTimes(resumed([self.durable], now))
                self.durable = self.file.exact()

    @property
    def shown(self) -> tuple[int, int]:
        return self.file.mtime_ns, self.file.ctime_ns


@given(st.lists(st.tuples(acts, clock)))
def test_times_of_two_contents_are_never_the_same(script):
    now, content = NOW, 0
    machine = Machine(Times(NOW, NOW))
    seen = {machine.shown: content}
    for (act, argument), step in script:
        now += step
        before = machine.shown
        machine.act(act, argument, now)
        content += act in ("write", "pit", "elsewhere")
        assert seen.setdefault(machine.shown, content) == content
        assert machine.shown[1] >= before[1], "the change time goes back"
        assert machine.shown[0] >= before[0] or act == "utimens", "the modification time goes back"
        assert max(machine.shown) < TIME_NS_MAX
        if act == "settle" or (act == "stop" and not machine.durable.ceiling_ns):
            assert machine.shown == before, "nothing has changed"


cached_acts = st.sampled_from(["write", "told", "stop", "kill"])


@given(st.lists(st.tuples(cached_acts, st.integers(1, SECOND))))
def test_times_that_the_kernel_has_shown_come_back_and_not_with_another_content(script):
    """writeback_cache: a write arrives after its time, and that time is told after the write."""
    now, content, machine = NOW, 0, Machine(Times(NOW, NOW))
    kernel = machine.shown
    seen = {kernel: content}
    for act, step in script:
        now += step
        if act == "write":
            kernel, content = (now, now), content + 1
            now += step
            machine.act("write", 0, now)
        elif act != "kill":  # a stop takes the mount off: all is told before
            machine.file.adopt(*kernel)
        if act in ("stop", "kill"):
            machine.act(act, 0, now)
            assert machine.shown == kernel or act == "kill"
            kernel = machine.shown
            now = max(now, kernel[1])  # until then the kernel shows earlier times than a kill left
        assert seen.setdefault(kernel, content) == content


@given(st.integers(), st.integers(-NOW, NOW))
def test_times_that_are_asked_for_leave_room_for_later_ones(mtime, now):
    file = FileTimes(Times(0, 0, TIME_NS_MAX))
    file.set_mtime(mtime, now)
    assert abs(file.mtime_ns) <= ASKED_NS_MAX
    file.change(now)
    assert file.mtime_ns == file.ctime_ns
    assert file.written(now).ceiling_ns <= TIME_NS_MAX


def test_times_move_by_a_nanosecond_while_the_ceiling_cannot_be_raised():
    file = FileTimes(Times(NOW, NOW, NOW + 10))
    for step in range(1, 4):
        file.change(NOW + SECOND)
        assert (file.mtime_ns, file.ctime_ns) == (NOW + step, NOW + step)


def test_times_of_a_file_come_from_the_newest_record_unless_one_says_written():
    old, new = Times(5, 10), Times(3, 20)
    assert resumed([old, new], 1) == new
    assert resumed([old, Times(3, 20, 100)], 1) == Times(100, 100)
    assert resumed([Times(5, 10, 100), new], 200) == Times(200, 200)


def test_times_of_an_import_are_the_exporters_until_this_host_has_shown_later_ones():
    told = Times(50, 100)
    assert times_of_import(told, Times(), 7) == told
    assert times_of_import(told, told, 7) == told, "the same content as in the last import"
    assert times_of_import(told, Times(100, 100), 7) == told
    gone = times_of_import(told, Times(60, 101), 7)
    assert gone == Times(102, 102), "what was written then is gone"
    assert times_of_import(told, Times(50, 100, 400), 7) == Times(400, 400), "it was not closed"
    assert times_of_import(Times(), Times(60, 101), 7) == Times(102, 102), "a ticket of 0.1.0"
    assert times_of_import(Times(), Times(), 7) == Times(7, 7)


def test_times_after_records_are_later_than_all_that_they_can_have_shown():
    assert after([Times(5, 9), Times(12, 3), Times(1, 1, 11)], 0) == Times(13, 13)
    assert after([Times()], 40) == Times(40, 40)
