"""Every failure that a user may see. Each class has an exit code, and a row in iifuse(7).

    IifuseError                 2  EIO
      UsageError                1  EINVAL   the words of a command are wrong
      Declined                  1  EPERM    a question was answered with no, or could not be asked
      Question                  1  EPERM    the only copy may be overwritten: a yes or -n is needed
      CopyRunning               1  EBUSY    a copy is running already
      CopyStopped               1  EIO      a copy that was waited for was aborted or failed
      WaitTimedOut              1  ETIMEDOUT
      BadSecondary              1  EINVAL   a bitmap that is to be joined does not fit
      NotClosed                 1  EBUSY    the same, but -n or a yes would accept it
      NotFound                  2  ENOENT   no such set, group or volume
      Refused                   2  EPERM    the state of the set does not allow this
      InUse                     2  EBUSY    a volume already has another part to play
      Busy                      2  EBUSY    somebody has the file open
      NoAnswer                  2  ETIMEDOUT  a disk or a file server does not answer
      BadVolume                 2  EINVAL   not a volume that we can use
      BadTicket                 2  EINVAL   a ticket that is missing, damaged or foreign
      BadBitmap                 2  EIO      a bitmap volume that cannot be believed
      StorageError              2  EIO      a volume failed to read, write or sync
      ServiceError              2  ECONNREFUSED  the service cannot start or cannot be reached
      ProtocolError             2  EPROTO   a message that does not fit the protocol
      InternalError             2  EIO      a defect of ours; the log has the traceback

A message says on which path, what failed and why, and what to do about it.
"""

import errno
from typing import ClassVar


class IifuseError(Exception):
    """A failure that is explained to the user without a traceback.

    `subject`: a path, a set or a group; it may be empty. `why`: what is wrong with it. `todo`: what
    to do about it; it may be empty.
    """

    exit_code: ClassVar[int] = 2
    errno: ClassVar[int] = errno.EIO

    def __init__(self, subject: str, why: str, todo: str = "") -> None:
        super().__init__(subject, why, todo)
        self.subject, self.why, self.todo = subject, why, todo

    def __str__(self) -> str:
        text = f"{self.subject}: {self.why}" if self.subject else self.why
        return f"{text}; {self.todo}" if self.todo else text


class UsageError(IifuseError):
    """The words of a command are wrong."""

    exit_code = 1
    errno = errno.EINVAL


class Declined(IifuseError):
    """A question was answered with no, or there was nobody to ask."""

    exit_code = 1
    errno = errno.EPERM


class Question(IifuseError):
    """What may be the only copy of something would be overwritten; a yes or `-n` is needed.

    Nothing was done. A tool asks on its terminal and sends the request again with the answer.
    """

    exit_code = 1
    errno = errno.EPERM


class CopyRunning(IifuseError):
    """A copy is running already and this command has to wait for it."""

    exit_code = 1
    errno = errno.EBUSY


class CopyStopped(IifuseError):
    """The copy that was waited for was aborted or failed."""

    exit_code = 1


class WaitTimedOut(IifuseError):
    """The time that the user allowed has passed; nothing was changed."""

    exit_code = 1
    errno = errno.ETIMEDOUT


class BadSecondary(IifuseError):
    """A secondary bitmap belongs to another set, PIT, export or size, or is damaged."""

    exit_code = 1
    errno = errno.EINVAL


class AlreadyJoined(BadSecondary):
    """A secondary bitmap was merged before. A command that is repeated leaves it out."""


class NotClosed(BadSecondary):
    """A secondary bitmap was not closed by `-d`; `-n` or a yes accepts it."""

    errno = errno.EBUSY


class NotFound(IifuseError):
    """No such set, group or volume."""

    errno = errno.ENOENT


class Refused(IifuseError):
    """The state of the set does not allow this verb."""

    errno = errno.EPERM


class InUse(IifuseError):
    """A volume already has another part to play, here or in another service."""

    errno = errno.EBUSY


class Busy(IifuseError):
    """Somebody has the file open."""

    errno = errno.EBUSY


class NoAnswer(IifuseError):
    """The disk or the file server of a volume does not answer; nothing was changed."""

    errno = errno.ETIMEDOUT


class BadVolume(IifuseError):
    """The file or device is missing, of the wrong type or of the wrong size."""

    errno = errno.EINVAL


class BadTicket(IifuseError):
    """The ticket is missing, damaged or belongs to something else."""

    errno = errno.EINVAL


class BadBitmap(IifuseError):
    """The header or the bits of a bitmap volume cannot be believed."""


class StorageError(IifuseError):
    """A volume failed to read, write or sync."""


class ServiceError(IifuseError):
    """The service cannot start, or cannot be reached."""

    errno = errno.ECONNREFUSED


class ProtocolError(IifuseError):
    """A message does not fit the control protocol."""

    errno = errno.EPROTO


class InternalError(IifuseError):
    """A defect of this program. The service's log has the traceback."""


def words(error: Exception, path: str = "") -> str:
    """An error as a part of a sentence. The text of an OSError itself begins with a number.

    `path` is used if the error has no path.
    """
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    where = str(error.filename or path)
    if error.errno == errno.ENOSPC:
        return f"no room on the file system of {where}" if where else "no room on its file system"
    if error.errno == errno.EDQUOT:
        return f"the quota of disk space is used up{f' at {where}' if where else ''}"
    return f"{where}: {error.strerror}" if where else error.strerror


def _tree(base: type[IifuseError]) -> dict[str, type[IifuseError]]:
    found = {base.__name__: base}
    for child in base.__subclasses__():
        found |= _tree(child)
    return found


BY_NAME: dict[str, type[IifuseError]] = _tree(IifuseError)
"""Name -> class, for errors that come over the control socket."""
