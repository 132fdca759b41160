"""Ours and the peers: each presents a volume as a file."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from harness import Service

from .place import Place

START_SECONDS = 20.0


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for a program of others, which tells nobody when it is ready."""
    deadline = time.monotonic() + START_SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)


def _shows(path: Path, size: int) -> bool:
    try:
        return os.stat(path).st_size == size
    except OSError:
        return False


def write_all(path: Path) -> None:
    """Write every chunk of a file once, so that all are marked, with the bytes that it has."""
    with open(path, "r+b", buffering=0) as file:
        for at in range(0, os.stat(path).st_size, 1 << 20):
            data = os.pread(file.fileno(), 1 << 20, at)
            os.pwrite(file.fileno(), data, at)


def marked_set(service: Service, master: Path, directory: Path) -> Path:
    """An idle independent set with every chunk marked; the master's file on the mount."""
    shadow = directory / f"{master.name}.shadow"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    write_all(service.path(master))
    return service.path(master)


def qemu(place: Place, volume: Path, shadow: Path | None = None) -> Path:
    """qemu-storage-daemon's FUSE export of a volume; with `shadow` and copy-before-write."""
    point = place.disk / f"qemu.{volume.name}.{time.monotonic_ns()}"
    point.touch()
    nodes = [{"driver": "file", "node-name": "volume", "filename": str(volume)}]
    top = "volume"
    if shadow is not None:
        nodes.append({"driver": "file", "node-name": "shadow", "filename": str(shadow)})
        filter_ = {"driver": "copy-before-write", "file": "volume", "target": "shadow"}
        nodes.append({"node-name": "top", **filter_})
        top = "top"
    export = {
        "type": "fuse", "id": "export", "node-name": top,
        "mountpoint": str(point), "writable": True,
    }  # fmt: skip
    words = [w for node in nodes for w in ("--blockdev", json.dumps(node))]
    place.start("qemu-storage-daemon", *words, "--export", json.dumps(export), log="qemu")
    until(lambda: _shows(point, volume.stat().st_size), "qemu-storage-daemon presents its file")
    return point


def nbd(place: Place, volume: Path, *filters: str) -> Path:
    """The file plugin of nbdkit behind nbdfuse."""
    tag = f"nbd.{volume.name}.{time.monotonic_ns()}"
    socket, point = place.disk / f"{tag}.sock", place.disk / tag
    point.mkdir()
    words = [w for name in filters for w in ("--filter", name)]
    place.start("nbdkit", "-f", "-U", socket, *words, "file", volume, log="nbdkit")
    until(socket.exists, "nbdkit listens")
    place.start("nbdfuse", point / "volume", "--unix", socket, log="nbdfuse")
    until(lambda: _shows(point / "volume", volume.stat().st_size), "nbdfuse presents its file")
    return point / "volume"
