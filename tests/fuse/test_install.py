"""`make install` and `make uninstall`, offline and below a directory of the test."""

import os
import signal
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest
import wheel
from devices import eventually

ROOT = Path(__file__).resolve().parents[2]
DEPENDENCIES = sysconfig.get_path("purelib")
NO_SETS = ("", "iiadm: no sets\n", 0)
PROGRAMS = list(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])


class Installed:
    """What lies below PREFIX. Numpy and the like come from the environment of the tests."""

    def __init__(self, place, destdir=""):
        self.place, self.destdir = place, destdir
        self.prefix = place / "usr"
        self.site = Path(f"{destdir}{self.prefix}/lib/iifuse")

    def install(self, version):
        wheels = self.place / "wheels"
        for old in wheels.glob("iifuse-*.whl"):
            old.unlink()
        wheel.make(wheels, version)
        (wheels / ".complete").touch()
        return self.make("install", f"WHEELS={wheels}", f"VERSION={version}")

    def make(self, *words):
        where = [f"PREFIX={self.prefix}", f"DESTDIR={self.destdir}"]
        command = ["make", "-C", ROOT, *words, *where]
        env = {**os.environ, "PYTHONPATH": DEPENDENCIES}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=env)

    def start(self, name, *words, **options):
        env = {**os.environ, "PYTHONPATH": DEPENDENCIES}
        command = [self.prefix / "sbin" / name, *words]
        return subprocess.Popen(command, env=env, text=True, **options)

    def service(self):
        """A running service, in which nothing has been imported that is not needed for that."""
        mountpoint = self.place / "mnt"
        mountpoint.mkdir(exist_ok=True)
        words = ["--state", self.place / "state", "--socket", self.place / "s.sock", mountpoint]
        service = self.start("iifuse", *words, stderr=subprocess.DEVNULL)
        eventually(lambda: os.path.ismount(mountpoint), "a mount")
        return service

    def asked(self):
        done = self.start("iiadm", "--socket", self.place / "s.sock", "-l", stdout=-1, stderr=-1)
        return (*done.communicate(timeout=60), done.returncode)

    def versions(self):
        return sorted(path.name.rpartition(".")[0] for path in self.site.glob("*.*.*.*"))

    def files(self):
        top = Path(f"{self.destdir}{self.prefix}")
        return {str(path.relative_to(top)) for path in top.rglob("*") if not path.is_dir()}


def assert_failure_changes_nothing(here):
    before = here.files()
    (here.place / "wheels" / "iifuse-1.0.0-py3-none-any.whl").write_bytes(b"no wheel")
    failed = here.make("install", f"WHEELS={here.place}/wheels", "VERSION=1.0.1")
    assert failed.returncode != 0
    assert here.files() == before


@pytest.mark.finding("K16.3")
def test_install_leaves_a_running_service_its_files_until_it_is_started_again(place):
    here = Installed(place)
    assert here.install("1.0.0").returncode == 0
    service = here.service()
    try:
        assert_failure_changes_nothing(here)
        done = here.install("1.0.1")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"kept for process {service.pid}" in done.stdout
        told = f"iifuse 1.0.1 is installed in {here.prefix}; begin with 'man 7 iifuse'"
        assert told in done.stdout.splitlines()
        assert here.versions() == ["1.0.0", "1.0.1"]
        assert here.asked() == NO_SETS
        refused = here.make("uninstall")
        assert refused.returncode != 0
        told = f"it runs as process {service.pid} at {place}/mnt; stop it first:"
        assert f"{told}\n  umount {place}/mnt\n" in refused.stderr
        assert here.asked() == NO_SETS
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(60) == 0
    assert here.install("1.0.2").returncode == 0
    assert here.versions() == ["1.0.2"]
    assert here.make("uninstall").returncode == 0
    assert here.files() == set()
    assert (place / "state/state.db").exists()


def test_install_for_elsewhere_names_the_place_where_it_will_lie(place):
    """What lies in DESTDIR is moved there by somebody else; here, onto version 0.1.0."""
    here = Installed(place, f"{place}/root")
    leave_version_0_1_0(here)
    assert here.install("1.0.0").returncode == 0
    here.destdir = ""
    (place / "root" / str(here.prefix).lstrip("/")).rename(here.prefix)
    program = here.start("iiadm", "--version", stdout=subprocess.PIPE)
    assert program.communicate(timeout=60)[0].startswith("iiadm (iifuse) ")
    assert not [name for name in here.files() if str(place / "root") in _text(here.prefix / name)]
    pages = {f"share/man/man{page.suffix[1:]}/{page.name}" for page in ROOT.glob("man/*.[0-9]")}
    site = here.prefix / "lib/iifuse"
    assert {path.name for path in site.iterdir()} == {"current", (site / "current").readlink().name}
    wanted = pages | {f"sbin/{name}" for name in PROGRAMS} | {"lib/systemd/system/iifuse@.service"}
    shells = here.prefix / "share"
    assert "complete -F" in (shells / "bash-completion/completions/svadm").read_text()
    assert "#compdef" in (shells / "zsh/site-functions/_iifuse").read_text()
    assert wanted <= here.files()
    unit = (here.prefix / "lib/systemd/system/iifuse@.service").read_text()
    assert f"ExecStart={here.prefix}/sbin/iifuse " in unit


def test_uninstall_names_what_is_left_and_nothing_else(place):
    here = Installed(place, f"{place}/root")
    assert here.install("1.0.0").returncode == 0
    (place / "root/var/lib/iifuse").mkdir(parents=True)
    assert f"left as it is: {place}/root/var/lib/iifuse\n" in here.make("uninstall").stdout
    (place / "root/var/lib/iifuse").rmdir()
    assert "left" not in here.make("uninstall").stdout


def leave_version_0_1_0(here):
    """That one was an environment in the place itself."""
    for name in ("bin/iifuse", "lib/python3/x.py", "pyvenv.cfg"):
        path = here.site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def _text(path):
    return "" if path.is_symlink() or path.suffix == ".pyc" else path.read_text(errors="replace")
