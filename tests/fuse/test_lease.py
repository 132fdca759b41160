"""Somebody opens a volume just while the service looks whether somebody has it open."""

import os
import threading

from iifuse import errors
from iifuse.control import protocol


def test_service_survives_opens_of_a_volume_while_it_is_taken_under_control(service, volume):
    path = volume("v")
    stopping = threading.Event()

    def open_and_close():
        while not stopping.is_set():
            os.close(os.open(path, os.O_RDONLY))

    opener = threading.Thread(target=open_and_close)
    opener.start()
    try:
        for _ in range(150):
            try:
                service.client.notes(protocol.Control((str(path),)))
            except errors.Busy:
                continue
            service.client.notes(protocol.Release((str(path),)))
    finally:
        stopping.set()
        opener.join()
    assert service.stop() == 0
