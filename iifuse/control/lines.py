"""Encodes and decodes the JSON lines of the control socket: a line for each request and reply."""

from typing import Final

import msgspec

from iifuse import errors
from iifuse.control.protocol import AnyRequest

MESSAGE_BYTES_MAX: Final = 8 * 1024 * 1024
REPLY_BYTES_MAX: Final = 64 * 1024 * 1024


class Failure(msgspec.Struct, frozen=True):
    """An error (errors.py) as the client gets it."""

    error: str
    subject: str
    why: str
    todo: str = ""


class Reply(msgspec.Struct, frozen=True):
    """The reply to a request: a result, or a failure."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    failure: Failure | None = None


_requests: msgspec.json.Decoder[AnyRequest] = msgspec.json.Decoder(AnyRequest)
_replies = msgspec.json.Decoder(Reply)


def encode_request(request: AnyRequest) -> bytes:
    """The line for a request."""
    return msgspec.json.encode(request) + b"\n"


def decode_request(line: bytes) -> AnyRequest:
    """The request in a line. Raises ProtocolError."""
    try:
        return _requests.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise errors.ProtocolError("request", f"does not fit the protocol ({error})") from error


def encode_result(result: object) -> bytes:
    """The line with the result of a verb."""
    return msgspec.json.encode(Reply(result=msgspec.Raw(msgspec.json.encode(result)))) + b"\n"


def encode_failure(error: errors.IifuseError) -> bytes:
    """The line with the error of a verb."""
    failure = Failure(type(error).__name__, error.subject, error.why, error.todo)
    return msgspec.json.encode(Reply(failure=failure)) + b"\n"


def decode_reply(line: bytes) -> bytes:
    """The result in a line, as JSON. Raises the service's error, or ProtocolError."""
    try:
        reply = _replies.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise errors.ProtocolError("reply", f"does not fit the protocol ({error})") from error
    if reply.failure is None:
        return bytes(reply.result)
    f = reply.failure
    raise errors.BY_NAME.get(f.error, errors.InternalError)(f.subject, f.why, f.todo)
