"""Row 11: a database on a file system on a loop device on the mount."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hang import PATIENCE_SECONDS
from postgres import Server

from .contenders import marked_set, qemu
from .figures import OURS, Case
from .place import MIB, Place

SCALE_BYTES = 16 * MIB
"""What pgbench's tables and indexes take for each step of its scale."""
SPARE_BYTES = 448 * MIB
"""For the empty cluster, its log, and the file system itself."""
CLIENTS = 4
THREADS = 2
SETTINGS = """
listen_addresses = ''
max_connections = 20
shared_buffers = 128MB
max_wal_size = 256MB
recovery_init_sync_method = syncfs
"""


def pgbench(place: Place) -> list[Case]:
    """Row 11: over the mounted master, over the raw file, and over qemu's export.

    qemu's export corrupts what a loop device with direct I/O writes; so its pair has none.
    """
    bench = _Database(place)
    what = f"pgbench, scale {place.scale.bench_scale}, {CLIENTS} clients, ext4 on loop"
    return [
        Case(
            11, f"{what} with direct I/O", "transactions/s",
            {
                OURS: bench.contender("ours", bench.mounted, direct=True),
                "raw file": bench.contender("raw", lambda path: path, direct=True),
            },
            {"raw file": 0.7},
        ),
        Case(
            11, f"{what} without direct I/O", "transactions/s",
            {
                OURS: bench.contender("ours-cached", bench.mounted, direct=False),
                "qemu": bench.contender("qemu", lambda path: qemu(place, path), direct=False),
            },
            {"qemu": 1.2},
        ),
    ]  # fmt: skip


class _Cluster(Server):
    """A database cluster on a mounted file system; one of them runs at a time."""

    def __init__(self, root: Path, mounted: Path) -> None:
        super().__init__(root)
        self.data = mounted / "pg"

    def initialise(self, scale: int) -> None:
        """A new cluster with pgbench's tables; it is not running afterwards."""
        self.run("initdb", "-D", self.data, "--auth=trust", "--no-instructions", "--no-sync")
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(SETTINGS)
        self.start()
        try:
            words = ("--initialize", "--quiet", f"--scale={scale}", "postgres")
            self.run("pgbench", "-h", self.socket, *words)
        finally:
            self.stop()

    def transactions(self, seconds: float) -> float:
        """Transactions a second of one run, after a checkpoint."""
        self.run("psql", "-h", self.socket, "-qc", "CHECKPOINT", "postgres")
        words = ("-c", CLIENTS, "-j", THREADS, "-T", round(seconds), "postgres")
        said = self.run("pgbench", "-h", self.socket, *words)
        found = re.search(r"^tps = ([\d.]+)", said, re.MULTILINE)
        assert found, said
        return float(found[1])


class _Database:
    """One image of a file system with a cluster; every contender has a copy of its own."""

    def __init__(self, place: Place) -> None:
        assert place.scale.bench_seconds < PATIENCE_SECONDS
        self.place = place
        self.root = place.disk / "pg"
        self.root.mkdir()
        place.disk.chmod(0o711)  # the server is not root
        self.service = place.service("database")
        self.image = place.disk / "image"
        self._make_image(place.scale.bench_scale)

    def _make_image(self, scale: int) -> None:
        with open(self.image, "wb") as file:
            file.truncate(scale * SCALE_BYTES + SPARE_BYTES)
        self.place.run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", self.image)
        with self._cluster(self.image, direct=False) as cluster:
            cluster.initialise(scale)

    @contextmanager
    def _cluster(self, file: Path, *, direct: bool) -> Iterator[_Cluster]:
        """A cluster that is not running, on a loop device that goes with it."""
        with ExitStack() as stack:
            here = Place(self.place.memory, self.place.disk, stack, self.place.scale)
            device = here.loop(file, *(["--direct-io=on"] if direct else []))
            mounted = here.mount(device, f"{file.name}.ext4")
            mounted.chmod(0o777)
            cluster = _Cluster(self.root, mounted)
            stack.callback(cluster.kill)
            yield cluster

    def mounted(self, path: Path) -> Path:
        """The master of an idle independent set, all chunks marked, as the mount shows it."""
        return marked_set(self.service, path, self.place.disk)

    def contender(
        self, name: str, present: Callable[[Path], Path], *, direct: bool
    ) -> Callable[[], float]:
        """One run on the contender's own copy of the image, as `present` shows it."""
        image = self.place.disk / name
        self.place.run("cp", "--sparse=never", "--reflink=never", self.image, image)
        file = present(image)

        def measure() -> float:
            self.place.run("sync")
            with self._cluster(file, direct=direct) as cluster:
                cluster.start()
                found = cluster.transactions(self.place.scale.bench_seconds)
                cluster.stop()
            return found

        return measure
