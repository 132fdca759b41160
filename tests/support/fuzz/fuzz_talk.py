"""Fuzzed talk on the control socket: requests to a service, replies to a tool."""

import json
import socket
import threading
from contextlib import contextmanager
from random import Random

import msgspec
from fuzz_garble import line
from fuzz_loop import Part

from iifuse import errors
from iifuse.control import lines, protocol
from iifuse.control.client import Client
from iifuse.control.protocol import SetStatus, Target

PATHS_BYTES_MAX = 4096


def requests(paths: tuple[str, ...]) -> list[dict[str, object]]:
    """One request of every verb, with these paths for its volumes."""
    one, two, three = (paths * 3)[:3]
    target = {"sets": [one], "group": None}
    group = {"sets": [], "group": "night"}
    verbs = ("disable", "abort", "status", "reset", "export")
    return [
        {"verb": "hello"}, {"verb": "groups"}, {"verb": "volumes"},
        {"verb": "enable", "kind": "ind", "master": one, "shadow": two, "bitmap": three,
         "group": "night"},
        {"verb": "flip", "direction": "s", "full": False, "target": target},
        {"verb": "wait", "target": target, "timeout": 0.01},
        {"verb": "compare", "shadow": one, "first": 0, "count": 5},
        {"verb": "mark_changed", "shadow": one, "runs": [[0, 1], [2, 2]]},
        {"verb": "import", "shadow": one, "bitmap": two, "ticket": three},
        {"verb": "check_join", "shadow": one, "bitmap": two, "accept_unclosed": True},
        {"verb": "join", "shadow": one, "bitmap": two, "accept_unclosed": False},
        {"verb": "move", "group": "night", "sets": [one]},
        {"verb": "control", "volumes": [one, two]}, {"verb": "release", "volumes": [one]},
        *({"verb": verb, "target": random} for verb in verbs for random in (target, group)),
    ]  # fmt: skip


@contextmanager
def _requests():
    good = requests(("/srv/v", "/srv/s", "/srv/b"))

    def try_one(random: Random) -> bool:
        try:
            found = lines.decode_request(line(random, random.choice(good)))
        except errors.ProtocolError:
            return False
        assert lines.decode_request(lines.encode_request(found)) == found
        for path in _paths(found):
            assert path.startswith("/")
            assert "\0" not in path
            assert len(path) < PATHS_BYTES_MAX
        return True

    yield try_one


def _paths(request: protocol.AnyRequest) -> list[str]:
    """Every path in a request."""
    fields = msgspec.structs.asdict(request)
    target = fields.get("target") or Target()
    one = [fields.get(name) for name in ("master", "shadow", "bitmap", "ticket")]
    many = [*target.sets, *fields.get("sets", ()), *fields.get("volumes", ())]
    return [path for path in [*one, *many] if path is not None]


# -- what a tool is told --------------------------------------------------------------------

_ROW = {
    "master": "/m", "shadow": "/s", "bitmap": "/b", "overflow": None, "group": "night",
    "uuid": "00000000-0000-0000-0000-000000000007", "kind": "independent", "progress": "idle",
    "copying": False, "custody": "local", "offline": ["shadow"], "offline_reason": "lost",
    "size_bytes": 5, "chunk_bytes": 32768, "chunks": 1, "shadow_bits": 0, "copy_bits": 0,
    "percent": 0.5, "pit": 1, "pit_id": "00000000-0000-0000-0000-000000000008",
    "pit_time": "2026-01-01T00:00:00Z", "out_of_space": False,
}  # fmt: skip
_REPLIES = [
    {"result": [_ROW], "failure": None},
    {"result": {"notes": ["one", "two"]}},
    {"failure": {"error": "Busy", "subject": "/s", "why": "is open", "todo": "close it"}},
    {"result": {"version": "1", "pid": 7, "mountpoint": "/mnt", "state": "/state"}},
]
_ASKED = [
    (protocol.Hello(), protocol.ServiceInfo),
    (protocol.Reset(Target(("/s",))), protocol.Noted),
    (protocol.Status(Target()), list[SetStatus]),
]


@contextmanager
def _replies():
    """A tool and a service that answers anything, on two ends of a socket."""

    def try_one(random: Random) -> bool:
        end = random.choice((b"\n", b"\n", b"\n", b"", b"\n\n", b"\n{}\n"))
        answer = line(random, random.choice(_REPLIES)) + end
        here, there = socket.socketpair()
        client = Client("/no/socket")
        client._connect = lambda: here
        with here, there:
            there.sendall(answer[:100_000])
            there.shutdown(socket.SHUT_WR)
            try:
                client.call(*random.choice(_ASKED))
            except errors.IifuseError:
                return False
        return True

    yield try_one


class Flood:
    """A service that never comes to the end of its line."""

    def __init__(self, here: socket.socket) -> None:
        self.sent = 0
        self._socket = here
        self._thread = threading.Thread(target=self._pour, daemon=True)
        self._thread.start()

    def _pour(self) -> None:
        try:
            while True:
                self.sent += self._socket.send(b"x" * (1 << 20))
        except OSError:
            return

    def stop(self) -> None:
        self._socket.close()
        self._thread.join(30)


def deep(levels: int) -> bytes:
    """A request that goes down and down."""
    inside = b"[" * levels + b"]" * levels
    return b'{"verb":"status","target":' + inside + b"}"


def words(request: dict[str, object]) -> bytes:
    return json.dumps(request).encode()


PARTS = [Part("request", 4000, _requests), Part("reply", 2500, _replies)]
