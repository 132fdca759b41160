"""Control clients that misbehave cost nobody his mount."""

import contextlib
import os
import resource
import socket
import threading

import pytest
from devices import eventually, opened
from harness import CHUNK

from iifuse.control import lines, protocol
from iifuse.control.protocol import Target

DESCRIPTORS = 150


def connect(service):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(str(service.socket))
    return client


def test_client_that_goes_away_with_an_unread_answer_ends_only_its_connection(
    service, volume, place
):
    """F26: the kernel resets such a connection, in the middle of the next verb."""
    master, shadow = volume("m"), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    with opened(service.path(master)):
        client = connect(service)
        client.sendall(lines.encode_request(protocol.Status(Target())))
        client.recv(1, socket.MSG_PEEK)  # the answer has come and stays unread
        request = protocol.Update("m", False, Target((str(shadow),)), sure=True)
        client.sendall(lines.encode_request(request))  # waits for the master to be closed
        client.close()
        for _ in range(20):
            assert service.client.status()[0].pit == 1
    service.write(master, 0, b"all is well")
    service.wait(shadow)
    assert service.stop() == 0


@pytest.mark.finding("K14.5")
def test_more_clients_than_descriptors_end_no_mount(service, volume, place):
    """The service goes on, says that it has none, and answers again once they have gone."""
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    master, shadow = volume("m"), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    with contextlib.ExitStack() as stack:

        def is_full():
            """One more client; has the service a descriptor left?"""
            client = stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX)))
            client.setblocking(False)
            client.connect_ex(str(service.socket))
            return len(os.listdir(f"/proc/{service.pid}/fd")) >= DESCRIPTORS

        eventually(is_full, "the service has no descriptor left")
        for _ in range(20):
            is_full()
        service.write(master, 3 * CHUNK, b"still here")
        done = service.run("iiadm", "-i")
        assert (done.returncode, done.stdout) == (2, "")
        assert "Too many open files" in done.stderr
    answers = []
    eventually(lambda: service.run("iiadm", "-i").returncode == 0, "the crowd has gone")
    asking = threading.Thread(target=lambda: answers.append(service.status(shadow)), daemon=True)
    asking.start()
    asking.join(30)
    assert answers, "no answer after the crowd has gone"
    assert answers[0].shadow_bits >= 1
    assert service.stop() == 0
    assert "Traceback" not in service.log.read_text()
