"""The mount gives nobody more than the path of the volume; in place it gives the same (K10)."""

import json
import os
import struct
import subprocess
import sys
import threading
from itertools import product

import pytest
from devices import eventually
from samples import some

from iifuse.fuse.namespace import Namespace, Node
from iifuse.fuse.permissions import Permissions
from iifuse.loop.lookout import Lookout
from iifuse.loop.loop import Loop
from iifuse.store import access

OWNER, MEMBER, NAMED, NAMED_MEMBER, STRANGER = range(61001, 61006)
GROUP, NAMED_GROUP = 61011, 61012
READERS = {
    "owner": (OWNER, []),
    "member": (MEMBER, [GROUP]),
    "named": (NAMED, []),
    "named and member": (NAMED, [GROUP]),
    "of a named group": (NAMED_MEMBER, [NAMED_GROUP]),
    "of both groups": (NAMED_MEMBER, [GROUP, NAMED_GROUP]),
    "stranger": (STRANGER, []),
    "root": (0, []),
}
ANYBODY = 0xFFFFFFFF
ACL = "system.posix_acl_access"


def acl(*, user=7, named=None, group=0, named_group=None, mask=7, other=0):
    """As the kernel takes it; the parts in their order."""
    entries = [(1, user, ANYBODY)]
    entries += [(2, named, NAMED)] if named is not None else []
    entries += [(4, group, ANYBODY)]
    entries += [(8, named_group, NAMED_GROUP)] if named_group is not None else []
    entries += [(16, mask, ANYBODY), (32, other, ANYBODY)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


MODES = [0o600, 0o640, 0o644, 0o666, 0o604, 0o060, 0o006, 0o460, 0o000, 0o4755]
LISTS = [
    acl(named=6, mask=6),
    acl(named=6, group=6, mask=4, other=4),
    acl(named=0, group=4, other=6),
    acl(named_group=6, group=0, other=4),
    acl(named_group=0, group=6, other=6),
    acl(named=7, named_group=7, group=7, mask=0, other=4),
]
DIRECTORY_MODES = [0o755, 0o711, 0o750, 0o710, 0o700, 0o705]
DIRECTORY_LISTS = [
    acl(named=5, group=0, mask=5, other=0),
    acl(named=0, group=5, mask=5, other=5),
    acl(named_group=1, group=1, mask=0, other=1),
]

TRY = """
import json, os, sys
def can(path, flags):
    try:
        os.close(os.open(path, flags))
    except PermissionError:
        return False
    return True
print(json.dumps([(can(p, os.O_RDONLY), can(p, os.O_WRONLY)) for p in json.load(sys.stdin)]))
"""


def give(path, rights):
    os.chown(path, OWNER, GROUP)
    if isinstance(rights, int):
        os.chmod(path, rights)
    else:
        os.setxattr(path, ACL, rights)


def rights(paths):
    """Reader -> for each path: may it be read, may it be written?"""
    paths, found = [str(path) for path in paths], {}
    for reader, (uid, groups) in READERS.items():
        who = ["--reuid", str(uid), "--regid", str(uid)]
        who += ["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"]
        done = subprocess.run(
            ["setpriv", *who, sys.executable, "-I", "-S", "-c", TRY],
            input=json.dumps(paths), capture_output=True, text=True, check=True,
        )  # fmt: skip
        found[reader] = dict(zip(paths, map(tuple, json.loads(done.stdout)), strict=True))
    return found


def made(place, number, directory, file):
    """A volume of these rights, in a directory of those."""
    folder = place / "volumes" / f"d{number}"
    folder.mkdir(parents=True)
    volume = folder / "v"
    volume.write_bytes(bytes(4096))
    give(volume, file)
    give(folder, directory)
    return volume


@pytest.fixture
def open_place(disk_place):
    disk_place.chmod(0o755)
    return disk_place


def enabled(new_service, place, volumes, *options):
    service = new_service("app", "stop_wait=2", *options, root=place)
    if volumes:
        assert service.run("svadm", "-e", *volumes).returncode == 0
    return service


CASES = [
    *product(DIRECTORY_MODES + DIRECTORY_LISTS, [0o666, 0o640, LISTS[1]]),
    *product([0o755], MODES + LISTS),
]


@pytest.mark.finding("K10.1", "K10.2")
@pytest.mark.parametrize("in_place", [False, True])
def test_whoever_may_use_a_volume_by_its_path_may_on_the_mount_and_nobody_else(
    new_service, open_place, in_place
):
    volumes = [made(open_place, n, *case) for n, case in enumerate(CASES)]
    before = rights(volumes)
    options = ["in_place"] if in_place else []
    service = enabled(new_service, open_place, volumes, *options)
    after = rights(volumes if in_place else map(service.path, volumes))
    top = "" if in_place else str(service.mountpoint)
    for reader, found in before.items():
        assert {f"{top}{path}": can for path, can in found.items()} == after[reader], reader
    assert before["member"] != before["stranger"] != before["owner"]


@pytest.mark.finding("K10.2")
def test_directories_and_volumes_that_close_are_closed_on_the_mount(new_service, open_place):
    """And that open again are open: both are looked at as they are."""
    volumes = [made(open_place, number, 0o755, 0o666) for number in range(2)]
    service = enabled(new_service, open_place, volumes)
    files = [str(service.path(volume)) for volume in volumes]

    def stranger():
        return [rights(files)["stranger"][file] for file in files]

    assert stranger() == [(True, True)] * 2
    volumes[0].parent.chmod(0o700)
    os.setxattr(volumes[1], ACL, acl(named=6, group=6, mask=6, other=0))
    eventually(lambda: stranger() == [(False, False)] * 2, "both are closed")
    volumes[0].parent.chmod(0o755)
    volumes[1].chmod(0o664)
    eventually(lambda: stranger() == [(True, True), (True, False)], "both are open again")


@pytest.mark.finding("K10.2")
@pytest.mark.parametrize("link", ["directory", "volume"])
@pytest.mark.parametrize("hidden", [0o755, 0o700, 0o750])
def test_link_through_a_closed_directory_opens_nothing(new_service, open_place, link, hidden):
    """The mount shows the path as it was given, without what its links lead through."""
    closed = open_place / "closed" / "deep"
    closed.mkdir(parents=True)
    (closed / "v").write_bytes(bytes(4096))
    (closed / "v").chmod(0o666)
    if link == "directory":
        (open_place / "link").symlink_to(closed)
        volume = open_place / "link" / "v"
    else:
        volume = open_place / "v"
        volume.symlink_to(closed / "v")
    give(open_place / "closed", hidden)
    service = enabled(new_service, open_place, [volume])
    raw, shown = rights([volume]), rights([service.path(volume)])
    for reader in READERS:
        ((may,), (can,)) = raw[reader].values(), shown[reader].values()
        assert all(had or not has for had, has in zip(may, can, strict=True)), reader
        assert hidden != 0o755 or may == can, reader


def test_suid_bit_of_a_volume_is_not_shown(new_service, open_place):
    """Nobody takes it away when the file is written."""
    volume = made(open_place, 0, 0o755, 0o4755)
    service = enabled(new_service, open_place, [volume])
    assert os.stat(service.path(volume)).st_mode & 0o7777 == 0o755


def test_kernel_asks_for_no_attribute_before_each_write(new_service, open_place):
    """A file system that has any is asked for one, unless it says that this is its own matter."""
    volume = made(open_place, 0, 0o755, 0o666)
    service = enabled(new_service, open_place, [volume])
    trace = open_place / "trace"
    with subprocess.Popen(
        ["strace", "-f", "-e", "trace=writev", "-o", trace, "-p", str(service.pid)],
        stderr=subprocess.PIPE, text=True,
    ) as tracer:  # fmt: skip
        assert "attached" in tracer.stderr.readline()
        fd = os.open(service.path(volume), os.O_RDWR)
        for number in range(200):
            os.pwrite(fd, b"x", number)
        os.close(fd)
        tracer.terminate()
    assert 200 <= trace.read_text().count("writev(") < 220, "answers"


@pytest.mark.sampled
def test_shadow_is_open_to_nobody_whom_its_own_path_keeps_out(new_service, open_place):
    service = enabled(new_service, open_place, [])
    for number, (directory, file) in enumerate(some(CASES, 6, "shadows")):
        shadow = made(open_place, number, directory, file)
        master = shadow.with_name("m")
        master.write_bytes(os.urandom(4096))
        words = ("-n", "-e", "dep", master, shadow, shadow.with_name("b"))
        assert service.run("iiadm", *words).returncode == 0
        before, after = rights([shadow]), rights([service.path(shadow)])
        for reader in READERS:
            assert [*before[reader].values()] == [*after[reader].values()], (directory, file)


@pytest.mark.parametrize(("lists", "mode"), [(True, 0o664), (False, 0o600)])
def test_kernel_that_ignores_lists_is_shown_less(disk_place, lists, mode):
    """The group's bits say what the mask says, and others may be less than named users."""
    volume = made(disk_place, 0, 0o755, acl(user=6, named=6, group=0, mask=6, other=4))
    node, permissions = Node(2, b"v", None, None), Permissions(Namespace(), Lookout(Loop()))
    node.access = access.of(os.stat(volume), access.acl(str(volume)))
    permissions.lists = lists
    assert permissions.of(node).mode == mode


@pytest.mark.finding("K8.1")
@pytest.mark.parametrize("hangs", [False, True])
async def test_look_tells_which_are_others_and_keeps_what_does_not_answer(monkeypatch, loop, hangs):
    go, nodes = threading.Event(), [Node(number, b"%d" % number, None, None) for number in (2, 3)]

    def look(path, _host):
        if path == "/2" and hangs:
            go.wait(60)
        return access.Access(mode=0o755 if path == "/2" else 0o700)

    monkeypatch.setattr(access, "of_directory", look)
    permissions = Permissions(Namespace(), Lookout(loop))
    changed = await permissions.look(nodes)
    assert changed == ([] if hangs else nodes[:1])
    assert nodes[0].access.mode == (0o700 if hangs else 0o755)
    go.set()
