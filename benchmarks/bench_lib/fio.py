"""One run of fio on one file."""

import json
import os
import subprocess
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Work:
    """What fio does. `block` as fio spells it; `depth` > 1 means libaio, else one call at a time.

    It ends after `seconds`, or after `count` requests of each job, or at the end of the file.
    """

    rw: str
    block: str = "4k"
    depth: int = 1
    jobs: int = 1
    direct: bool = True
    seconds: float | None = None
    count: int | None = None
    words: tuple[str, ...] = ()
    seed: int = 1

    def command(self, path: str) -> list[str]:
        """The command line."""
        engine = ["--ioengine=libaio", f"--iodepth={self.depth}"] if self.depth > 1 else []
        end = [f"--runtime={self.seconds * 1000:.0f}ms", "--time_based"] if self.seconds else []
        end += [f"--number_ios={self.count}"] if self.count else []
        return [
            "fio", "--name=bench", f"--filename={path}", f"--rw={self.rw}", f"--bs={self.block}",
            f"--direct={int(self.direct)}", f"--numjobs={self.jobs}", "--group_reporting",
            "--allow_file_create=0", "--invalidate=0", "--fallocate=none", "--thread",
            f"--size={os.path.getsize(path)}", f"--randseed={self.seed}", "--randrepeat=0",
            *(engine or ["--ioengine=psync"]), *end, *self.words, "--output-format=json",
        ]  # fmt: skip

    def run(self, path: str) -> dict[str, Any]:
        """What fio reports of the job. Raises CalledProcessError."""
        done = subprocess.run(  # noqa: S603
            self.command(path), check=True, capture_output=True, text=True
        )
        job: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
        return job

    def iops(self, path: str) -> float:
        """Requests a second."""
        return float(self._of(path)["iops"])

    def mib_s(self, path: str) -> float:
        """MiB a second."""
        return float(self._of(path)["bw_bytes"]) / (1 << 20)

    def _of(self, path: str) -> dict[str, Any]:
        side = "read" if "read" in self.rw else "write"
        found: dict[str, Any] = self.run(path)[side]
        return found
