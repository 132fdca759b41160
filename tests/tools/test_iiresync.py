import json

import pytest
from fake_service import copying, row

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import Target, Update


@pytest.fixture
def one(service):
    """A set with 16 of 64 chunks to be copied, which takes two questions."""
    service.on(Update, [copying("/s", left=16)])
    service.on(protocol.Status, [copying("/s", left=6, brought=10)], [row("/s", copied_chunks=16)])
    return service


@pytest.mark.parametrize(
    ("words", "flip"),
    [
        (["/s"], Update("s", full=False, target=Target(("/s",)))),
        (["s", "/s", "/t"], Update("s", full=False, target=Target(("/s", "/t")))),
        (["-g", "G"], Update("s", full=False, target=Target(group="G"))),
        (["s", "-g", "G"], Update("s", full=False, target=Target(group="G"))),
        (["-g", "G", "m", "-n"], Update("m", full=False, target=Target(group="G"), sure=True)),
        (["m", "-n", "/s"], Update("m", full=False, target=Target(("/s",)), sure=True)),
    ],
)
def test_words_choose_direction_and_sets(run, service, words, flip):
    service.rows = [row("/s", group="G"), row("/t", group="G")]
    assert run("iiresync", *words).code == 0
    assert service.requests == [flip]


@pytest.mark.parametrize("words", [[], ["s"], ["-g", "G", "/s"], ["m", "-n"]])
def test_sets_or_a_group_have_to_be_named(run, service, words):
    ended = run("iiresync", *words)
    assert (ended.code, ended.out) == (1, "")
    assert service.requests == []


def test_result_tells_what_was_copied(run, one):
    ended = run("iiresync", "/s", "--json")
    assert (ended.code, ended.err) == (0, "")
    (result,) = json.loads(ended.out)["sets"]
    assert 0 <= result.pop("seconds") < 20
    assert result == {
        "shadow": "/s",
        "chunks": 16,
        "bytes": 16 * 32768,
        "percent": 25.0,
        "stopped": False,
    }


def test_result_is_one_line_for_each_set(run, one):
    out = run("iiresync", "/s").out
    assert out.startswith("/s: 16 chunks, 512 KiB, 25.0% of the volume, ")
    assert out.endswith(" s\n")


def test_short_last_chunk_is_not_counted_whole(run, service):
    whole = row("/s", size_bytes=100_000, chunks=4, copied_chunks=4)
    service.on(Update, [whole])
    (result,) = json.loads(run("iiresync", "/s", "--json").out)["sets"]
    assert (result["bytes"], result["percent"]) == (100_000, 100.0)


def test_each_set_is_waited_for_until_it_has_ended(run, service):
    service.on(Update, [copying("/s", left=1), copying("/t", left=2)])
    service.on(
        protocol.Status,
        [row("/s", copied_chunks=1), copying("/t", left=2)],
        [row("/t", copied_chunks=2)],
    )
    sets = json.loads(run("iiresync", "/s", "/t", "--json").out)["sets"]
    assert [(result["shadow"], result["chunks"]) for result in sets] == [("/s", 1), ("/t", 2)]
    waited = [request.target.sets for request in service.asked(protocol.Wait)]
    assert waited == [("/s", "/t"), ("/t",)]


def test_aborted_copy_is_reported_and_fails(run, service):
    service.on(Update, [copying("/s", left=16), copying("/t", left=1)])
    aborted = row("/s", progress="to_shadow", copy_bits=6, copied_chunks=10)
    service.on(protocol.Status, [aborted, row("/t", copied_chunks=1)])
    service.on(protocol.Wait, errors.CopyStopped("/s", "aborted"))
    ended = run("iiresync", "/s", "/t")
    assert ended.code == 1
    first, second = ended.out.splitlines()
    assert first.startswith("/s: 10 chunks")
    assert first.endswith(", stopped")
    assert second.startswith("/t: 1 chunk,")
    assert ended.err.startswith("iiresync: /s: the copy was aborted or failed")


def test_failed_copy_says_why(run, service):
    reason = "I/O error"
    service.on(Update, [row("/s", progress="to_shadow", offline_reason=reason)])
    assert reason in run("iiresync", "/s").err


QUESTION = errors.Question("/m", "this would overwrite a master", "a yes or -n goes ahead")


def test_overwriting_masters_without_a_terminal_is_refused(run, service):
    service.on(Update, QUESTION)
    ended = run("iiresync", "m", "-g", "G")
    assert (ended.code, ended.out) == (1, "")
    assert "would overwrite a master" in ended.err
    assert service.requests == [Update("m", full=False, target=Target(group="G"))]


@pytest.mark.parametrize(("typed", "code", "sure"), [("y\n", 0, [False, True]), ("\n", 1, [False])])
def test_overwriting_a_master_is_asked_about(on_terminal, service, typed, code, sure):
    service.rows = [row("/s")]
    service.on(Update, QUESTION, [row("/s")])
    assert on_terminal("iiresync", "m", "/s", typed=typed).code == code
    assert [flip.sure for flip in service.asked(Update)] == sure


def test_progress_is_shown_on_a_terminal(on_terminal, one):
    ended = on_terminal("iiresync", "/s", streams=("stderr",))
    assert ended.code == 0
    assert "100%" in ended.err
    assert ended.out.startswith("/s: 16 chunks")
