"""What the real service does to its files, out of strace's log.

`replay` also keeps what every file holds; whoever records compares that with the real files at the
end, so that a call which the log lacks, or which is not understood here, fails the test.
"""

import codecs
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from crash_disk import Sync, Write
from crash_unsynced import FailedSync, Resize
from fs_log import DIRECTORY, DirectorySync, Entries, Event, FullSync
from stamps import SECTOR

CALLS = (
    "openat,open,creat,write,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,"
    "fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,sync_file_range"
)

PLANTED = "sync_file_range"
"""fault_shim.c makes this call, with flags that do not exist, where it lets a sync fail."""


def tracer(log: str) -> tuple[str, ...]:
    """The command that runs another one and writes down its calls; the process stays its own."""
    how = ["-D", "-f", "--seccomp-bpf", "-q", "-y", "-s", "4194304", "--syscall-times=ns"]
    times = "--absolute-timestamps=format:unix,precision:ns"
    return ("strace", *how, times, "-e", f"trace={CALLS}", "-o", log)


@dataclass(frozen=True)
class Call:
    """A call that went well. `began`, `ended`: in nanoseconds."""

    began: int
    ended: int
    name: str
    words: str
    """The arguments as strace writes them."""
    result: str


_LINE = re.compile(r"(\d+) +(\d+)\.(\d{9}) (.*)", re.DOTALL)
_END = re.compile(r"(.*)\) += (\S+).* <(\d+)\.(\d{9})>", re.DOTALL)
_CUT = " <unfinished ...>"


def calls(text: str) -> Iterator[Call]:
    """The calls of a log that went well, and what stands for a planted failure."""
    cut: dict[str, tuple[int, str]] = {}
    for line in text.split("\n"):
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        thread, at, rest = found[1], int(found[2] + found[3]), found[4]
        if rest.endswith(_CUT):
            cut[thread] = (at, rest.removesuffix(_CUT))
            continue
        if rest.startswith("<... "):
            began, first = cut.pop(thread)
            whole = _call(began, first + rest.partition(" resumed>")[2])
        else:
            whole = _call(at, rest)
        if whole is not None:
            yield whole


def _call(began: int, text: str) -> Call | None:
    name, _, rest = text.partition("(")
    end = _END.fullmatch(rest)
    if end is None or end[2] == "?" or (end[2] == "-1" and name != PLANTED):
        return None
    return Call(began, began + int(end[3] + end[4]), name, end[1], end[2])


def unquoted(text: str) -> bytes:
    """What stands between strace's quotation marks."""
    return codecs.escape_decode(text.encode("latin-1"))[0]  # type: ignore[attr-defined,no-any-return]


_FD = re.compile(r"(\d+|AT_FDCWD)<([^>]*)>")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass
class Replay:
    """Files by number, names, and the events that calls amount to. `root`: all else is ignored."""

    root: str
    events: list[Event] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """When each event was over."""
    files: dict[int, bytearray] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    left_out: str = "(?!)"
    """Pattern of paths below the root on which nobody relies."""
    devices: dict[str, str] = field(default_factory=dict)
    """Nodes of block devices, and the links below the root by which they are volumes."""
    _unnamed: dict[str, int] = field(default_factory=dict)
    _offsets: dict[tuple[str, str], int] = field(default_factory=dict)

    def add_file(self, path: str, data: bytes) -> None:
        """A file that is there at the beginning, durably."""
        self.names[path] = self._new(data)

    def _new(self, data: bytes = b"") -> int:
        number = len(self.files) + 1
        self.files[number] = bytearray(data)
        return number

    def position(self, time_ns: int) -> int:
        """How many events were over at a moment."""
        return bisect_right(self.ends, time_ns)

    def run(self, found: Iterable[Call]) -> "Replay":
        for call in sorted(found, key=lambda call: call.ended):
            act = getattr(self, f"_do_{call.name}", None)
            if act is None:
                assert self.root not in call.words, f"what does {call} do?"
            else:
                act(call)
        return self

    def _add(self, call: Call, event: Event) -> None:
        self.events.append(event)
        self.ends.append(call.ended)

    def _path(self, call: Call) -> str:
        """Which file the call's descriptor means; a device by the name that a link gives it."""
        found = _FD.match(call.words)
        return self.devices.get(found[2], found[2]) if found else ""

    def _concerns(self, path: str) -> bool:
        return path.startswith(f"{self.root}/") and not re.search(self.left_out, path)

    def _file(self, path: str) -> int | None:
        """The number of an open file, by the name that the kernel has for it."""
        return self._unnamed.get(path) or self.names.get(path)

    # -- what files hold --------------------------------------------------------------------

    def _put(self, call: Call, path: str, offset: int, data: bytes) -> None:
        number = self._file(path)
        assert number, f"a write to an unknown file: {path}"
        cache, stop = self.files[number], offset + len(data)
        cache.extend(bytes(max(0, stop - len(cache))))
        cache[offset:stop] = data
        start, stop = offset - offset % SECTOR, stop + -stop % SECTOR
        self._add(call, Write(number, start, bytes(cache[start:stop])))

    def _do_pwrite64(self, call: Call) -> None:
        path = self._path(call)
        if self._concerns(path):
            text, _, numbers = call.words.partition('"')[2].rpartition('", ')
            data, offset = unquoted(text), int(numbers.split(", ")[1])
            self._put(call, path, offset, data[: int(call.result)])

    def _do_write(self, call: Call) -> None:
        path = self._path(call)
        if self._concerns(path):
            key = (call.words.partition("<")[0], path)
            data = unquoted(call.words.partition('"')[2].rpartition('", ')[0])
            self._put(call, path, self._offsets.get(key, 0), data[: int(call.result)])
            self._offsets[key] = self._offsets.get(key, 0) + int(call.result)

    def _do_ftruncate(self, call: Call) -> None:
        if self._concerns(self._path(call)):
            self._resize(call, self._path(call), int(call.words.rpartition(", ")[2]))

    def _resize(self, call: Call, path: str, size: int) -> None:
        number = self._file(path)
        assert number, f"the size of an unknown file: {path}"
        cache = self.files[number]
        del cache[size:]
        cache.extend(bytes(size - len(cache)))
        self._add(call, Resize(number, size))

    def _do_fallocate(self, call: Call) -> None:
        path = self._path(call)
        if not self._concerns(path):
            return
        _, mode, offset, length = call.words.rsplit(", ", 3)
        if "ZERO_RANGE" in mode or "PUNCH_HOLE" in mode:
            self._put(call, path, int(offset), bytes(int(length)))
        elif mode == "0":
            size = max(int(offset) + int(length), len(self.files[self._file(path) or 0]))
            self._resize(call, path, size)

    def _do_fsync(self, call: Call) -> None:
        path, began = self._path(call), self.position(call.began)
        if not self._concerns(path):
            return
        number = self._file(path)
        if number:
            kind = FullSync if call.name == "fsync" else Sync
            self._add(call, kind(number, began))
        else:
            self._add(call, DirectorySync(path, began))

    _do_fdatasync = _do_fsync

    def _do_sync_file_range(self, call: Call) -> None:
        """A sync that has failed; one that did not promises nothing."""
        number = self._file(self._path(call))
        if call.result == "-1" and number:
            self._add(call, FailedSync(number))

    # -- names ------------------------------------------------------------------------------

    def _do_openat(self, call: Call) -> None:
        opened = _FD.match(call.result)
        if opened is None or not self._concerns(opened[2]):
            return
        path = opened[2]
        self._offsets.pop((opened[1], path), None)
        if "O_TMPFILE" in call.words:
            self._unnamed[path] = self._new()
        elif "O_CREAT" in call.words and path not in self.names:
            self._enter(call, path, self._new())
        elif "O_TRUNC" in call.words:
            self._resize(call, path, 0)

    _do_open = _do_openat

    def _enter(self, call: Call, path: str, number: int | None) -> None:
        self._change(call, ((path, number),))

    def _change(self, call: Call, changes: tuple[tuple[str, int | None], ...]) -> None:
        for path, number in changes:
            if number is None:
                del self.names[path]
            else:
                self.names[path] = number
        self._add(call, Entries(changes))

    def _do_linkat(self, call: Call) -> None:
        source, target = _strings(call)
        if self._concerns(target):
            opened = _FD.match(call.words)
            number = self._file(opened[2] if opened else source)
            assert number, f"a link to an unknown file: {call}"
            self._enter(call, target, number)

    def _do_rename(self, call: Call) -> None:
        old, new = _strings(call)
        if not self._concerns(new):
            return
        number = self.names[old]
        if os.path.dirname(old) == os.path.dirname(new):
            self._change(call, ((old, None), (new, number)))
        else:
            self._enter(call, new, number)
            self._enter(call, old, None)

    _do_renameat = _do_renameat2 = _do_rename

    def _do_unlink(self, call: Call) -> None:
        (path,) = _strings(call)
        if self._concerns(path):
            self._enter(call, path, None)

    _do_unlinkat = _do_rmdir = _do_unlink

    def _do_mkdir(self, call: Call) -> None:
        (path,) = _strings(call)
        if self._concerns(path):
            self._enter(call, path, DIRECTORY)

    _do_mkdirat = _do_mkdir


def _strings(call: Call) -> tuple[str, ...]:
    return tuple(os.fsdecode(unquoted(text)) for text in _STRING.findall(call.words))
