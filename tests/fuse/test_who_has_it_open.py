"""Whoever has a file open is named with what ends that; what is named ends it."""

import contextlib
import re
import signal
import subprocess

import advice
import pytest
from devices import held_open
from harness import CHUNK

SIZE = 64 * CHUNK
HOLD = ["sh", "-c", "echo; exec sleep 600"]


@contextlib.contextmanager
def running(*words, cwd=None):
    """A program that has said that it is there; it ends with this, if not before."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=cwd) as program:
        try:
            assert program.stdout.readline() == b"\n"
            yield program
        finally:
            program.kill()


@pytest.fixture
def elsewhere(place):
    """Processes in mount namespaces of their own, with all that is mounted now.

    But what tests beside this one have mounted is not held.
    """

    @contextlib.contextmanager
    def start(*before, propagation="private"):
        mine = f"awk -v own={place}/ '$5 ~ \"/iifuse-[0-9]\" && index($5, own) != 1 {{print $5}}'"
        let_go = f"umount -l $({mine} /proc/self/mountinfo) 2>/dev/null"
        script = "; ".join((let_go, *before, HOLD[-1]))
        with running("unshare", "-m", "--propagation", propagation, "sh", "-c", script) as program:
            yield program

    return start


@pytest.fixture
def shadow(service, volume, place):
    master, path = volume("m", SIZE), place / "s"
    service.enable("ind", master, path)
    service.wait(path)
    return path


@pytest.fixture
def on_loop(service, shadow, attach, mounted):
    """The shadow's file as a loop device with a file system; (device, where it is mounted)."""
    device = attach(service.path(shadow))
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    return device, mounted(device, "data")


def lead_out(service, shadow, *programs):
    """Do what each refusal says until there is none; all that was said."""
    ours, said = {program.pid: program for program in programs}, []
    for _ in range(9):
        done = service.run("iiadm", "-u", shadow)
        if done.returncode == 0:
            return said
        said.append(done.stderr)
        for pid in map(int, re.findall(r"stop \S+ \(pid (\d+)", done.stderr)):
            ours[pid].send_signal(signal.SIGKILL)
            ours[pid].wait(60)
        for words in advice.commands(done.stderr):
            subprocess.run(words, check=True)
    raise AssertionError(said)


@pytest.mark.finding("K15.8")
def test_loop_device_is_named_with_its_mount_and_both_are_let_go(service, shadow, on_loop):
    device, point = on_loop
    (said,) = lead_out(service, shadow)
    who = f"is open: loop device {device} (mounted on {point})"
    assert f"{who}; what an open file shows may not change, so close it first: 'umount" in said
    assert f"'umount {point}', then 'losetup -d {device}'" in said


def test_device_that_goes_with_its_mount_is_not_let_go_twice(service, shadow, on_loop):
    """As one that `mount -o loop` has made."""
    device, _ = on_loop
    subprocess.run(["losetup", "-d", device], check=True)
    (said,) = lead_out(service, shadow)
    assert "losetup" not in said


def test_program_that_keeps_the_mount_busy_is_named_before_it(service, shadow, on_loop):
    _, point = on_loop
    with running(*HOLD, cwd=point) as program:
        (said,) = lead_out(service, shadow, program)
    assert f"in use by sleep (pid {program.pid})" in said


@pytest.mark.finding("K15.9")
def test_mount_that_only_another_namespace_has_is_named_with_a_process_there(
    service, shadow, on_loop, elsewhere
):
    device, point = on_loop
    with elsewhere() as program:
        pid = program.pid
        subprocess.run(["umount", point], check=True)
        (said,) = lead_out(service, shadow)
    assert f"mounted on {point} in the mount namespace of process {pid}" in said
    assert f"'nsenter -t {pid} -m umount {point}'" in said
    assert device in said


def test_device_held_in_several_namespaces_is_let_go_in_all(
    service, shadow, on_loop, elsewhere
):
    with elsewhere() as one, elsewhere() as other:
        (said,) = lead_out(service, shadow)
    assert f"process {one.pid}" in said
    assert f"process {other.pid}" in said


def test_mount_that_follows_ours_is_not_named_twice(
    service, shadow, place, attach, mounted, elsewhere
):
    """As the services of systemd have it."""
    (place / "fs").mkdir()
    subprocess.run(["mount", "--bind", place / "fs", place / "fs"], check=True)
    subprocess.run(["mount", "--make-shared", place / "fs"], check=True)
    device = attach(service.path(shadow))
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    mounted(device, "data")
    with elsewhere(propagation="slave") as program:
        (said,) = lead_out(service, shadow)
    assert str(program.pid) not in said


def test_swap_on_a_loop_device_is_named_and_ended(service, shadow, attach):
    device = attach(service.path(shadow))
    subprocess.run(["mkswap", device], check=True, capture_output=True)
    subprocess.run(["swapon", device], check=True)
    try:
        (said,) = lead_out(service, shadow)
    finally:
        subprocess.run(["swapoff", device], check=False, capture_output=True)
    assert f"'swapoff {device}'" in said


def test_program_that_has_the_device_open_is_named(service, shadow, attach):
    device = attach(service.path(shadow))
    with held_open(device) as pid:
        done = service.run("iiadm", "-u", shadow)
    assert f"open by python (pid {pid})" in done.stderr.replace("python3", "python")
    assert f"'losetup -d {device}'" in done.stderr


def test_program_that_has_the_file_open_in_another_namespace_is_named(
    service, refused, shadow, elsewhere
):
    with elsewhere(f"exec 3<{service.path(shadow)}") as program:
        who = f"sleep (pid {program.pid}, in another mount namespace)"
        refused(service, "iiadm", "-u", shadow, says=(f"is open: {who};", f"stop {who}"))


def test_file_under_another_name_in_another_namespace_is_found(
    service, refused, shadow, place, elsewhere
):
    (place / "there").mkdir()
    bind = f"mount --bind {service.mountpoint} {place}/there", f"exec 3<{place}/there{shadow}"
    with elsewhere(*bind) as program:
        refused(service, "iiadm", "-u", shadow, says=(f"sleep (pid {program.pid}, in another",))


def test_more_holders_than_fit_are_counted(service, refused, shadow):
    with contextlib.ExitStack() as stack:
        pids = [stack.enter_context(held_open(service.path(shadow))) for _ in range(7)]
        said = refused(service, "iiadm", "-u", shadow, says=(" and 2 more;", ", and so on"))
    assert sum(f"(pid {pid})" in said for pid in pids) == 5


def test_volume_that_is_mounted_is_refused_with_its_mount(service, refused, place, attach, mounted):
    image, shadow = place / "image", place / "s"
    image.write_bytes(bytes(SIZE))
    device = attach(image)
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    point = mounted(device, "data")
    says = (f"is in use: mounted on {point}; close it first: 'umount {point}'",)
    refused(service, "iiadm", "-e", "ind", device, shadow, place / "b", says=says)


def test_stop_of_the_service_names_who_keeps_it_waiting(service, shadow, on_loop):
    device, point = on_loop
    assert service.stop() == 3
    log = service.log.read_text()
    who = f"loop device {device} (mounted on {point}); 'umount {point}', then 'losetup -d {device}'"
    assert f"s for {who}" in log
    assert f"unmounted all the same: {who}" in log
    for command in advice.commands(who):
        subprocess.run(command, check=True)
