"""A ticket that another host wrote is hostile."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iifuse import errors
from iifuse.core import ticket
from iifuse.core.ticket import Ticket, TicketEntry
from iifuse.core.times import ASKED_NS_MAX, Times

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
paths = texts.map(lambda t: "/" + t.replace("\0", ""))
lents = st.builds(
    TicketEntry,
    uuid=st.uuids(), shadow=paths, master=paths, pit=st.integers(1, 2**40),
    pit_id=st.uuids(), pit_time=texts, export_number=st.integers(1, 2**40),
    size_bytes=st.integers(1, (1 << 60) - 1), bitmap=st.none() | paths,
    mtime_ns=st.just(msgspec.UNSET) | st.integers(-ASKED_NS_MAX, ASKED_NS_MAX),
    ctime_ns=st.just(msgspec.UNSET) | st.integers(-ASKED_NS_MAX, ASKED_NS_MAX),
)  # fmt: skip
tickets = st.builds(
    Ticket, sets=st.lists(lents, min_size=1, max_size=3).map(tuple), group=st.none() | texts
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(tickets)
def test_ticket_comes_back_as_it_was(found):
    assert ticket.decode("/t", ticket.encode(found)) == found


def test_ticket_of_the_first_version_is_read_and_stays_one():
    """A host with 0.1.0 may have to read what this one adds."""
    fields = {
        "uuid": "12345678-1234-5678-1234-567812345678", "shadow": "/s", "master": "/m", "pit": 1,
        "pit_id": "12345678-1234-5678-1234-567812345678", "pit_time": "2026-01-01T00:00:00+00:00",
        "export_number": 1, "size_bytes": 4096, "chunk_bytes": 32768, "bitmap": None, "imports": [],
    }  # fmt: skip
    old = {"sets": [fields], "group": None, "format": "iifuse-ticket-1"}
    found = ticket.decode("/t", json.dumps(old).encode())
    assert found.sets[0].times == Times()
    assert json.loads(ticket.encode(found)) == old


def decode_or_bad(blob: bytes) -> Ticket | None:
    try:
        return ticket.decode("/t", blob)
    except errors.BadTicket as error:
        assert "/t" in str(error)
        return None


@given(st.binary(max_size=400))
def test_ticket_of_random_bytes_is_bad(blob):
    assert decode_or_bad(blob) is None


@given(
    tickets,
    st.sampled_from([
        "uuid", "shadow", "master", "pit", "pit_id", "pit_time", "export_number", "size_bytes",
        "chunk_bytes", "bitmap", "more",
    ]),
    json_values,
)  # fmt: skip
def test_ticket_with_a_hostile_value_is_bad_or_sane(found, field, value):
    blob = json.loads(ticket.encode(found))
    blob["sets"][0][field] = value
    decoded = decode_or_bad(json.dumps(blob).encode())
    if decoded is not None:
        lent = decoded.sets[0]
        assert 0 < lent.size_bytes < 1 << 60
        assert lent.shadow.startswith("/")
        assert lent.pit >= 1
        assert lent.export_number >= 1


@given(tickets, st.integers(0, 10**6))
def test_ticket_that_is_cut_short_is_bad(found, cut):
    blob = ticket.encode(found).rstrip()
    assert decode_or_bad(blob[: cut % len(blob)]) is None


@pytest.mark.parametrize(
    "blob", [b"[" * 10**6, b'{"sets":[]}', b"null", b" " * (ticket.TICKET_BYTES_MAX + 1)]
)
def test_ticket_that_is_deep_empty_or_long_is_bad(blob):
    assert decode_or_bad(blob) is None


@given(lents, lents)
def test_ticket_entry_is_found_by_name_or_when_it_is_the_only_one(one, other):
    assert ticket.find("/t", Ticket(sets=(one,)), "/another/name") == one
    both = Ticket(sets=(one, other))
    assert ticket.find("/t", both, one.shadow) == one
    with pytest.raises(errors.BadTicket, match="no entry"):
        ticket.find("/t", both, "no path at all")
