"""Points in time while programs write: one instant for a whole group, no write half in it."""

import os
import threading
from mmap import mmap

import pytest
from harness import CHUNK

from iifuse.control import protocol
from iifuse.control.protocol import SetStatus, Target

WRITERS = 4
EXTENT = 4 * CHUNK
"""Bytes of one write; the kernel sends it as one request."""

PLACES = 24
"""Extents of each writer, which it goes round: most writes are the first since the last PIT."""

POINTS = 40


class Writer(threading.Thread):
    """Writes the number of its turn to the next place of one master, then of the other."""

    def __init__(self, paths, number: int, end: threading.Event) -> None:
        super().__init__(daemon=True)
        self.number, self.end, self.turn = number, end, 0
        self.files = [os.open(path, os.O_WRONLY | os.O_DIRECT) for path in paths]
        self.failure: OSError | None = None

    def run(self) -> None:
        try:
            with mmap(-1, EXTENT) as buffer:
                while not self.end.is_set():
                    turn = self.turn + 1
                    buffer[:] = turn.to_bytes(8, "little") * (EXTENT // 8)
                    at = (self.number * PLACES + turn % PLACES) * EXTENT
                    for file in self.files:
                        assert os.pwrite(file, buffer, at) == EXTENT
                    self.turn = turn
        except OSError as error:
            self.failure = error
        finally:
            for file in self.files:
                os.close(file)


def turns(data: bytes) -> list[int]:
    """How far each writer had come, if each of its places holds its last turn there, whole."""
    found = []
    for number in range(WRITERS):
        places = [
            data[at * EXTENT : (at + 1) * EXTENT]
            for at in range(number * PLACES, (number + 1) * PLACES)
        ]
        for place in places:
            assert place == place[:8] * (EXTENT // 8), f"half a write of writer {number} is in it"
        held = [int.from_bytes(place[:8], "little") for place in places]
        last = max(held)
        assert sorted(held) == [max(0, last - n) for n in reversed(range(PLACES))]
        found.append(last)
    return found


@pytest.fixture
def group(service, place):
    """Two masters; of the first a dependent and an independent set, of the second one."""
    names = {"a": place / "a", "b": place / "b"}
    for path in names.values():
        path.write_bytes(bytes(WRITERS * PLACES * EXTENT + 7777))
    sets = [("dep", "a", "a.dep"), ("ind", "a", "a.ind"), ("ind", "b", "b.ind")]
    for kind, master, shadow in sets:
        service.enable(kind, names[master], place / shadow, group="g")
    return names["a"], names["b"], *(place / s for _, _, s in sets)


def test_group_update_is_one_instant_in_which_no_write_is_half_done(service, group):
    """Writes that have entered are drained, and one that was acknowledged before is in the PIT."""
    first, second, dependent, independent, other = group
    end = threading.Event()
    writers = [Writer([service.path(first), service.path(second)], n, end) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(POINTS):
            before = [writer.turn for writer in writers]
            request = protocol.Update("s", False, Target(group="g"))
            rows = service.client.call(request, list[SetStatus])
            assert len({row.pit_id for row in rows}) == 1
            shown = [turns(service.read(path)) for path in (dependent, independent, other)]
            assert shown[0] == shown[1]
            for acknowledged, a, b in zip(before, shown[0], shown[2], strict=True):
                assert acknowledged <= b <= a <= b + 1
            assert shown == [
                turns(service.read(path)) for path in (dependent, independent, other)
            ], "a point in time moves"
    finally:
        end.set()
        for writer in writers:
            writer.join(60)
    assert not any(writer.failure for writer in writers)
    assert all(writer.turn > POINTS for writer in writers)
    service.flip("s", dependent, independent, other)
    service.wait(independent, other)
    assert service.read(independent) == service.read(first) == independent.read_bytes()
    assert service.read(other) == service.read(second) == other.read_bytes()
