"""Two hosts for what people type at a root prompt: roots of their own, and storage in common.

Each is a mount and a pid namespace whose root has all of this machine's directories but those that
the manual speaks of, which are its own, in memory. So commands can be typed word for word, and
nothing outlives the host's first process.
"""

import contextlib
import os
import pty
import re
import subprocess
import threading
from pathlib import Path

from hang import PATIENCE_SECONDS, WATCHDOG
from loaded import BIN

OWN = ("srv", "mnt", "data", "snapshot", "prod", "copy", "home")
SHARED = ("san", "backup")
ROOT = Path(__file__).resolve().parents[3]

_BEGIN = r"""
set -e
mount --make-rprivate /
mount -t tmpfs root "$NEW"
cd "$NEW"
for entry in /*; do
    name=${entry#/}
    case " $OWN $SHARED proc " in *" $name "*) continue ;; esac
    if [ -L "$entry" ]; then cp -P "$entry" .
    elif [ -d "$entry" ]; then mkdir "$name"; mount --rbind "$entry" "$name"; fi
done
mkdir -p $OWN $SHARED proc old
for name in $SHARED; do mount --bind "$PLACE/$name" "$name"; done
mkdir -p ".$CHECKOUT"
mount --rbind "$CHECKOUT" ".$CHECKOUT"
mkdir -p ".$PLACE"
mount --bind "$PLACE" ".$PLACE"
mount -t proc proc proc
pivot_root . old
umount -l /old
mount -t tmpfs run /run
mount -t tmpfs lib /var/lib
mkdir -p /run/iifuse
cd /
echo ready
exec sleep infinity
"""

SYSTEMCTL = """#!/bin/sh
# What systemd does for iifuse@prod, with the settings that iifuse(8) shows.
case "$*" in
    "start iifuse@prod")
        mkdir -p /mnt/ii
        iifuse --daemon --log /run/iifuse.log --state /var/lib/iifuse/prod \\
            --socket /run/iifuse/control.sock -o stop_wait=5 /mnt/ii ;;
    "stop iifuse@prod")
        pid=$(pgrep -f "[b]in/iifuse .*--state /var/lib/iifuse/prod") && kill $pid || exit
        while readlink /proc/$pid/exe >/dev/null; do sleep 0.05; done ;;  # nobody reaps it here
    *) echo "systemctl: unexpected: $*" >&2; exit 9 ;;
esac
"""


class Host:
    """`type` runs a line as root's shell would."""

    def __init__(self, name: str, place: Path) -> None:
        root, shims = place / f"root.{name}", place / "bin"
        root.mkdir()
        shims.mkdir(exist_ok=True)
        for shared in SHARED:
            (place / shared).mkdir(exist_ok=True)
        systemctl = shims / "systemctl"
        systemctl.write_text(SYSTEMCTL)
        systemctl.chmod(0o755)
        self.name = name
        self._env = {
            "PATH": f"{shims}:{BIN}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "TERM": "dumb",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }
        made = {
            "NEW": str(root), "PLACE": str(place), "CHECKOUT": str(ROOT),
            "OWN": " ".join(OWN), "SHARED": " ".join(SHARED),
        }  # fmt: skip
        self._first = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _BEGIN],
            env={**self._env, **made},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._first.stdout is not None
        assert self._first.stdout.readline() == "ready\n"
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children").read_text()
        self._inside = children.split()[0]

    def _words(self, line: str) -> list[str]:
        enter = ["nsenter", "-t", self._inside, "-m", "-p", "--"]
        return [*enter, "bash", "-c", f"cd /root\n{line}"]

    def type(self, line: str, answer: str = "") -> str:
        """Everything that it has said; the exit code has to be 0. `answer`: typed by the user."""
        WATCHDOG.feed()
        code, said = self.try_to(line, answer)
        assert code == 0, f"{self.name}# {line}\n{said}"
        return said

    def try_to(self, line: str, answer: str = "") -> tuple[int, str]:
        """(exit code, what was said)"""
        if answer:
            return self._on_terminal(line, answer)
        done = subprocess.run(
            self._words(line),
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        return done.returncode, done.stdout

    def _on_terminal(self, line: str, answer: str) -> tuple[int, str]:
        outer, inner = pty.openpty()
        process = subprocess.Popen(
            self._words(line), env=self._env, stdin=inner, stdout=inner, stderr=inner
        )
        os.close(inner)
        os.write(outer, answer.encode())
        said: list[bytes] = []
        reader = threading.Thread(target=_drain, args=(outer, said))
        reader.start()
        code = process.wait(PATIENCE_SECONDS)
        reader.join(PATIENCE_SECONDS)
        os.close(outer)
        return code, b"".join(said).decode().replace("\r\n", "\n")

    def end(self) -> None:
        """In order as far as that goes; then everything in it is gone.

        The service goes first: as the last process of its namespace it would unmount, at its end, a
        loop device that asks itself.
        """
        for line in ("umount /data /snapshot", "pkill -9 -f '[b]in/iifuse '"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.try_to(line)
        self._first.kill()
        self._first.wait(PATIENCE_SECONDS)


def _drain(fd: int, into: list[bytes]) -> None:
    with contextlib.suppress(OSError):  # how a terminal ends
        while data := os.read(fd, 4096):
            into.append(data)


def squeezed(text: str) -> str:
    """White space counts as one blank: pages break lines where they must."""
    return re.sub(r"\s+", " ", text).strip()
