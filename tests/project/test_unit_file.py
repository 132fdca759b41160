"""The systemd unit: valid, hardened as far as a mount allows, and fitting the program's parser."""

import configparser
import importlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "iifuse@.service"
EXPOSURE_MAX = 45
"""Tenths of a point of systemd-analyze; everything that is left would hide the mount."""

HIDES_THE_MOUNT = (
    "ProtectSystem", "ProtectHome", "ProtectProc", "ProcSubset", "ProtectKernelTunables",
    "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "PrivateTmp",
    "PrivateDevices", "PrivateMounts", "PrivateIPC", "PrivateUsers", "PrivateNetwork",
    "MountFlags", "DynamicUser", "RootDirectory", "RootImage", "MountImages", "TemporaryFileSystem",
    "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "ExecPaths", "NoExecPaths",
    "BindPaths", "BindReadOnlyPaths",
)  # fmt: skip
NEEDED = {
    "Type": ["notify"],
    "NotifyAccess": ["main"],
    "KillMode": ["mixed"],
    "Restart": ["on-failure"],
    "OOMScoreAdjust": ["-900"],
    "LimitMEMLOCK": ["infinity"],
    "NoNewPrivileges": ["yes"],
    "UMask": ["0077"],
    "StateDirectory": ["iifuse/%i"],
    "RuntimeDirectory": ["iifuse/%i"],
    "RestrictAddressFamilies": ["AF_UNIX"],
}


class _Repeated(dict):
    """Keeps every value of a directive that is given more than once."""

    def __setitem__(self, key, value):
        if key in self and isinstance(value, list):
            self[key].extend(value)
        else:
            super().__setitem__(key, value)


@pytest.fixture(scope="module")
def unit():
    parser = configparser.RawConfigParser(dict_type=_Repeated, strict=False, delimiters=("=",))
    parser.optionxform = str
    parser.read_string(UNIT.read_text())
    return {
        name: {k: v.splitlines() for k, v in section.items()}
        for name, section in parser.items()
        if section
    }


def _analyze(*words, **variables):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(
        ["systemd-analyze", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )


def test_unit_passes_systemd_verify(tmp_path):
    copy = tmp_path / UNIT.name
    text = UNIT.read_text()
    assert "/usr/local/sbin/iifuse " in text
    copy.write_text(text.replace("/usr/local/sbin/iifuse ", "/bin/true "))
    done = _analyze("verify", "--man=no", copy)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


FSTAB = "/mnt/ii/prod/srv/vol01 /data ext4 loop,x-systemd.requires=iifuse@prod.service"
LOCAL, REMOTE = "/dev/vdc /srv ext4 defaults 0 2", "host:/x /san nfs defaults 0 0"
GENERATOR = Path("/usr/lib/systemd/system-generators/systemd-fstab-generator")


def boot_problems(place, unit_text, lines, volumes):
    """What systemd says of a boot with these lines in fstab, the service enabled, and a drop-in."""
    units, made = place / "units", place / "made"
    wanted, drop_in = units / "multi-user.target.wants", units / "iifuse@prod.service.d"
    for directory in (made, wanted, drop_in):
        directory.mkdir(parents=True)
    fstab = place / "fstab"
    fstab.write_text("\n".join(["/dev/vdb / ext4 defaults 0 1", *lines, ""]))
    env = {**os.environ, "SYSTEMD_FSTAB": str(fstab), "SYSTEMD_SYSROOT_FSTAB": "/dev/null"}
    subprocess.run([GENERATOR, made, made, made], env=env, check=True)
    (units / UNIT.name).write_text(unit_text.replace("/usr/local/sbin/iifuse ", "/bin/true "))
    (wanted / "iifuse@prod.service").symlink_to(f"../{UNIT.name}")
    (drop_in / "volumes.conf").write_text(f"[Unit]\nRequiresMountsFor={volumes}\n")
    wishes = ("multi-user.target", "remote-fs.target")
    return _analyze("verify", "--man=no", *wishes, SYSTEMD_UNIT_PATH=f"{made}:{units}:").stderr


@pytest.mark.skipif(not GENERATOR.exists(), reason="systemd is not installed")
@pytest.mark.finding("K16.1")
@pytest.mark.parametrize("more", ["", ",nofail", ",_netdev", ",noauto", ",x-systemd.automount"])
@pytest.mark.parametrize("others", [[], [LOCAL], [LOCAL, REMOTE]], ids=len)
def test_unit_goes_with_a_file_system_in_fstab_on_a_volume(tmp_path, more, others):
    lines = [*others, f"{FSTAB}{more} 0 0"]
    said = boot_problems(tmp_path, UNIT.read_text(), lines, "/srv/vol01 /san/vol01")
    assert "cycl" not in said


@pytest.mark.skipif(not GENERATOR.exists(), reason="systemd is not installed")
@pytest.mark.parametrize("after", ["local-fs.target", "sysinit.target"])
def test_cycle_of_a_boot_is_seen(tmp_path, after):
    wrong = UNIT.read_text().replace("[Service]", f"After={after}\n[Service]")
    assert "ordering cycle" in boot_problems(tmp_path, wrong, [f"{FSTAB} 0 0"], "/srv")


def test_unit_is_stopped_before_the_system_ends(unit):
    """Without default dependencies it has to say so itself."""
    assert unit["Unit"]["DefaultDependencies"] == ["no"]
    assert unit["Unit"]["Conflicts"] == unit["Unit"]["Before"] == ["shutdown.target"]


@pytest.mark.finding("K16.2")
def test_unit_has_no_limit_of_starts(unit):
    assert unit["Unit"]["StartLimitIntervalSec"] == ["0"]
    assert unit["Service"]["RestartSec"] == ["2s"]


def test_unit_passes_systemd_security():
    done = _analyze("--offline=true", "security", f"--threshold={EXPOSURE_MAX}", UNIT)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


@pytest.mark.parametrize("directive", NEEDED)
def test_unit_has_directive(unit, directive):
    """F28: among them what keeps the OOM killer away and lets memory be locked."""
    assert unit["Service"][directive] == NEEDED[directive]


def test_unit_does_not_hide_the_mount(unit):
    assert not set(unit["Service"]) & set(HIDES_THE_MOUNT)


def test_unit_leaves_time_to_stop(unit):
    assert unit["Service"]["TimeoutStopSec"] == ["10min"]


def test_unit_keeps_the_capabilities_that_are_used(unit):
    words = " ".join(unit["Service"]["CapabilityBoundingSet"]).split()
    for name in ("SYS_ADMIN", "DAC_OVERRIDE", "FOWNER", "LEASE", "SYS_PTRACE", "IPC_LOCK"):
        assert f"CAP_{name}" in words


def test_unit_command_line_is_one_that_the_program_takes(unit):
    options = importlib.import_module("iifuse.options")
    variables = dict(line.split("=", 1) for line in unit["Service"]["Environment"])
    variables["OPTIONS"] = "-o stop_wait=60,in_place"
    (line,) = unit["Service"]["ExecStart"]
    for name, value in variables.items():
        line = line.replace(f"${{{name}}}", value).replace(f"${name}", value)
    program, *words = shlex.split(line)
    assert program == "/usr/local/sbin/iifuse"
    arguments = vars(options.parser().parse_args(words)).values()
    assert "/mnt/ii/%i" in arguments
    assert "/run/iifuse/%i/control.sock" in arguments
    assert "/var/lib/iifuse/%i" in arguments
