import json
import time

import pytest
from fake_service import CHUNK, row

from iifuse import errors
from iifuse.control.protocol import Compare, Compared, MarkChanged


@pytest.fixture
def large(service):
    """A set of 2500 chunks and a little, which takes three questions."""
    service.rows = [row("/s", group="G", chunks=2501, size_bytes=2500 * CHUNK + 10)]
    return service


def test_every_chunk_is_asked_about_once(run, large):
    ended = run("iiverify", "/s")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert large.changes == [
        Compare("/s", 0, 1024), Compare("/s", 1024, 1024), Compare("/s", 2048, 453),
    ]  # fmt: skip


def test_what_differs_is_printed_as_offset_and_length(run, large):
    large.on(Compare, Compared(((3, 2), (1023, 1))), Compared(((1024, 1),)), Compared(((2500, 1),)))
    ended = run("iiverify", "/s")
    assert ended.code == 1
    assert ended.out.splitlines() == [
        f"/s: {3 * CHUNK} {2 * CHUNK}",
        f"/s: {1023 * CHUNK} {2 * CHUNK}",
        f"/s: {2500 * CHUNK} 10",
    ]
    assert "--mark" in ended.err
    assert not large.asked(MarkChanged)


def test_mark_says_what_differs_to_the_service(run, large):
    large.on(Compare, Compared(((3, 2),)), Compared(()), Compared(((2500, 1),)))
    ended = run("iiverify", "--mark", "-g", "G")
    assert ended.code == 1
    assert "heals" in ended.err
    assert large.asked(MarkChanged) == [
        MarkChanged("/s", ((3, 2),)), MarkChanged("/s", ((2500, 1),)),
    ]  # fmt: skip


def test_what_was_found_before_a_failure_is_printed(run, large):
    large.on(Compare, Compared(((3, 1),)), errors.StorageError("/s", "failed to read"))
    ended = run("iiverify", "/s", "--json")
    assert ended.code == 2
    (result,) = json.loads(ended.out)["sets"]
    assert result["differing"] == [{"offset": 3 * CHUNK, "length": CHUNK}]
    assert not result["complete"]
    assert "failed to read" in ended.err


@pytest.mark.parametrize("rate", ["160M", "160M/s", "160MiB/s"])
def test_rate_holds_the_program_back(run, large, rate):
    began = time.monotonic()
    assert run("iiverify", "--rate", rate, "/s").code == 0
    assert 0.45 < time.monotonic() - began < 30


def test_small_rate_asks_for_little_at_a_time(run, service):
    service.rows = [row("/s")]
    assert run("iiverify", "--rate", "4M", "/s").code == 0
    assert service.changes == [Compare("/s", 0, 64)]
    service.requests.clear()
    service.rows = [row("/s", chunks=3, size_bytes=3 * CHUNK)]
    assert run("iiverify", "--rate", str(8 * CHUNK), "/s").code == 0
    assert {request.count for request in service.changes} == {3}


@pytest.mark.parametrize("rate", ["0", "fast", "-1", "9" * 400])
def test_rate_that_is_none_is_refused(run, large, rate):
    ended = run("iiverify", f"--rate={rate}", "/s")
    assert (ended.code, ended.out) == (1, "")
    assert large.requests == []


@pytest.mark.parametrize("words", [[], ["-g", "G", "/s"]])
def test_sets_or_a_group_have_to_be_named(run, large, words):
    assert run("iiverify", *words).code == 1
    assert large.requests == []


def test_progress_is_shown_on_a_terminal(on_terminal, large):
    ended = on_terminal("iiverify", "/s", streams=("stderr",))
    assert ended.code == 0
    assert "100%" in ended.err
