"""The header comes back as it was, and nothing but BadBitmap comes out of what is not one."""

import base64
import struct
import zlib
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from iifuse import errors
from iifuse.core import header as fmt
from iifuse.core.header import BitmapRole, Closure, FileId, Header, Pit, Stamp
from iifuse.core.state import Change, Custody, Kind, Policy, Progress, Role
from iifuse.core.times import TIME_NS_MAX, Times

PREFIX = struct.Struct("<8sIIII")
"""magic, version, length, CRC, incompatible features."""

u64 = st.integers(0, (1 << 62) - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
pits = st.builds(Pit, number=u64, id=st.uuids(), time_ns=i64)
stamps = st.builds(Stamp, size_bytes=i64, mtime_ns=i64, ctime_ns=i64)
times = st.builds(Times, *[st.integers(-TIME_NS_MAX, TIME_NS_MAX)] * 3)
files = st.builds(FileId, inode=st.integers(0, 2**64 - 1), birth_ns=i64)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
paths = st.binary(max_size=300).map(
    lambda b: "/" + b.replace(b"\0", b"").decode("utf-8", "surrogateescape")
)


def sensible(header):
    """The header without what no service writes."""
    if header.kind is Kind.DEPENDENT:
        header = replace(header, custody=Custody.LOCAL)
        if header.progress is Progress.TO_SHADOW:
            header = replace(header, progress=Progress.IDLE)
    if header.progress is Progress.IDLE:
        header = replace(header, copying=False)
    imported = header.custody is Custody.IMPORTED
    return replace(header, role=BitmapRole.IMPORTED if imported else BitmapRole.MAIN)


headers = st.builds(
    Header,
    uuid=st.uuids(), kind=st.sampled_from(Kind), size_bytes=st.integers(1, (1 << 60) - 1),
    master=paths, shadow=paths, bitmap=paths, sequence=u64, role=st.sampled_from(BitmapRole),
    progress=st.sampled_from(Progress), copying=st.booleans(), custody=st.sampled_from(Custody),
    offline=st.integers(0, 15).map(Role), offline_reason=names,
    clean=st.booleans(), process_durability=st.booleans(), closure=st.sampled_from(Closure),
    restored_offline=st.booleans(),
    pit=pits, export_number=u64, import_id=st.uuids(), boot_id=st.uuids(),
    pending=st.sampled_from(Change), pending_pit=pits, transition_id=st.uuids(),
    master_stamp=stamps, shadow_stamp=stamps,
    joined=st.lists(st.uuids(), max_size=fmt.JOINED_MAX).map(tuple),
    policy=st.builds(Policy, break_write=st.booleans(), limit_s=st.integers(0, (1 << 32) - 1)),
    session=st.integers(0, (1 << 32) - 1),
    master_times=times, shadow_times=times, master_file=files, shadow_file=files,
).map(sensible)  # fmt: skip
PLAIN = Header(
    uuid=UUID(int=5), kind=Kind.INDEPENDENT, size_bytes=10**9, master="/m", shadow="/s",
    bitmap="/b", sequence=9, pit=Pit(3, UUID(int=7), 10**18),
)  # fmt: skip


@given(headers)
def test_header_comes_back_as_it_was(header):
    slot = fmt.pack(header)
    assert len(slot) % 512 == 0
    assert len(slot) <= fmt.SLOT_BYTES
    assert fmt.unpack("/b", slot) == header
    assert fmt.unpack("/b", slot.ljust(fmt.SLOT_BYTES, b"\0")) == header


def with_crc(slot: bytes) -> bytes:
    """The slot with the checksum that its bytes would have."""
    magic, version, length, _, features = PREFIX.unpack_from(slot)
    body = slot[PREFIX.size : length]
    crc = zlib.crc32(PREFIX.pack(magic, version, length, 0, features) + body)
    return PREFIX.pack(magic, version, length, crc, features) + slot[PREFIX.size :]


def unpack_or_bad(slot: bytes) -> Header | None:
    try:
        return fmt.unpack("/b", slot)
    except errors.BadBitmap as error:
        assert "/b" in str(error)
        return None


@given(st.binary(max_size=3000))
def test_header_of_random_bytes_is_bad(blob):
    assert unpack_or_bad(blob) is None
    assert unpack_or_bad(fmt.MAGIC + blob) is None


@given(headers, st.integers(0, 10**4), st.integers(1, 255))
def test_header_with_any_byte_changed_is_bad(header, at, change):
    slot = bytearray(fmt.pack(header))
    length = PREFIX.unpack_from(slot)[2]
    slot[at % length] ^= change
    assert unpack_or_bad(bytes(slot)) is None


@given(
    headers,
    st.lists(st.tuples(st.integers(12, 500), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 5000),
)
def test_header_with_hostile_values_under_a_right_checksum_is_bad_or_sane(header, changes, cut):
    """A forger can compute a CRC: no value may lead to anything but BadBitmap."""
    slot = bytearray(fmt.pack(header))
    for at, value in changes:
        slot[at % len(slot)] = value
    length = min(PREFIX.unpack_from(slot)[2], len(slot)) - cut % 7
    assume(length > PREFIX.size)
    struct.pack_into("<I", slot, 12, length)
    found = unpack_or_bad(with_crc(bytes(slot)))
    if found is not None:
        assert 0 < found.size_bytes < 1 << 60
        assert found.geometry.chunks > 0
        assert fmt.unpack("/b", fmt.pack(found)) == found


@pytest.mark.parametrize("cut", [0, 1, PREFIX.size - 1, PREFIX.size, PREFIX.size + 1, -1])
def test_header_that_is_cut_short_is_bad(cut):
    slot = fmt.pack(PLAIN)
    assert unpack_or_bad(slot[: PREFIX.unpack_from(slot)[2]][:cut]) is None


@pytest.mark.parametrize(("version", "features"), [(3, 0), (0, 0), (1, 1), (2, 1)])
def test_header_of_an_unknown_format_is_refused_by_name(version, features):
    slot = bytearray(fmt.pack(PLAIN))
    struct.pack_into("<I", slot, 8, version)
    struct.pack_into("<I", slot, 20, features)
    with pytest.raises(errors.BadBitmap, match="not known here"):
        fmt.unpack("/b", with_crc(bytes(slot)))


def test_header_newest_is_the_one_of_the_higher_sequence():
    slots = [fmt.pack(replace(PLAIN, sequence=n)) for n in (4, 5)]
    assert fmt.newest("/b", slots)[1] == 1
    assert fmt.newest("/b", slots[::-1])[1] == 0
    assert fmt.newest("/b", [slots[0], b"torn" + slots[1][4:]])[0].sequence == 4
    with pytest.raises(errors.BadBitmap):
        fmt.newest("/b", [b"", bytes(fmt.SLOT_BYTES)])


def test_header_completed_counts_the_pending_change():
    header = replace(PLAIN, pending=Change.MERGE_TO_MASTER, pending_pit=Pit(4, UUID(int=8), 1))
    done = header.completed()
    assert (done.pit.number, done.pending, done.pending_pit) == (4, Change.NONE, Pit())
    assert (done.progress, done.copying) == (Progress.TO_MASTER, True)


def test_header_with_paths_that_do_not_fit_is_refused_before_it_is_written():
    longest = "/" + "x" * (fmt.PATH_BYTES_MAX - 1)
    slot = fmt.pack(replace(PLAIN, master=longest, shadow=longest, bitmap="/b"))
    assert len(slot) <= fmt.SLOT_BYTES
    with pytest.raises(errors.UsageError, match="too long together"):
        fmt.pack(replace(PLAIN, master=longest, shadow=longest, bitmap=longest))


def test_header_always_has_room_for_the_reason_of_a_failure():
    third = "/" + "x" * (fmt.PATHS_BYTES_MAX // 3 - 1)
    offline = replace(PLAIN, offline=Role.SHADOW, offline_reason="\U0001f4a5" * 1000)
    slot = fmt.pack(replace(offline, master=third, shadow=third, bitmap=third))
    assert len(slot) <= fmt.SLOT_BYTES
    assert fmt.unpack("/b", slot).offline is Role.SHADOW


@pytest.mark.parametrize(
    "fields",
    [
        {"copying": True},
        {"role": BitmapRole.IMPORTED},
        {"custody": Custody.IMPORTED},
        {"kind": Kind.DEPENDENT, "progress": Progress.TO_SHADOW},
        {"kind": Kind.DEPENDENT, "custody": Custody.EXPORTED},
        {"master": "relative"},
        {"shadow": "/nul\0byte"},
    ],
)
def test_header_that_contradicts_itself_is_bad(fields):
    """F13: somebody who can compute a checksum can write anything."""
    with pytest.raises(errors.BadBitmap, match="impossible value"):
        fmt.unpack("/b", fmt.pack(replace(PLAIN, **fields)))


VERSION_1 = zlib.decompress(base64.b85decode(
    "c-qU%Oe-x;P0D3tU|^U8Bpxr?Y7S&Fa57*8tc)OqOhDYgz~BoKIW@}~L@{Gm&(6S*vV8Nl2fPe428>Xe2}&~)sh$O>"
    "g9)w+4mcU;4AS%SQuTB7i}jP}YcBu<{}0s"
))  # fmt: skip
"""A slot as iifuse 0.1.0 wrote it."""


def test_header_of_version_1_is_read_and_knows_no_times_and_no_files():
    assert fmt.unpack("/b", VERSION_1) == replace(
        PLAIN, master_stamp=Stamp(1, 2, 3), joined=(UUID(int=9),), session=77,
        offline=Role.SHADOW, offline_reason="gone",
    )  # fmt: skip


def test_header_of_version_1_is_written_as_version_2():
    again = fmt.pack(fmt.unpack("/b", VERSION_1))
    assert PREFIX.unpack_from(again)[1] == fmt.VERSION == 2
    assert fmt.unpack("/b", again) == fmt.unpack("/b", VERSION_1)


def test_header_with_a_time_past_all_times_is_refused():
    with pytest.raises(errors.BadBitmap, match="out of range"):
        fmt.unpack("/b", fmt.pack(replace(PLAIN, shadow_times=Times(0, TIME_NS_MAX + 1))))
