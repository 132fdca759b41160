"""A start serves whatever answers; what does not comes back by itself when it does (K8)."""

import os
import time

import pytest
from devices import eventually
from far import forget
from harness import CHUNK
from samples import sample

SIZE = 8 * CHUNK
SOON_S = 20
"""A volume that does not answer costs a start five seconds, and the machine may be busy."""

ASKED = {
    "master": ["lookup", "open", "read"],
    "shadow": ["lookup", "open", "read"],
    "bitmap": ["lookup", "open", "read"],
}
"""What a start asks of each volume to learn whether it answers. A sync may take a minute: that of
what a killed service has written does on a disk that is well."""
CASES = [(kind, role, what) for kind in ("ind", "dep") for role in ASKED for what in ASKED[role]]


@pytest.mark.finding("K8.4")
@pytest.mark.parametrize(("kind", "role", "operation"), sample(CASES, 1, "start goes on"))
def test_start_serves_all_that_answers(service, far_set, far, near, kind, role, operation):
    master, shadow = far_set(role, kind)
    content = service.read(shadow)
    service.stop()
    forget(far.mountpoint / role)
    far.hold(operation)
    began = time.monotonic()
    service.start()
    assert time.monotonic() - began < SOON_S
    assert near.slowest() < 1
    assert far.held.is_set()
    assert service.status(shadow).waiting == (role,)
    said = service.run("iiadm", "-i", shadow).stdout
    assert str(far.mountpoint / role) in said
    assert "not answer" in said
    far.go()
    eventually(lambda: service.status(shadow).waiting is None, "the set is back")
    assert service.read(shadow) == content
    fd = os.open(service.path(master), os.O_RDWR)
    os.pwrite(fd, b"later", 5 * CHUNK)
    os.fsync(fd)
    os.close(fd)
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.read(shadow) == service.read(master)
