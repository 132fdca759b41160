"""The service under the real systemd, with the examples of iifuse(8) as they stand there."""

import os
import subprocess

import booted
import manual
import pytest
from loaded import BIN

PAGE = "iifuse.8"
FILES = manual.files(PAGE)
VOLUMES = "/etc/systemd/system/iifuse@prod.service.d/volumes.conf"
DATABASE = "/etc/systemd/system/postgresql@15-main.service.d/volumes.conf"
DIRECT = "/etc/systemd/system/mariadb.service.d/volumes.conf"
VOLUME = "/srv/prod/vol01"
SIMPLE = """\
[Unit]
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
[Service]
ExecStart=sh -c 'exec sleep infinity >>{file}'
"""
"""A program that has a file open; its dependencies are those that the manual gives it."""
DOWN = """\
[Unit]
DefaultDependencies=no
Requires=umount.target shutdown.target final.target
After=umount.target shutdown.target final.target
"""
"""All that happens before a machine is switched off."""

pytestmark = pytest.mark.skipif(
    not (booted.SYSTEMD / "systemd").exists(), reason="systemd is not installed"
)


@pytest.fixture
def system(place):
    """A system with the unit and a file system on a volume that is on a file system of its own."""
    root = place / place.name
    found = booted.Booted(root)
    text = (booted.ROOT / "systemd/iifuse@.service").read_text()
    found.unit("iifuse@.service", text.replace("/usr/local/sbin", str(BIN)))
    found.unit(
        "iifuse@.service.d/tests.conf",
        f"[Unit]\nRequiresMountsFor={booted.ROOT}\n[Service]\nStandardError=file:/service.log\n"
        f"Environment=PYTHONPATH={os.environ.get('PYTHONPATH', '')}\n",
    )
    found.unit("down.target", DOWN)
    found.file("/etc/fstab", "/store /srv none bind 0 0\n")
    found.file(f"/store{VOLUME.removeprefix('/srv')}", "")
    path = root / "store/prod/vol01"
    os.truncate(path, 16 << 20)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    (root / "srv").mkdir()
    try:
        yield found.boot()
    finally:
        found.end()


@pytest.fixture
def volume_in_use(system):
    """The volume is known to the service, which is stopped, as before a boot."""
    system.do("systemctl", "start", "srv.mount", "iifuse@prod")
    system.do("svadm", "--instance", "prod", "-e", VOLUME)
    for unit in ("iifuse@prod", "srv.mount"):
        system.do("systemctl", "stop", unit)
    return system


def boot(system, *lines, examples=()):
    """Write what an administrator writes, and go on as a boot does."""
    for name in examples:
        system.file(name, FILES[name])
    with open(f"{system.root}/etc/fstab", "a") as file:
        file.writelines(lines)
    system.do("systemctl", "daemon-reload")
    system.do("systemctl", "start", "local-fs.target", "multi-user.target")


def source(system, directory):
    """What is mounted there, as people see it."""
    rows = [line.split() for line in system.do("mount").splitlines()]
    return next((row[0] for row in rows if row[2] == directory), None)


def assert_ended_in_order(system, *units):
    ends = [int(system.show(unit, "InactiveEnterTimestampMonotonic")) for unit in units]
    assert ends == sorted(ends)
    assert [system.show(unit, "Result") for unit in units] == ["success"] * len(units)


def kill(system):
    """Kill the service, and wait until systemd has started another one and all that needs it."""
    system.do("systemctl", "kill", "--signal=KILL", "iifuse@prod")
    system.until(lambda: system.show("iifuse@prod", "NRestarts") == "1", "a restart")
    system.settle()


@pytest.mark.finding("K16.1")
def test_boot_and_shutdown_take_volumes_service_and_file_system_in_order(volume_in_use):
    """Also without nofail, where the boot waits for the file system."""
    system, line = volume_in_use, FILES["/etc/fstab"].replace(",nofail", "")
    boot(system, line, examples=[VOLUMES])
    assert source(system, "/data").endswith("/srv/prod/vol01")
    assert system.show("local-fs.target", "ActiveState") == "active"
    system.do("systemctl", "restart", "iifuse@prod")
    assert system.show("data.mount", "ActiveState") == "active"
    system.do("systemctl", "start", "--job-mode=replace-irreversibly", "down.target")
    assert_ended_in_order(system, "data.mount", "iifuse@prod.service", "srv.mount")
    assert "cycle" not in "".join(system.log)


def test_volume_that_is_missing_keeps_no_host_from_its_boot(system):
    boot(system, FILES["/etc/fstab"], examples=[VOLUMES])
    assert system.show("data.mount", "ActiveState") == "failed"
    for unit in ("local-fs.target", "multi-user.target", "iifuse@prod"):
        assert system.show(unit, "ActiveState") == "active"


@pytest.mark.finding("K16.1")
def test_death_of_the_service_is_mended_with_all_that_needs_it(volume_in_use):
    system = volume_in_use
    boot(system, FILES["/etc/fstab"], examples=[VOLUMES, DATABASE])
    system.unit("postgresql@15-main.service", SIMPLE.format(file="/data/open"))
    system.do("systemctl", "start", "postgresql@15-main")
    before = system.show("postgresql@15-main", "MainPID")
    kill(system)
    assert system.show("postgresql@15-main", "ActiveState") == "active"
    assert system.show("postgresql@15-main", "MainPID") != before
    system.do("sync", "/data/open")


def test_file_system_that_was_held_over_a_death_comes_back_as_the_manual_says(volume_in_use):
    system = volume_in_use
    boot(system, FILES["/etc/fstab"], examples=[VOLUMES])
    system.unit("other.service", SIMPLE.format(file="/data/open"))
    system.do("systemctl", "start", "other")
    kill(system)
    assert system.run("dd", "if=/dev/zero", "of=/data/f", "conv=fsync", "count=1").returncode
    system.do("systemctl", "stop", "other")
    for command in manual.commands(PAGE, "When the service dies"):
        system.do(*command.split())
    system.do("dd", "if=/dev/zero", "of=/data/f", "conv=fsync", "count=1")


def test_program_on_a_file_of_the_mount_is_restarted_with_the_service(volume_in_use):
    system = volume_in_use
    boot(system, examples=[VOLUMES, DIRECT])
    for command in manual.commands(PAGE, "SYSTEMD"):
        system.do(*command.split())
    system.unit("mariadb.service", SIMPLE.format(file=f"/mnt/ii/prod{VOLUME}"))
    system.do("systemctl", "start", "mariadb")
    before = system.show("mariadb", "MainPID")
    system.do("systemctl", "restart", "iifuse@prod")
    assert system.show("mariadb", "MainPID") not in (before, "0")
    system.do("systemctl", "stop", "iifuse@prod")
    assert system.show("mariadb", "ActiveState") == "inactive"
    assert system.show("iifuse@prod", "ExecMainStatus") == "0"


def test_volume_in_place_stays_covered_until_its_programs_have_ended(volume_in_use):
    system = volume_in_use
    system.file("/etc/iifuse/prod.conf", "OPTIONS=-o in_place\n")
    boot(system, FILES["/etc/fstab with in_place"], examples=[VOLUMES])
    assert source(system, "/data") == VOLUME
    assert source(system, VOLUME) is not None
    system.do("systemctl", "start", "--job-mode=replace-irreversibly", "down.target")
    assert_ended_in_order(system, "data.mount", "iifuse@prod.service", "srv.mount")
    assert_ended_in_order(system, "data.mount", "srv-prod-vol01.mount")


@pytest.mark.finding("K16.2")
def test_administrator_may_restart_the_service_as_often_as_he_likes(system):
    nothing = "[Service]\nType=exec\nExecStart=\nExecStart=sleep infinity\n"
    system.unit("iifuse@prod.service.d/nothing.conf", nothing)
    system.do("systemctl", "daemon-reload")
    for _ in range(8):
        system.do("systemctl", "restart", "iifuse@prod")
