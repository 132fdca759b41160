"""A fingerprint tells a shadow from others of its size, and costs little (K3)."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iifuse.core.geometry import CHUNK_BYTES
from iifuse.core.ticket import Fingerprint
from iifuse.store import fingerprint
from iifuse.store.volume import open_volume

CHUNKS = 500


@pytest.fixture
def make(disk_place):
    """Open files of so many bytes, sparse but for `data` (chunk -> bytes)."""
    opened = []

    def maker(name, size, data):
        path = disk_place / name
        with path.open("wb") as file:
            file.truncate(size)
            for chunk, content in data.items():
                file.seek(chunk * CHUNK_BYTES)
                file.write(content)
        opened.append(open_volume(str(path)))
        return opened[-1]

    yield maker
    for volume in opened:
        volume.close()


def test_fingerprint_fits_its_own_volume_and_finds_each_changed_chunk(make):
    size = CHUNKS * CHUNK_BYTES - 1000
    volume = make("v", size, {chunk: os.urandom(100) for chunk in range(CHUNKS)})
    prints = fingerprint.take(volume, size, "seed")
    assert not fingerprint.differing(volume, size, prints)
    for chunk in list(prints)[::7]:
        volume.write(chunk * CHUNK_BYTES + 50, b"changed")
        assert chunk in fingerprint.differing(volume, size, prints)
    assert len(fingerprint.differing(volume, size, prints)) == len(list(prints)[::7])


@pytest.mark.parametrize("where", [[77], [3, 250, 251, 444]])
def test_fingerprint_of_a_nearly_empty_volume_looks_where_there_is_data(make, where):
    """Else two young file systems with the same first chunks would be alike."""
    size = CHUNKS * CHUNK_BYTES
    one, other = (make(name, size, {at: os.urandom(9) for at in where}) for name in "ab")
    prints = fingerprint.take(one, size, "seed")
    found = fingerprint.telling(prints, size)
    assert found
    assert found <= set(where)
    assert fingerprint.differing(other, size, prints) == found


def test_fingerprint_of_other_exports_looks_at_other_chunks_too(make):
    size = CHUNKS * CHUNK_BYTES
    volume = make("v", size, {chunk: os.urandom(9) for chunk in range(CHUNKS)})
    one, other = (set(fingerprint.take(volume, size, seed)) for seed in ("1", "2"))
    assert one != other
    assert {0, 1, 2, CHUNKS - 1} <= one & other


def test_fingerprint_zeros_tell_nothing(make):
    size = 10 * CHUNK_BYTES + 1
    prints = fingerprint.take(make("v", size, {}), size, "seed")
    assert prints
    assert not fingerprint.telling(prints, size)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80 * CHUNK_BYTES), st.text(max_size=5))
def test_fingerprint_of_any_size_fits_into_a_ticket(size, seed):
    """Never more chunks than a ticket takes, never one beyond the end."""

    class Zeros:
        def read(self, offset, length):
            assert offset + length <= size
            return bytes(length)

        def data_from(self, offset, stop):
            assert offset < stop == size
            return offset, stop

    prints = fingerprint.take(Zeros(), size, seed)
    most = Fingerprint.__metadata__[0].max_length
    assert 0 < len(prints) <= most
    assert all(chunk * CHUNK_BYTES < size for chunk in prints)
