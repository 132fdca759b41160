"""JSON lines over a unix socket: one request, one reply. Pure: bytes to structs and back."""

from typing import Final

import msgspec

from iifuse import errors
from iifuse.control.protocol import AnyRequest

MESSAGE_BYTES_MAX: Final = 8 * 1024 * 1024
REPLY_BYTES_MAX: Final = 64 * 1024 * 1024


class Failure(msgspec.Struct, frozen=True):
    """An error of the tree in errors.py, on its way to the client."""

    error: str
    subject: str
    why: str
    todo: str = ""


class Reply(msgspec.Struct, frozen=True):
    """Exactly one of the two is there."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    failure: Failure | None = None


_requests: msgspec.json.Decoder[AnyRequest] = msgspec.json.Decoder(AnyRequest)
_replies = msgspec.json.Decoder(Reply)


def encode_request(request: AnyRequest) -> bytes:
    """One line."""
    return msgspec.json.encode(request) + b"\n"


def decode_request(line: bytes) -> AnyRequest:
    """Raises ProtocolError."""
    try:
        return _requests.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise errors.ProtocolError("request", f"does not fit the protocol ({error})") from error


def encode_result(result: object) -> bytes:
    """One line for a verb that worked."""
    return msgspec.json.encode(Reply(result=msgspec.Raw(msgspec.json.encode(result)))) + b"\n"


def encode_failure(error: errors.IifuseError) -> bytes:
    """One line for a verb that failed."""
    failure = Failure(type(error).__name__, error.subject, error.why, error.todo)
    return msgspec.json.encode(Reply(failure=failure)) + b"\n"


def decode_reply(line: bytes) -> bytes:
    """The result's JSON. Raises the error that the service raised, or ProtocolError."""
    try:
        reply = _replies.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise errors.ProtocolError("reply", f"does not fit the protocol ({error})") from error
    if reply.failure is None:
        return bytes(reply.result)
    f = reply.failure
    raise errors.BY_NAME.get(f.error, errors.InternalError)(f.subject, f.why, f.todo)
