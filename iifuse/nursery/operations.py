"""What a child can be asked to do. Each may block for ever; the child is given up then.

A request is a struct, and the function that does it stands beside it. A path is bytes, as the
kernel has it.
"""

import errno
import os
import subprocess
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from iifuse import errors
from iifuse.store import identity as identities
from iifuse.store import linux
from iifuse.store.identity import Identity
from iifuse.store.programs import ProgramOutput

_ROUNDS_MAX: Final = 16
"""Dead mounts over one another that are taken down at once."""


class Sync(msgspec.Struct, tag=True, frozen=True):
    """Make what programs have written to files arrive. Their errors are the programs'."""

    paths: list[bytes]


class SetTime(msgspec.Struct, tag=True, frozen=True):
    """When a file was changed last, in nanoseconds since 1970."""

    path: bytes
    mtime_ns: int


class Ask(msgspec.Struct, tag=True, frozen=True):
    """Run a program; its last word is the name of the descriptor that comes with this."""

    words: list[str]


class Bind(msgspec.Struct, tag=True, frozen=True):
    """Mount a file over another one, if that is a regular file: devices go by their numbers."""

    source: bytes
    target: bytes


class Unmount(msgspec.Struct, tag=True, frozen=True):
    """Take down what is mounted at a path, also while it is in use; nothing need be there."""

    path: bytes


class UnmountDead(msgspec.Struct, tag=True, frozen=True):
    """Take down the mounts at a path that nobody serves any more; how many they were."""

    path: bytes


class Open(msgspec.Struct, tag=True, frozen=True):
    """Open a volume, links followed; the descriptor comes with what was found."""

    path: bytes
    flags: int


class Stat(msgspec.Struct, tag=True, frozen=True):
    """What a path leads to, links followed, mounts of services not entered."""

    path: bytes


Request = Sync | SetTime | Ask | Bind | Unmount | UnmountDead | Open | Stat


class Opened(msgspec.Struct, frozen=True):
    """What was opened. `size_bytes`: of the file or device, which may be 0."""

    identity: Identity
    size_bytes: int


class Found(msgspec.Struct, frozen=True):
    """As stat(2) and statx(2) have it. `born_ns`: when it was made; 0: nobody can tell."""

    device: int
    inode: int
    rdevice: int
    mode: int
    size_bytes: int
    mtime_ns: int
    born_ns: int


class Reached(msgspec.Struct, tag=True, frozen=True):
    """The child goes on with this path: its time begins anew."""

    path: bytes


class Done(msgspec.Struct, tag=True, frozen=True):
    """It went well."""

    result: msgspec.Raw


class Failed(msgspec.Struct, tag=True, frozen=True):
    """An OSError."""

    code: int
    text: str
    path: bytes


class Refused(msgspec.Struct, tag=True, frozen=True):
    """An error that is explained; `cause`: number of the OSError behind it, if there is one."""

    name: str
    subject: bytes
    why: bytes
    todo: bytes
    cause: int | None


class Defect(msgspec.Struct, tag=True, frozen=True):
    """A traceback."""

    text: str


Answer = Reached | Done | Failed | Refused | Defect

Reach = Callable[[bytes], None]


class Given(NamedTuple):
    """What an operation has. `fds`: descriptors that came; `reach`: tells how far it is."""

    fds: list[int]
    reach: Reach


class Result(NamedTuple):
    """What it returns. `fds`: descriptors that go back."""

    value: object = None
    fds: tuple[int, ...] = ()


# -- the operations -------------------------------------------------------------------------


def _sync(request: Sync, given: Given) -> Result:
    for path in request.paths:
        given.reach(path)
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
    return Result()


def _set_time(request: SetTime, _: Given) -> Result:
    linux.set_mtime(os.fsdecode(request.path), request.mtime_ns)
    return Result()


def _ask(request: Ask, given: Given) -> Result:
    (fd,) = given.fds
    done = subprocess.run(  # noqa: S603 - the words are ours
        [*request.words, f"/proc/self/fd/{fd}"], pass_fds=(fd,), stdin=subprocess.DEVNULL,
        capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"},
        preexec_fn=partial(linux.end_with, os.getpid()),
    )  # fmt: skip
    return Result(ProgramOutput(done.returncode, done.stdout, done.stderr))


def _bind(request: Bind, _: Given) -> Result:
    if os.path.isfile(request.target):
        linux.bind_mount(os.fsdecode(request.source), os.fsdecode(request.target))
    return Result()


def _unmount(request: Unmount, _: Given) -> Result:
    try:
        linux.unmount(os.fsdecode(request.path), linux.MNT_DETACH)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return Result()


def _unmount_dead(request: UnmountDead, _: Given) -> Result:
    found = 0
    while found < _ROUNDS_MAX and _is_dead(request.path):
        linux.unmount(os.fsdecode(request.path), linux.MNT_DETACH)
        found += 1
    return Result(found)


def _is_dead(path: bytes) -> bool:
    """Asked with statvfs, which goes to the service; a stat may be answered from a cache."""
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def _open(request: Open, _: Given) -> Result:
    """Not what a link leads to that was swapped in after the look: that is refused."""
    path = os.fsdecode(request.path)
    identity = identities.identify(path)
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    fd = os.open(identities.real_path(path), request.flags | flags)
    found = os.fstat(fd)
    if identities.number(found) != identity.number:
        raise errors.Busy(path, "was replaced while it was opened", "try again")
    os.set_blocking(fd, True)
    size = linux.device_size(fd) if identity.is_device else found.st_size
    return Result(Opened(identity, size), (fd,))


def _stat(request: Stat, _: Given) -> Result:
    path, of = identities.standing_at(os.fsdecode(request.path))
    numbers = of.st_dev, of.st_ino, of.st_rdev, of.st_mode
    return Result(Found(*numbers, of.st_size, of.st_mtime_ns, linux.birth_ns(path)))


_OPERATIONS: Final[dict[type, Callable[[Any, Given], Result]]] = {
    Sync: _sync,
    SetTime: _set_time,
    Ask: _ask,
    Bind: _bind,
    Unmount: _unmount,
    UnmountDead: _unmount_dead,
    Open: _open,
    Stat: _stat,
}
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)


def run(message: bytes, given: Given) -> tuple[Answer, tuple[int, ...]]:
    """Do what a request says; the answer to it, and the descriptors that go with it."""
    try:
        request = _requests.decode(message)
        result = _OPERATIONS[type(request)](request, given)
        return Done(msgspec.Raw(msgspec.msgpack.encode(result.value))), result.fds
    except OSError as error:
        return failed(error), ()
    except errors.IifuseError as error:
        return _refused(error), ()
    except Exception:  # noqa: BLE001 - the log of the service has it
        return Defect(traceback.format_exc()), ()


def failed(error: OSError) -> Failed:
    """What a call that has failed looks like on the way."""
    path = error.filename if isinstance(error.filename, str | bytes) else b""
    return Failed(error.errno or errno.EIO, error.strerror or str(error), os.fsencode(path))


def _refused(error: errors.IifuseError) -> Refused:
    subject, why, todo = map(os.fsencode, (error.subject, error.why, error.todo))
    cause = error.__cause__
    code = cause.errno if isinstance(cause, OSError) else None
    return Refused(type(error).__name__, subject, why, todo, code)
