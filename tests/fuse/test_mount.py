"""How the service mounts, and what it unmounts at its end."""

import os
import signal
import subprocess

from iifuse.store import linux


def mounts_at(path):
    """(options, type, options of the file system) of each mount there."""
    with open("/proc/self/mountinfo") as file:
        lines = [line.split(" - ") for line in file if line.split()[4] == str(path)]
    return [(before.split()[5], *after.split()[::2]) for before, after in lines]


def test_mount_admits_everybody_whom_the_modes_admit_and_no_devices(service):
    [(options, kind, of_files)] = mounts_at(service.mountpoint)
    assert kind == "fuse.iifuse"
    assert {"nosuid", "nodev"} <= set(options.split(","))
    assert {"allow_other", "default_permissions"} <= set(of_files.split(","))


def test_service_that_was_unmounted_takes_nobody_elses_mount_down(service):
    os.kill(service.pid, signal.SIGSTOP)  # it learns of both at once
    linux.unmount(str(service.mountpoint), linux.MNT_DETACH)
    subprocess.run(["mount", "-t", "tmpfs", "theirs", service.mountpoint], check=True)
    os.kill(service.pid, signal.SIGCONT)
    try:
        assert service.wait_for_end(30) == 0
        assert [kind for _, kind, _ in mounts_at(service.mountpoint)] == ["tmpfs"]
    finally:
        subprocess.run(["umount", service.mountpoint], check=True)


def test_mount_point_with_a_space_in_its_name_is_served_and_unmounted(new_service):
    service = new_service("with a space")
    assert service.run("iiadm", "-l").returncode == 0
    assert service.stop() == 0
    assert not os.path.ismount(service.mountpoint)
