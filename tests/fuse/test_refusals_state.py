"""Every row of the state table, and open targets: refused by the real program, nothing changed."""

import contextlib
import os
import socket
import subprocess

import pytest
from devices import Mapping, eventually, held_open, opened
from far import far
from harness import BIN, CHUNK

from iifuse.control import lines, protocol


@pytest.fixture
def pair(service, volume, place):
    """An independent and a dependent set of one master in group `both`."""
    master, independent, dependent = volume("m"), place / "ind", place / "dep"
    service.enable("ind", master, independent, group="both")
    service.wait(independent)
    service.enable("dep", master, dependent, group="both")
    service.write(master, 5 * CHUNK, b"changed")
    return master, independent, dependent


@pytest.fixture
def frozen(new_service, volume, place):
    """Copies that never end: the volume that they write lies on a file server that is stopped.

    `service`, `volume(name)` on that server, `freeze` and `thaw`.
    """
    with far(place) as server:  # which no picture looks into

        class Frozen:
            def __init__(self):
                self.service = new_service()
                self.freeze, self.thaw = server.freeze, server.thaw

            def volume(self, name):
                volume(f"far/fs/{name}")
                return server.mountpoint / name

        found = Frozen()
        yield found
        found.thaw()
        found.service.clean_up()


@pytest.fixture
def to_shadow(frozen, volume, place):
    """An update to the shadow that runs until `thaw`; (service, shadow)."""
    master, shadow = volume("m"), frozen.volume("s")
    frozen.service.enable("ind", master, shadow, place / "b")
    frozen.service.wait(shadow)
    frozen.service.write(master, CHUNK, b"changed")
    frozen.freeze()
    frozen.service.flip("s", shadow)
    return frozen.service, shadow


@pytest.fixture
def to_master(frozen, place):
    """A restore that runs until `thaw`, and a sibling; (service, shadow, sibling)."""
    service, master, shadow = frozen.service, frozen.volume("m"), place / "s"
    service.enable("dep", master, shadow)
    service.enable("ind", master, place / "sibling")
    service.wait(place / "sibling")
    service.write(shadow, CHUNK, b"changed")
    frozen.freeze()
    service.flip("m", shadow)
    sibling = place / "sibling"
    eventually(lambda: service.status(sibling).shadow_bits, "the sibling has kept its chunk")
    return service, shadow, sibling


# -- the state table --------------------------------------------------------------------------


def test_idle_set_refuses_only_the_join(service, refused, pair):
    """F21: a join when nothing is exported."""
    _, independent, _ = pair
    refused(service, "iiadm", "-J", independent, f"{independent}.bmp", says=("not exported",))
    done = service.run("iiadm", "-a", independent)
    assert (done.returncode, done.stderr) == (0, "")


def test_running_copy_to_the_shadow_refuses_its_row(refused, to_shadow, place):
    """F21: an export during a resync."""
    service, shadow = to_shadow
    assert service.status(shadow).copying
    for verb in (["-n", "-u", "m"], ["-n", "-c", "m"]):
        refused(service, "iiadm", *verb, shadow, code=1, says=(shadow, "-w", "-a"))
    for verb in ("-d", "-E"):
        refused(service, "iiadm", verb, shadow, code=1, says=(shadow, "-w", "-a"))
    refused(service, "iiadm", "-w", "--timeout", "0.1", shadow, code=1, todo=False)
    refused(service, "iiadm", "-J", shadow, place / "b", says=(shadow,))


def test_aborted_copy_to_the_shadow_refuses_its_row(refused, frozen, to_shadow):
    service, shadow = to_shadow
    with pytest.raises(subprocess.TimeoutExpired):
        # the abort waits for the step that is under way
        subprocess.run([BIN / "iiadm", "-a", shadow],
                       env={**os.environ, "IIFUSE_SOCKET": str(service.socket)}, timeout=0.6,
                       check=False)  # fmt: skip
    frozen.thaw()
    service.client.status()
    service.abort(shadow)
    status = service.status(shadow)
    assert (status.progress, status.copying) == ("to_shadow", False)
    for verb in (["-n", "-u", "m"], ["-n", "-c", "m"], ["-E"]):
        code = 1 if verb == ["-E"] else 2
        refused(service, "iiadm", *verb, shadow, code=code, says=(shadow, "aborted", "-u s"))
    assert service.run("iiadm", "-d", shadow).returncode == 0


def test_running_restore_refuses_its_row_and_what_its_siblings_may_not(refused, to_master):
    service, shadow, sibling = to_master
    assert service.status(shadow).progress == "to_master"
    for verb in (["-u", "s"], ["-u", "m"], ["-c", "s"], ["-c", "m"]):
        refused(service, "iiadm", "-n", *verb, shadow, code=1, says=(shadow, "-w", "-a"))
        refused(service, "iiadm", "-n", *verb, sibling, code=1, says=(sibling, shadow))
    for verb in ("-d", "-E"):
        refused(service, "iiadm", verb, shadow, says=(shadow, "-w", "-a"))
    master = service.status(shadow).master
    refused(service, "svadm", "-d", master, says=(master, "iiadm -d"))


def test_aborted_restore_can_only_go_on(refused, frozen, to_master, place):
    service, shadow, sibling = to_master
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(service.socket))
        client.sendall(lines.encode_request(protocol.Abort(protocol.Target((str(shadow),)))))
        for _ in range(5):  # the service has read the one before it has answered these
            service.status(shadow)
        frozen.thaw()
        assert b'"failure":null' in client.makefile("rb").readline()
    status = service.status(shadow)
    assert (status.progress, status.copying) == ("to_master", False)
    for verb in (["-u", "s"], ["-c", "s"], ["-d"], ["-E"]):
        refused(service, "iiadm", *verb, shadow, says=(shadow, "-u m"))
    for verb in (["-u", "s"], ["-u", "m"]):
        refused(service, "iiadm", "-n", *verb, sibling, code=1, says=(sibling, shadow))
    words = ("-e", "dep", status.master, place / "third", place / "third.b")
    refused(service, "iiadm", *words, code=1, says=(status.master, shadow))
    pit = status.pit
    assert service.run("iiadm", "-n", "-u", "m", shadow).returncode == 0
    service.wait(shadow)
    assert service.status(shadow).pit == pit
    assert service.run("iiadm", "-d", shadow).returncode == 0


def test_exported_set_refuses_its_row(service, refused, pair):
    """F21: an export of a dependent set, and a second one."""
    _, independent, dependent = pair
    refused(service, "iiadm", "-E", dependent, says=(dependent, "dependent", "independent"))
    refused(service, "iiadm", "-g", "both", "-E", says=(dependent, "dependent"))
    assert service.run("iiadm", "-E", independent).returncode == 0
    for verb in (["-u", "s"], ["-u", "m"], ["-c", "s"], ["-c", "m"], ["-E"]):
        refused(service, "iiadm", "-n", *verb, independent, says=(independent, "'iijoin "))
    refused(service, "iiadm", "-g", "both", "-u", says=(independent, "exported"))
    refused(service, "iiadm", "-I", independent, f"{independent}.2", says=("'iijoin ",))
    words = ("-e", "ind", pair[0], independent, f"{independent}.2")
    refused(service, "iiadm", *words, says=(independent,))


def test_imported_set_refuses_its_row(service, new_service, refused, pair, place):
    _, independent, _ = pair
    assert service.run("iiadm", "-E", independent).returncode == 0
    other = new_service("other")
    second = place / "second"
    assert other.run("iiadm", "-I", independent, second).returncode == 0
    for verb in (["-u", "s"], ["-u", "m"], ["-c", "s"], ["-c", "m"], ["-E"]):
        says = (f"'iiadm -d {independent}'", "join it on the host")
        refused(other, "iiadm", "-n", *verb, independent, says=says)
    refused(other, "iiadm", "-J", independent, second, says=(independent,))
    refused(other, "iiadm", "-I", independent, place / "third", says=(independent,))


# -- commands on several sets -----------------------------------------------------------------


def test_two_restores_of_one_master_in_one_command_are_refused(service, refused, pair):
    _, independent, dependent = pair
    for words in (["-u", "m", independent, dependent], ["-g", "both", "-u", "m"]):
        refused(service, "iiadm", "-n", *words, says=(independent, dependent, "only one"))


def test_one_member_that_cannot_holds_back_the_whole_group(service, refused, pair):
    _, independent, dependent = pair
    with held_open(service.path(dependent)) as pid:
        refused(service, "iiadm", "-g", "both", "-u", says=(dependent, f"pid {pid}"))
        refused(service, "iiadm", "-u", independent, dependent, says=(dependent,))


def test_group_is_disabled_whole_or_not_at_all(service, refused, pair):
    _, _, dependent = pair
    with held_open(service.path(dependent)) as pid:
        refused(service, "iiadm", "-g", "both", "-d", says=(dependent, f"pid {pid}"))
    assert service.run("iiadm", "-g", "both", "-d").returncode == 0
    assert service.client.status() == []


def test_several_volumes_go_on_or_off_the_mount_together(service, refused, volume, place):
    paths = [volume("one"), volume("two"), volume("three")]
    refused(service, "svadm", "-e", *paths[:2], place / "gone", says=(place / "gone",))
    assert service.run("svadm", "-e", *paths).returncode == 0
    with held_open(service.path(paths[2])) as pid:
        refused(service, "svadm", "-d", *paths, says=(paths[2], f"pid {pid}"))


def test_set_named_twice_is_updated_once(service, pair):
    _, independent, _ = pair
    done = service.run("iiadm", "-u", f"{independent},{independent}", independent)
    assert done.returncode == 0, done.stderr
    assert service.status(independent).pit == 2


# -- open targets -----------------------------------------------------------------------------


def test_open_target_names_the_program_that_holds_it(service, refused, pair):
    """F20."""
    master, independent, dependent = pair
    with held_open(service.path(independent)) as pid:
        for verb in ("-u", "-d", "-E"):
            says = (independent, f"pid {pid}", "python")
            refused(service, "iiadm", verb, independent, says=says)
        assert service.run("iiadm", "-u", dependent).returncode == 0
    with held_open(service.path(master)) as pid:
        says = (master, f"pid {pid}", "python")
        refused(service, "iiadm", "-n", "-u", "m", dependent, says=says)
        assert service.run("iiadm", "-u", dependent).returncode == 0


def test_mapped_target_names_the_program_that_holds_it(service, refused, pair):
    """F20."""
    _, independent, _ = pair
    with held_open(service.path(independent), "map") as pid:
        for verb in ("-u", "-E"):
            refused(service, "iiadm", verb, independent, says=(independent, f"pid {pid}"))


def test_open_target_names_the_loop_device_that_holds_it(service, refused, pair, attach):
    """F20."""
    master, independent, dependent = pair
    device = attach(service.path(dependent))
    refused(service, "iiadm", "-u", dependent, says=(dependent, device))
    device = attach(service.path(independent))
    refused(service, "iiadm", "-E", independent, says=(independent, device))
    device = attach(service.path(master))
    refused(service, "iiadm", "-n", "-u", "m", independent, says=(master, device))


def test_handle_that_goes_in_time_is_waited_for(service, pair):
    _, independent, _ = pair
    with contextlib.ExitStack() as stack:
        with opened(service.path(independent)) as fd:
            memory = stack.enter_context(Mapping(fd, 4096))
            waiting = subprocess.Popen(
                [BIN / "iiadm", "-u", independent],
                env={**os.environ, "IIFUSE_SOCKET": str(service.socket)},
            )
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(0.4)
        memory.close()
        stack.pop_all()
        assert waiting.wait(60) == 0


def test_open_pass_through_volume_cannot_be_released(service, refused, volume, attach):
    path = volume("alone")
    assert service.run("svadm", "-e", path).returncode == 0
    with held_open(service.path(path)) as pid:
        refused(service, "svadm", "-d", path, says=(path, f"pid {pid}", "close"))
    device = attach(service.path(path))
    refused(service, "svadm", "-d", path, says=(path, device))


# -- questions that nobody can answer ---------------------------------------------------------


@pytest.mark.parametrize("verb", ["-u", "-c"])
def test_restore_without_a_terminal_is_refused(service, refused, pair, verb):
    _, independent, _ = pair
    master = service.status(independent).master
    says = (master, "overwrite a master", "point in time 1 of", "is lost", "-n")
    refused(service, "iiadm", verb, "m", independent, code=1, says=says)
    refused(service, "iiresync", "m", independent, code=1, says=says)


@pytest.mark.parametrize("verb", ["-u", "-c"])
def test_restore_that_is_refused_anyhow_asks_nothing(service, refused, pair, verb):
    """Both sets of the group have one master."""
    refused(service, "iiadm", "-g", "both", verb, "m", code=2, says=("restore it twice",))


@pytest.mark.finding("K6.5")
def test_question_says_how_much_a_restore_copies(service, refused, pair):
    _, independent, dependent = pair
    before = service.status(independent).shadow_bits
    service.write(service.status(independent).master, 0, b"since the point in time")
    assert service.status(independent).shadow_bits == before + 1
    says = (f"{before + 1} chunk",)
    refused(service, "iiadm", "-u", "m", independent, code=1, says=says)
    chunks = service.status(independent).chunks
    refused(service, "iiadm", "-c", "m", independent, code=1, says=(f"{chunks} chunks",))
    left = service.status(dependent).shadow_bits
    refused(service, "iiadm", "-c", "m", dependent, code=1, says=(f"{left} chunk",))
