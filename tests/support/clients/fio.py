"""fio: several writers on each file, direct and buffered, and every byte verified by crc32c.

What a round has written to a file can be verified later, in a new process, also on another file
that must have the same content.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hang import PATIENCE_SECONDS

KIB, MIB = 1 << 10, 1 << 20
JOBS = 4
JOB_BYTES = 3 * MIB + 12 * KIB
"""Of each job, one after the other: neighbours meet in the middle of a chunk."""

HALF_BYTES = 16 * MIB
"""Where the second place of a file for a round of jobs begins."""

VOLUME_BYTES = 2 * HALF_BYTES + 12_345

_GLOBAL = """
[global]
rw=randwrite
bsrange=4k-64k
verify=crc32c
verify_fatal=1
fsync=16
end_fsync=1
allow_file_create=0
fallocate=none
invalidate=0
thread=0
"""


@dataclass(frozen=True)
class Written:
    """What a round wrote to a file: `seed` says which blocks, and `half` where."""

    seed: int
    half: int = 0

    def jobs(self, file: Path, *, turned: bool = False) -> str:
        """Every other job is direct, with several requests under way; `turned`: the others."""
        return "".join(
            f"[{file.name}-{self.half}-{number}-{turned:d}]\n"
            f"filename={file}\nrandseed={self.seed + number}\n"
            f"offset={self.half * HALF_BYTES + number * JOB_BYTES}\nsize={JOB_BYTES}\n"
            + ("ioengine=libaio\niodepth=4\ndirect=1\n" if (number % 2) ^ turned else _BUFFERED)
            for number in range(JOBS)
        )


_BUFFERED = "ioengine=psync\ndirect=0\n"


class Fio:
    """One run of fio, begun; `finish` says whether all is well."""

    def __init__(self, home: Path, name: str, jobs: str, *options: str) -> None:
        file = home / f"{name}.fio"
        file.write_text(_GLOBAL + "".join(f"{option}\n" for option in options) + jobs)
        self.process = subprocess.Popen(
            ["fio", "--output-format=json", str(file)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home,
        )  # fmt: skip

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def finish(self) -> None:
        said, errors = self._end()
        assert self.process.returncode == 0, errors + said[-2000:]
        for job in json.loads(said[said.index("{") :])["jobs"]:
            assert job["error"] == 0, f"{job['jobname']}: {job['error']}"
            assert job["read"]["io_bytes"] == JOB_BYTES, f"{job['jobname']} has not verified it all"

    def _end(self) -> tuple[str, str]:
        try:
            return self.process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            self.process.kill()

    def give_up(self) -> None:
        """It may fail: its service is dead."""
        self._end()


class Rounds:
    """Begins runs; knows what was written last to which file."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.last: dict[tuple[Path, int], Written] = {}
        self._number = 0

    def begin(self, *files: Path, half: int = 0) -> Fio:
        """Write to files, and verify on the way."""
        jobs = ""
        for file in files:
            self._number += 1
            self.last[file, half] = written = Written(self._number * 100, half)
            jobs += written.jobs(file)
        return Fio(self.home, f"write{self._number}", jobs, "verify_backlog=32")

    def run(self, *files: Path) -> None:
        self.begin(*files).finish()

    def found(self, file: Path, of: Path | None = None) -> None:
        """A file has what was written last to it, or to `of` at whose place it now stands.

        Read past the page cache and through it, which may hold what the file showed before.
        """
        written = self.last[of or file, 0]
        self._number += 1
        jobs = written.jobs(file) + written.jobs(file, turned=True)
        Fio(self.home, f"verify{self._number}", jobs, "verify_only=1").finish()
        self.last[file, 0] = written
