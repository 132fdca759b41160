"""A test that hangs is ended, whatever it waits for, and leaves neither program nor mount."""

import os
import signal
import subprocess
import sys

import pytest
from devices import eventually
from hang import PREFIX, WATCHDOG, mounts
from harness import BIN

# It takes a request that a thread of its own has sent, and answers nothing but the first, INIT.
_WAITS_FOR_ITSELF = """
import ctypes, os, struct, sys, threading, time
fuse = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
assert ctypes.CDLL(None).mount(b"own", sys.argv[1].encode(), b"fuse", 0, options) == 0
unique = struct.unpack_from("<IIQ", os.read(fuse, 1 << 20))[2]
os.write(fuse, struct.pack("<IiQ", 80, 0, unique) + struct.pack("<IIIIHHI40x", 7, 31, 0, 0, 9, 9, 4096))
threading.Thread(target=os.stat, args=(sys.argv[1],), daemon=True).start()
os.read(fuse, 1 << 20)
print("waits", flush=True)
time.sleep(3600)
"""  # noqa: E501


def let_time_run_out():
    WATCHDOG.watch(0.1)


def test_reader_of_a_service_that_stands_still_is_freed(service, disk):
    _, file = disk()
    os.kill(service.pid, signal.SIGSTOP)
    let_time_run_out()
    with pytest.raises(OSError):  # which one says how far the request had come
        file.read_bytes()
    assert service.process.wait(30) == -signal.SIGKILL


def test_program_that_waits_for_its_own_mount_is_freed(place):
    """No signal ends it, and no unmount: its connection has to be aborted."""
    (place / "mnt").mkdir()
    words = [sys.executable, "-c", _WAITS_FOR_ITSELF, place / "mnt"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as program:
        assert program.stdout.readline() == b"waits\n"
        program.kill()
        let_time_run_out()
        assert program.wait(30) == -signal.SIGKILL
    eventually(lambda: len(mounts(f"{place}/")) == 1, "the mount, dead")


def test_run_that_is_killed_leaves_nothing_behind(place):
    """The watchdog outlives the run that it watches."""
    code = f"""
import os, signal, sys, tempfile
sys.path[:0] = {sys.path!r}
from hang import PREFIX, WATCHDOG
from pathlib import Path
from harness import Service
WATCHDOG.watch()
print(PREFIX, Service(Path(tempfile.mkdtemp(prefix=PREFIX, dir={str(place)!r}))).start().pid)
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [BIN / "python", "-c", code], stdout=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    prefix, pid = done.stdout.split()
    assert prefix != PREFIX
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), "the service ends")
    eventually(lambda: not mounts(prefix), "no mount")
