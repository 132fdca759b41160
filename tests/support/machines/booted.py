"""A system of its own under the real systemd, beside the one that the tests run on.

Process 1 is a systemd in namespaces of its own, on a root in memory: the programs of this system,
read-only, and nothing else of it. There are the targets of a boot and what a test adds, no other
unit. It sees no other process, mounts nothing outside, and cannot write the kernel's settings.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hang import PATIENCE_SECONDS
from loaded import BIN

ROOT = Path(__file__).resolve().parents[3]
SYSTEMD = Path("/usr/lib/systemd")
TARGETS = (
    "basic", "final", "local-fs", "local-fs-pre", "multi-user", "remote-fs", "remote-fs-pre",
    "shutdown", "sysinit", "umount",
)  # fmt: skip
GROUPS = Path("/sys/fs/cgroup")
LOOPS = 64
NODES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "fuse", "loop-control")

UNITS = "/etc/systemd/system:/run/systemd/generator:/units:/run/systemd/generator.late"

SETUP = r"""
set -e
for group in $2; do echo 0 >"$group/cgroup.procs" || :; done 2>/dev/null
exec unshare --cgroup --pid --mount --uts --ipc --net --fork --kill-child sh -e -c '
root=$1 groups=$2 console=$3; shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
cd "$root"
mount --bind dev dev
mount --bind "$console" dev/console
mount -t proc proc proc
mount -o bind,ro proc/sys proc/sys
mount --rbind -o ro /sys sys
mount -t tmpfs groups sys/fs/cgroup
for group in $groups; do
    name=${group%/*}; name=${name#/sys/fs/cgroup}
    mkdir -p "sys/fs/cgroup$name"
    mount --bind "$group" "sys/fs/cgroup$name"
done
for path in "$@"; do mkdir -p "./$path"; mount --rbind -o ro "$path" "./$path"; done
mkdir old
pivot_root . old
cd /
mount --make-rprivate old
umount -l old
exec env -i PATH=/usr/sbin:/usr/bin container=iifuse \
    SYSTEMD_UNIT_PATH="$UNITS" \
    SYSTEMD_GENERATOR_PATH=/generators \
    /usr/lib/systemd/systemd --system --unit=nothing.target --log-level=info --log-target=console \
    --show-status=no SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1
' sh "$@"
"""


class Booted:
    """A system below `root`, an empty directory in memory. Its /units take what a test adds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[str] = []
        """What process 1 has said."""
        one = [GROUPS / "cgroup.procs"] if (GROUPS / "cgroup.procs").exists() else []
        hierarchies = one or GROUPS.glob("*/cgroup.procs")
        self._groups = [path.with_name(root.name) for path in hierarchies]
        self._outer: subprocess.Popen[bytes] | None = None
        self.pid = 0
        self._make_root()

    def _make_root(self) -> None:
        for name in ("dev", "etc", "generators", "proc", "run", "sys", "tmp", "units", "var/lib"):
            (self.root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (self.root / name).symlink_to(f"usr/{name}")
        for name in NODES:
            self._node(name)
        for number in range(LOOPS):
            os.mknod(self.root / f"dev/loop{number}", 0o60600, os.makedev(7, number))
        for name in ("passwd", "group", "ld.so.cache"):
            shutil.copy(f"/etc/{name}", self.root / "etc")
        (self.root / "dev/console").touch()
        (self.root / "etc/machine-id").write_text("1" * 32 + "\n")
        for name in TARGETS:
            shutil.copy(SYSTEMD / f"system/{name}.target", self.root / "units")
        self.unit("nothing.target", "[Unit]\nDefaultDependencies=no\n")
        generator = "system-generators/systemd-fstab-generator"
        (self.root / "generators/fstab").symlink_to(SYSTEMD / generator)

    def _node(self, name: str) -> None:
        found = os.stat(f"/dev/{name}")
        os.mknod(self.root / "dev" / name, found.st_mode, found.st_rdev)
        os.chmod(self.root / "dev" / name, 0o666)

    def unit(self, name: str, text: str) -> None:
        """Add a unit, or a drop-in."""
        self.file(f"/units/{name}", text)

    def file(self, name: str, text: str) -> None:
        """Write a file."""
        path = Path(f"{self.root}{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def boot(self) -> "Booted":
        """Start process 1 and wait until it answers."""
        for group in self._groups:
            group.mkdir()
        lent = {"/usr", str(ROOT), os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)}
        ours, theirs = os.openpty()
        words = [str(self.root), " ".join(map(str, self._groups)), os.ttyname(theirs), *lent]
        self._outer = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", "sh", "-c", SETUP, "sh", *words],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "UNITS": UNITS},
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, args=(ours,))
        self._reader.start()
        for _ in range(int(PATIENCE_SECONDS / 0.05)):
            self.pid = self._first()
            if self.pid and self.run("systemctl", "is-system-running").stdout.strip() == "running":
                return self
            if self._outer.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"it did not boot: {self.said()}")

    def _read(self, console: int) -> None:
        with open(console, "rb") as file, contextlib.suppress(OSError):  # EIO at its end
            for line in file:
                self.log.append(line.decode().rstrip())

    def _first(self) -> int:
        assert self._outer is not None
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        with contextlib.suppress(OSError):
            for pid in map(int, children.read_text().split()):
                if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return pid
        return 0

    def run(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """A command in that system."""
        enter = ["nsenter", f"--target={self.pid}", "--all", "--root"]
        path = f"PATH={BIN}:/usr/sbin:/usr/bin"
        modules = f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}"
        return subprocess.run(
            [*enter, "env", "-i", "--chdir=/", path, modules, f"SYSTEMD_UNIT_PATH={UNITS}", *words],
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def do(self, *words: str) -> str:
        """The same, which has to succeed and to be followed by all that it sets off."""
        done = self.run(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{self.said()}"
        self.settle()
        return done.stdout.strip()

    def said(self) -> str:
        """The last that process 1 has said, for who looks into a failure."""
        return "\n".join(["", *self.log[-20:]])

    def settle(self) -> None:
        """Wait until process 1 has nothing more to do."""
        jobs = ("systemctl", "list-jobs")
        self.until(lambda: "No jobs" in self.run(*jobs).stdout, "end of its jobs")

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait for something that process 1 tells."""
        for _ in range(int(PATIENCE_SECONDS / 0.05)):
            if true():
                return
            time.sleep(0.05)
        raise AssertionError(f"there was no {what}: {self.said()}")

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", f"--property={name}", "--value", unit).stdout.strip()

    def end(self) -> None:
        """Whatever happened: no process, no mount, no control group."""
        if self._outer is not None:
            self._abort()
            self._outer.kill()
            self._outer.wait(30)
            self._reader.join(30)
        for group in self._groups:
            for path, _, _ in os.walk(group, topdown=False):
                _remove(Path(path))

    def _abort(self) -> None:
        """Let nobody wait for its FUSE mounts: a service that leaves last would for ever."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines():
                before, _, after = line.partition(" - ")
                if after.startswith("fuse"):
                    number = before.split()[2].partition(":")[2]
                    with contextlib.suppress(FileNotFoundError):
                        Path("/sys/fs/fuse/connections", number, "abort").write_text("1")


def _remove(group: Path) -> None:
    for _ in range(int(PATIENCE_SECONDS / 0.05)):
        with contextlib.suppress(FileNotFoundError):
            try:
                group.rmdir()
            except OSError:  # the last process is still on its way out
                time.sleep(0.05)
                continue
        return
