"""A service that keeps no volumes: it speaks the control protocol and answers what a test says."""

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from iifuse import __version__, errors
from iifuse.control import lines, protocol
from iifuse.core.ticket import TicketEntry

CHUNK = 32768
CHUNKS = 64


def row(shadow: str, **fields: Any) -> protocol.SetStatus:
    """An idle, independent, local set without differences, changed by `fields`."""
    plain: dict[str, Any] = {
        "master": f"/prod/{Path(shadow).name}",
        "shadow": shadow,
        "bitmap": f"/prod/{Path(shadow).name}.bmp",
        "overflow": None,
        "group": None,
        "uuid": UUID(int=7),
        "kind": "independent",
        "progress": "idle",
        "copying": False,
        "custody": "local",
        "offline": (),
        "offline_reason": None,
        "size_bytes": CHUNKS * CHUNK,
        "chunk_bytes": CHUNK,
        "chunks": CHUNKS,
        "shadow_bits": 0,
        "copy_bits": 0,
        "percent": 0.0,
        "pit": 3,
        "pit_id": UUID(int=9),
        "pit_time": "2024-02-03T04:05:06+00:00",
        "out_of_space": False,
    }
    return protocol.SetStatus(**{**plain, **fields})


def copying(shadow: str, left: int, brought: int = 0, **fields: Any) -> protocol.SetStatus:
    """A set whose copy to the shadow runs: `left` chunks are still to come."""
    fields = {"progress": "to_shadow", "copying": True, **fields}
    return row(shadow, copy_bits=left, copied_chunks=brought, **fields)


def lent(shadow: str, **fields: Any) -> TicketEntry:
    """A ticket's entry for a set as row() makes it."""
    plain: dict[str, Any] = {
        "uuid": UUID(int=7),
        "shadow": shadow,
        "master": f"/prod/{Path(shadow).name}",
        "pit": 3,
        "pit_id": UUID(int=9),
        "pit_time": "2024-02-03T04:05:06+00:00",
        "export_number": 1,
        "size_bytes": CHUNKS * CHUNK,
    }
    return TicketEntry(**{**plain, **fields})


class FakeService:
    """Answers on a socket from a thread; `requests` keeps what it was asked.

    `rows` are its sets. `on` scripts the answers to one kind of request: values, exceptions of our
    tree, or functions of the request; the last one is repeated.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.state = path.parent
        self.rows: list[protocol.SetStatus] = []
        self.volumes: list[protocol.VolumeStatus] = []
        self.requests: list[protocol.AnyRequest] = []
        self._scripts: dict[type, list[object]] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def on(self, kind: type, *answers: object) -> None:
        self._scripts[kind] = list(answers)

    def asked(self, kind: type) -> list[Any]:
        return [request for request in self.requests if isinstance(request, kind)]

    @property
    def changes(self) -> list[protocol.AnyRequest]:
        """What was asked beside questions."""
        checks = protocol.CheckJoin, protocol.CheckImport
        questions = protocol.Status, protocol.Hello, protocol.Wait, *checks
        return [request for request in self.requests if not isinstance(request, questions)]

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            # A client that was interrupted does not wait for its answer.
            with connection, connection.makefile("rb") as heard, suppress(BrokenPipeError):
                connection.sendall(self._reply(heard.readline()))

    def _reply(self, line: bytes) -> bytes:
        try:
            request = lines.decode_request(line)
            self.requests.append(request)
            return lines.encode_result(self._answer(request))
        except errors.IifuseError as error:
            return lines.encode_failure(error)

    def _answer(self, request: protocol.AnyRequest) -> object:
        script = self._scripts.get(type(request))
        if not script:
            return self._plain(request)
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer

    def _plain(self, request: protocol.AnyRequest) -> object:
        match request:
            case protocol.Hello():
                return protocol.ServiceInfo(__version__, 1, "/mnt", str(self.state))
            case protocol.Status(target) | protocol.Update(target=target):
                return self._of(target)
            case protocol.Export(target):
                return [lent(one.shadow) for one in self._of(target)]
            case protocol.Groups():
                return sorted({one.group for one in self.rows if one.group})
            case protocol.Compare():
                return protocol.Compared(())
            case protocol.Volumes():
                return self.volumes
        return protocol.Noted()

    def _of(self, target: protocol.Target) -> list[protocol.SetStatus]:
        known = {one.shadow: one for one in self.rows}
        for name in target.sets:
            if name not in known:
                raise errors.NotFound(name, "no such set")
        if target.sets:
            return [known[name] for name in target.sets]
        return [one for one in self.rows if target.group in (None, one.group)]
