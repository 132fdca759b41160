"""A verb that brings in a volume which does not answer is refused, and has changed nothing (K8)."""

import os
import threading
import time

import pytest
from devices import eventually
from harness import CHUNK
from samples import sample

SIZE = 8 * CHUNK
LIMIT_S = 30
"""Twenty seconds, and what comes before and after."""

PARTS = ("master", "shadow", "bitmap")
ASKED = ("lookup", "open", "getattr", "flush")
CASES = [("enable", part, what) for part in PARTS for what in ASKED]
CASES += [(verb, "master", what) for verb in ("control", "attach") for what in ASKED]
CASES += [("reset", part, what) for part in ("shadow", "bitmap") for what in ASKED]


@pytest.fixture
def new(service, volume, place, far):
    """The paths of a set that is to be made; one of them lies far away."""

    def make(part):
        content = {"master": os.urandom(SIZE), "shadow": bytes(SIZE), "bitmap": bytes(1 << 16)}
        paths = {"master": volume("m", size=SIZE), "shadow": place / "s", "bitmap": place / "b"}
        paths[part] = far.file(part, content[part])
        return paths

    return make


def words_of(service, place, far, verb, paths):
    """The verb, when everything is there that it needs."""
    if verb == "enable":
        return ("iiadm", "-e", "dep", *paths.values())
    if verb == "control":
        return ("svadm", "-e", paths["master"])
    service.enable("dep", *paths.values())
    if verb == "attach":
        service.stop()
        for file in service.state.iterdir():
            file.unlink()
        service.start()
        assert service.run("iiadm", "-n", "--attach", place / "near-s.bmp").returncode == 0
        return ("iiadm", "-n", "--attach", paths["bitmap"])
    service.stop()
    part = next(p for p in ("shadow", "bitmap") if str(paths[p]).startswith(str(far.mountpoint)))
    os.rename(far.directory / part, far.directory / "away")
    service.start()
    eventually(lambda: service.status(paths["shadow"]).waiting == (part,), "it is missed")
    (far.directory / part).write_bytes(bytes(os.path.getsize(far.directory / "away")))
    return ("iiadm", "-n", "-R", paths["shadow"])


@pytest.mark.finding("K8.4")
@pytest.mark.parametrize(("verb", "part", "operation"), sample(CASES, 1, "refused in time"))
def test_verb_is_refused_and_can_be_repeated(
    service, place, volume, far, near, new, verb, part, operation
):
    paths = new("bitmap" if verb == "attach" else part)
    words = words_of(service, place, far, verb, paths)
    far.hold(operation)
    done = []
    ask = threading.Thread(target=lambda: done.append(service.run(*words)), daemon=True)
    began = time.monotonic()
    ask.start()
    assert near.slowest() < 1
    ask.join(LIMIT_S)
    assert not ask.is_alive(), "it has not been refused in time"
    assert near.slowest() < 1
    if done[0].returncode:
        assert "not answer" in done[0].stderr, done[0].stderr
        assert time.monotonic() - began < LIMIT_S
        other = service.run("iiadm", "-e", "dep", volume("o"), place / "o-s", place / "o-b")
        assert other.returncode == 0, other.stderr
    far.go()
    if done[0].returncode:
        again = {}
        eventually(lambda: again.update(it=service.run(*words)) or not again["it"].returncode,
                   "the same command is taken")  # fmt: skip
    if verb != "control":
        shadow = paths["shadow"]
        service.write(paths["master"], 0, b"later")
        service.flip("s", shadow)
        assert service.read(shadow) == service.read(paths["master"])
