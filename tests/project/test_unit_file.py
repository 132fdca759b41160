"""The systemd unit: valid, hardened as far as a mount allows, and fitting the program's parser."""

import configparser
import importlib
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


def _analyze(*words):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, check=False
    )


def test_unit_passes_systemd_verify(tmp_path):
    copy = tmp_path / UNIT.name
    text = UNIT.read_text()
    assert "/usr/local/sbin/iifuse " in text
    copy.write_text(text.replace("/usr/local/sbin/iifuse ", "/bin/true "))
    done = _analyze("verify", "--man=no", copy)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


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
    service = importlib.import_module("iifuse.service")
    variables = dict(line.split("=", 1) for line in unit["Service"]["Environment"])
    variables["OPTIONS"] = "-o stop_wait=60,in_place"
    (line,) = unit["Service"]["ExecStart"]
    for name, value in variables.items():
        line = line.replace(f"${{{name}}}", value).replace(f"${name}", value)
    program, *words = shlex.split(line)
    assert program == "/usr/local/sbin/iifuse"
    arguments = vars(service.parser().parse_args(words)).values()
    assert "/mnt/ii/%i" in arguments
    assert "/run/iifuse/%i/control.sock" in arguments
    assert "/var/lib/iifuse/%i" in arguments
