"""Backup programs that go by a file's times, each as its users run it every night.

`night()` makes one backup and says whether the program read the file again; `kept()` is what the
last backup has of it.
"""

import json
import os
import subprocess
from pathlib import Path

SECONDS = 120


def _run(*words: object, env: dict[str, str] | None = None, text: bool = True) -> str | bytes:
    done = subprocess.run(
        list(map(str, words)), env={**os.environ, **(env or {})}, capture_output=True,
        stdin=subprocess.DEVNULL, check=False, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, (words, done.stderr.decode()[-2000:])
    return done.stdout.decode() if text else done.stdout


class Program:
    """`home`: a directory for repository and caches; `file`: what is backed up."""

    def __init__(self, home: Path, file: Path) -> None:
        self.home, self.file, self.nights = home, file, 0
        home.mkdir()

    def night(self) -> bool:
        self.nights += 1
        return self.back_up()

    def back_up(self) -> bool:
        raise NotImplementedError

    def kept(self) -> bytes:
        raise NotImplementedError


class Rsync(Program):
    """`rsync -a`: size and modification time, of which it looks at whole seconds unless told."""

    def back_up(self) -> bool:
        words = "-a", "--modify-window=-1", "--out-format=sent %n"
        said = _run("rsync", *words, self.file, f"{self.home}/")
        return f"sent {self.file.name}" in said.splitlines()

    def kept(self) -> bytes:
        return (self.home / self.file.name).read_bytes()


class Tar(Program):
    """`tar --listed-incremental`: what has moved since the last night began.

    The number of a FUSE mount's device is another one after each start: --no-check-device.
    """

    def back_up(self) -> bool:
        archive = self.home / f"{self.nights}.tar"
        _run(
            "tar", f"--listed-incremental={self.home}/snapshot", "--no-check-device", "-C",
            self.file.parent, "-cf", archive, self.file.name,
        )  # fmt: skip
        return self.file.name in _run("tar", "-tf", archive).splitlines()

    def kept(self) -> bytes:
        for number in range(self.nights, 0, -1):
            archive = self.home / f"{number}.tar"
            if self.file.name in _run("tar", "-tf", archive).splitlines():
                return _run("tar", "-xOf", archive, self.file.name, text=False)
        raise AssertionError("no archive has the file")


class Restic(Program):
    """Modification time, change time, size and inode number."""

    def __init__(self, home: Path, file: Path) -> None:
        super().__init__(home, file)
        self.env = {
            "RESTIC_PASSWORD": "secret", "RESTIC_REPOSITORY": f"{home}/repository",
            "RESTIC_CACHE_DIR": f"{home}/cache",
        }  # fmt: skip
        _run("restic", "init", env=self.env)

    def back_up(self) -> bool:
        said = _run("restic", "backup", "--json", self.file, env=self.env)
        (summary,) = [
            line for line in map(json.loads, said.splitlines()) if line["message_type"] == "summary"
        ]
        return summary["files_unmodified"] == 0

    def kept(self) -> bytes:
        return _run("restic", "dump", "latest", self.file, env=self.env, text=False)


class Borg(Program):
    """Change time, size and inode number.

    It never trusts its cache for the newest file of a backup; another one is made newer.
    """

    def __init__(self, home: Path, file: Path) -> None:
        super().__init__(home, file)
        self.env = {
            "BORG_REPO": f"{home}/repository", "BORG_BASE_DIR": f"{home}/base",
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }  # fmt: skip
        _run("borg", "init", "--encryption=none", env=self.env)

    def back_up(self) -> bool:
        newer = self.home / "newer"
        newer.write_text(str(self.nights))
        done = subprocess.run(
            ["borg", "create", "--list", f"::{self.nights}", self.file, newer],
            env={**os.environ, **self.env}, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, check=False, timeout=SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (status,) = [
            line.split()[0] for line in done.stderr.splitlines()
            if line.endswith(str(self.file).lstrip("/"))
        ]  # fmt: skip
        return status != "U"

    def kept(self) -> bytes:
        words = "--stdout", f"::{self.nights}", str(self.file).lstrip("/")
        return _run("borg", "extract", *words, env=self.env, text=False)


PROGRAMS = {"rsync": Rsync, "tar": Tar, "restic": Restic, "borg": Borg}
