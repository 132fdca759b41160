"""Who may speak to the service, and who may read what: nobody but root and the service's user."""

import contextlib
import fcntl
import json
import os
import socket
import stat
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from devices import eventually, refuses
from fuzz_talk import deep
from hang import PATIENCE_SECONDS
from harness import CHUNK

from iifuse.control.lines import MESSAGE_BYTES_MAX

NOBODY = 65534

_AS_USER = """
import os, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1]))
{body}
"""


def as_user(user, body, *words, group=NOBODY):
    """A child without privileges runs this; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", _AS_USER.format(body=body), str(user), str(group), *map(str, words)],
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


_ASK = """
import socket
s = socket.socket(socket.AF_UNIX); s.settimeout(60)
try:
    s.connect(sys.argv[3]); s.sendall(sys.argv[4].encode() + b"\\n")
except OSError as error:
    print(error.errno); sys.exit()
print(s.makefile().readline())
"""
HELLO = '{"verb":"hello"}'


def ask(service, line, *, end=b"\n"):
    """One request of our own, byte for byte; the answer."""
    with socket.socket(socket.AF_UNIX) as end_of_ours:
        end_of_ours.connect(str(service.socket))  # waits for its turn in the queue
        end_of_ours.settimeout(PATIENCE_SECONDS)
        with contextlib.suppress(BrokenPipeError):  # it has heard enough
            end_of_ours.sendall(line + end)
        return json.loads(end_of_ours.makefile().readline())


# -- the control socket -----------------------------------------------------------------------


def test_socket_and_state_are_for_their_owner_alone(service, disk):
    disk()
    assert stat.S_IMODE(service.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(service.state.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in service.state.iterdir()} == {0o600}


def test_stranger_is_refused_even_with_a_way_to_the_socket(service, place, disk):
    """The mode keeps him out; where somebody opened the way, his credentials do."""
    path, _ = disk()
    for folder in (place, service.home):
        folder.chmod(0o755)
    assert as_user(NOBODY, _ASK, service.socket, HELLO) == str(13)
    release = json.dumps({"verb": "release", "volumes": [str(path)]})
    os.chown(service.socket, 0, 4321)
    for mode, group in ((0o666, NOBODY), (0o660, 4321)):
        service.socket.chmod(mode)
        for line in (HELLO, release, "nonsense"):
            answer = json.loads(as_user(NOBODY, _ASK, service.socket, line, group=group))
            assert answer["failure"]["error"] == "Refused"
            assert "root" in answer["failure"]["why"]
    assert service.path(path).exists(), "a stranger took a volume off the mount"
    assert ask(service, HELLO.encode())["failure"] is None


_LOAD = """
import trio
from iifuse.control.server import Server
from iifuse.loop.timelimits import TimeLimits
"""
"""As root: the checkout may lie below a directory that is closed to others."""
_SERVE = """
async def main():
    async def answer(request):
        return os.getuid()
    server = Server(sys.argv[3], answer, TimeLimits())
    await server.open()
    print("open", flush=True)
    with trio.move_on_after(60):
        await server.run()
trio.run(main)
"""


def test_user_of_the_service_may_speak_to_it_and_no_other_but_root(place):
    place.chmod(0o777)
    path = place / "socket"
    program = _LOAD + _AS_USER.format(body=_SERVE)
    words = [sys.executable, "-c", program, str(NOBODY), str(NOBODY), path]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout.readline() == b"open\n"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            path.chmod(0o666)
            answers = {
                user: json.loads(as_user(user, _ASK, path, HELLO)) for user in (0, NOBODY, 1234)
            }
        finally:
            server.kill()
    assert answers[0]["result"] == answers[NOBODY]["result"] == NOBODY
    assert answers[1234]["failure"]["error"] == "Refused"


def test_request_that_is_too_large_or_too_deep_is_refused_in_words(service):
    long = b'{"verb":"status","target":{"sets":["/' + b"x" * MESSAGE_BYTES_MAX + b'"]}}'
    for line in (long, long * 3, deep(100_000), deep(2000), b"\xff" * 1000, b"", b"null", b"[]"):
        failure = ask(service, line)["failure"]
        assert failure["error"] == "ProtocolError", failure
    assert "Traceback" not in service.said()
    assert service.client.status() == []


def test_clients_that_send_slowly_or_nothing_hold_up_nobody(service):
    crowd = []
    try:
        for number in range(200):
            silent = socket.socket(socket.AF_UNIX)
            crowd.append(silent)
            silent.connect(str(service.socket))
            silent.sendall(HELLO[: number % 10].encode())
        with ThreadPoolExecutor(32) as pool:  # one who was held up for each of them would give up
            answers = list(pool.map(lambda _: ask(service, HELLO.encode()), range(200)))
        assert all(answer["failure"] is None for answer in answers)
    finally:
        for silent in crowd:
            silent.close()
    assert service.stop() == 0


# -- the files --------------------------------------------------------------------------------

_TRY = """
def tried(flags):
    try:
        fd = os.open(sys.argv[3], flags)
    except OSError as error:
        return error.errno
    data = os.pread(fd, 4, 0) if flags == os.O_RDONLY else os.pwrite(fd, b"evil", 0)
    return 0
print(tried(os.O_RDONLY), tried(os.O_WRONLY))
"""


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("mode", "owner", "group", "found"),
    [
        (0o600, 0, 0, "13 13"),
        (0o644, 0, 0, "0 13"),
        (0o640, 0, 4321, "0 13"),
        (0o060, 0, 4321, "0 0"),
        (0o600, NOBODY, 0, "0 0"),
        (0o066, NOBODY, 0, "13 13"),
    ],
)
def test_kernel_keeps_from_a_file_whom_the_volume_keeps_out(
    service, disk, place, mode, owner, group, found
):
    path, file = disk()
    service.enable("dep", path, place / "s")
    for folder in (place, service.home):
        folder.chmod(0o755)
    for volume in (path, place / "s"):
        os.chown(volume, owner, group)
        volume.chmod(mode)
    before = path.read_bytes()
    for shown in (file, service.path(place / "s")):
        tries = partial(as_user, NOBODY, _TRY, shown, group=4321)
        eventually(lambda tries=tries: tries() == found, f"it shows: {found}")
    if found.endswith("13"):
        assert path.read_bytes() == before


# -- locks ------------------------------------------------------------------------------------


def lock(path):
    """Take what a second service would take; close it again."""
    fd = os.open(path, os.O_RDWR)
    try:
        whole = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, whole)
    finally:
        os.close(fd)


def test_volumes_are_locked_as_long_as_they_have_a_part_to_play(service, volume, place):
    """F18, F19: through copies, updates and restarts; no lock outlives the service."""
    master, shadow, bitmap = volume("v", 20 * CHUNK), place / "s", place / "s.bmp"
    service.enable("ind", master, shadow)
    for step in (
        lambda: service.wait(shadow),
        lambda: service.flip("s", shadow),
        lambda: service.wait(shadow),
        master.read_bytes,  # an open and a close beside it drop no lock
        service.restart,
    ):
        step()
        for path in (master, shadow, bitmap):
            refuses(11, lock, path)
    service.kill()
    for path in (master, shadow, bitmap):
        lock(path)
    service.start()
    service.disable(shadow)
    for path in (master, shadow, bitmap):
        lock(path)


def test_devices_are_held_exclusively(service, attach, place):
    """F18: an OFD lock through another node of a device would be granted, O_EXCL is not."""
    for name in ("m", "s", "b"):
        (place / name).write_bytes(bytes(40 * CHUNK))
    devices = [attach(place / name) for name in ("m", "s", "b")]
    service.enable("dep", *devices[:2], devices[2])
    for device in devices:
        node = place / f"node of {os.path.basename(device)}"
        os.mknod(node, stat.S_IFBLK | 0o600, os.stat(device).st_rdev)
        for name in (device, node):
            refuses(16, os.open, name, os.O_RDWR | os.O_EXCL)
    service.disable(devices[1])
    for device in devices:
        os.close(os.open(device, os.O_RDWR | os.O_EXCL))


def test_bind_mount_and_loop_device_are_known_for_the_volume_below(
    service, volume, place, attach, refused
):
    """F16: the same file under a name that has another file system in it, or is a device."""
    master, other = volume("v", 8 * CHUNK), volume("other", 8 * CHUNK)
    service.enable("dep", master, place / "s")
    alias = place / "alias"
    alias.touch()
    subprocess.run(["mount", "--bind", master, alias], check=True)
    try:
        for words in ((other, alias, place / "b"), (other, place / "n", alias)):
            refused(service, "iiadm", "-e", "ind", *words, says=(alias,))
        done = service.run("iiadm", "-e", "dep", alias, place / "s2", place / "b2")
        assert done.returncode == 0, done.stderr
        service.write(master, 0, b"one lock for both names")
        assert service.read(place / "s2") == service.read(place / "s")
    finally:
        subprocess.run(["umount", alias], check=True)
    device = attach(other)
    refused(service, "iiadm", "-e", "ind", device, other, place / "b3", says=(other, "loop"))
