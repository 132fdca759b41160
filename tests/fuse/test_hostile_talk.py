"""Hostile talk over a real socket: fuzzed requests to the service, endless replies to a tool."""

import json
import os
import random
import socket
from functools import partial

import pytest
import trio
import trio.testing
from fuzz_garble import line
from fuzz_talk import Flood, requests
from hang import PATIENCE_SECONDS

from iifuse import errors
from iifuse.control import lines, protocol
from iifuse.control.client import Client
from iifuse.control.server import Server
from iifuse.loop.timelimits import TimeLimits

SEED = int(os.environ.get("IIFUSE_CRASH_SEED", "1"))
MESSAGES = 400


def test_service_survives_fuzzed_requests_and_explains_each(service, volume, place):
    """F29: replies are results or failures of our own; all sets are right at the end."""
    paths = [volume("a"), volume("b"), place / "s", place / "b.bmp", place / "new"]
    service.enable("ind", paths[0], paths[2], paths[3])
    service.wait(paths[2])
    before = service.read(paths[0])
    dice, answered = random.Random(SEED), 0
    for number in range(MESSAGES):
        names = [str(path) for path in dice.sample(paths, 3)]
        wanted = dice.choice(requests(tuple(names)))
        makes_files = wanted["verb"] in ("enable", "import")  # and would under any name
        asked = line(dice, wanted, raw=0 if makes_files else 0.25)
        try:
            answered += judge(service, asked)
        except Exception as error:
            error.add_note(f"message {number} of seed {SEED}: {asked[:300]!r}")
            raise
    assert 0 < answered < MESSAGES
    log = service.said()
    assert "Traceback" not in log
    assert "defect" not in log
    if str(paths[0]) in {row.path for row in volumes(service)}:
        assert service.read(paths[0]) == before
    assert service.stop() == 0


def volumes(service):
    return service.client.call(protocol.Volumes(), list[protocol.VolumeStatus])


def judge(service, asked):
    """One request, one reply of one line."""
    with socket.socket(socket.AF_UNIX) as talk:
        talk.connect(str(service.socket))
        talk.settimeout(PATIENCE_SECONDS)
        talk.sendall(asked + b"\n")
        reply = json.loads(talk.makefile().readline())
    assert set(reply) == {"result", "failure"}
    failure = reply["failure"]
    assert failure is None or failure["error"] in set(errors.BY_NAME) - {"InternalError"}, failure
    return failure is None


def test_client_gives_up_on_an_answer_without_end():
    """A service that is none cannot fill the memory of a tool."""
    here, there = socket.socketpair()
    client = Client("/no/socket")
    client._connect = lambda: here
    flood = Flood(there)
    try:
        with pytest.raises(errors.ProtocolError, match="too long"):
            client.call(protocol.Hello(), protocol.ServiceInfo)
    finally:
        here.close()
        flood.stop()
    assert flood.sent < 2 * lines.REPLY_BYTES_MAX


async def test_client_that_trickles_its_request_is_sent_away_in_time(place, autojump_clock):
    """Each byte comes in time and the request never; others are answered meanwhile."""

    async def answer(request):
        return "here"

    server = Server(str(place / "socket"), answer, TimeLimits())
    await server.open()
    autojump_clock.autojump_threshold = 0.05
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        slow = await trio.open_unix_socket(str(place / "socket"))
        heard = await trickle(slow, partial(others_are_answered, place / "socket"))
        nursery.cancel_scope.cancel()
    failure = json.loads(heard)["failure"]
    assert (failure["error"], "30 seconds" in failure["why"]) == ("ProtocolError", True)


async def trickle(slow, between):
    """A byte each 7 seconds; what the server said in the end."""
    for number, byte in enumerate(lines.encode_request(protocol.Hello())[:-1]):
        assert number < 10, "it may go on for ever"
        await slow.send_all(bytes([byte]))
        await between()
        with trio.move_on_after(7):
            return await slow.receive_some(4096)
    raise AssertionError("the request was complete")


async def others_are_answered(path):
    quick = await trio.open_unix_socket(str(path))
    async with quick:
        await quick.send_all(lines.encode_request(protocol.Hello()))
        assert json.loads(await quick.receive_some(4096))["result"] == "here"
