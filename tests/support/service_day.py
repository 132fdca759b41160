"""What a service does in a day, for those who watch it do it."""

import os

from devices import opened
from harness import CHUNK

MASTER = 8 * CHUNK


def day(service, place):
    """Verbs of all kinds, with files that are open and with volumes that are not blank."""
    master, s1, s2 = place / "m", place / "s1", place / "s2"
    for path in (master, s1, place / "plain"):
        path.write_bytes(os.urandom(MASTER))
    said = [service.run("svadm", "-e", place / "plain")]
    said += [service.run("iiadm", "-n", "-e", "ind", master, s1, place / "b1")]
    said += [service.run("iiadm", "-e", "dep", master, s2, place / "b2")]
    service.wait(s1)
    with opened(service.path(master)) as fd:
        os.pwrite(fd, b"changed", 0)
        said += [service.run("iiadm", "-u", "s", s1), service.run("iiadm", "-u", "s", s2)]
    service.wait(s1)
    said += [service.run("iiadm", "-n", "-u", "m", s1)]
    service.wait(s1)
    said += [service.run(*words) for words in (
        ("iiadm", "-E", s1), ("iiadm", "-n", "-R", s1), ("iiverify", s1), ("iiadm", "--health"),
        ("svadm", "-d", place / "plain"), ("iiadm", "-d", s1), ("iiadm", "-d", s2),
    )]  # fmt: skip
    return [done.stderr for done in said if done.returncode]
