"""The manual says what the programs do: options, failures and bytes are compared with the code."""

import importlib
import re
import shutil
import struct
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from iifuse import errors, options
from iifuse.control import protocol
from iifuse.core import header as fmt
from iifuse.core import sector, state
from iifuse.core.geometry import Geometry
from iifuse.core.header import BitmapRole, Closure, FileId, Header, Pit, Stamp
from iifuse.core.state import (
    PIT_VERBS,
    Change,
    Custody,
    Kind,
    Policy,
    Progress,
    Role,
    SetState,
    Verb,
)
from iifuse.core.times import Times
from iifuse.units import parse_size

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "man").glob("*.[0-9]"))
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def _page(name: str) -> str:
    return (ROOT / "man" / name).read_text()


def _section(text: str, heading: str, macro: str = "Sh") -> str:
    """The source of a section, up to the next heading of its level or above."""
    _, _, rest = text.partition(f"\n.{macro} {heading}\n")
    assert rest, f"no section {heading}"
    return re.split(r"\n\.Sh " if macro == "Sh" else r"\n\.S[hs] ", rest)[0]


def _rows(text: str) -> list[list[str]]:
    """The cells of a -column list's rows, headings left out."""
    lines = re.findall(r"^\.It (.+ Ta .+)$", text, re.MULTILINE)
    return [line.split(" Ta ") for line in lines if not line.startswith("Em ")]


# -- every page ---------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_man_page_passes_lint(page):
    if not shutil.which("mandoc"):
        pytest.skip("mandoc is not installed")
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_man_page_exists_for_program(script):
    assert (ROOT / "man" / f"{script}.8").is_file()


def test_man_pages_refer_to_pages_that_exist():
    ours = {page.name for page in PAGES}
    for page in PAGES:
        for name, number in re.findall(r"^\.Xr (\S+) (\d)", page.read_text(), re.MULTILINE):
            known = f"{name}.{number}" in ours
            assert known or not re.match(r"ii|svadm", name), f"{page.name}: {name}({number})"


# -- options ------------------------------------------------------------------------------------


def documented_options(text: str) -> set[str]:
    """The options that head an item, those after the first on a line included."""
    found = set()
    for line in re.findall(r"^\.It (.*\bFl .*)$", text, re.MULTILINE):
        found.update(f"--{name}" for name in re.findall(r"\bFl (?:Fl |-)([\w-]+)", line))
        found.update(f"-{name}" for name in re.findall(r"\bFl (\w)(?!\w)", line))
    return found


def test_man_page_options_are_read_from_items():
    text = ".It Fl g Ar GRP Fl m Ar SET\n.It Fl h , Fl Fl help\n.Fl x\n.It Fl -dry-run Ar N\n"
    assert documented_options(text) == {"-g", "-m", "-h", "--help", "--dry-run"}


def _program_options(entry: str) -> set[str]:
    module = importlib.import_module(entry.partition(":")[0])
    if hasattr(module, "options"):
        return set(module.options())
    return {text for action in module.parser()._actions for text in action.option_strings}


@pytest.mark.parametrize("script", SCRIPTS)
def test_man_page_options_are_the_programs(script):
    assert documented_options(_page(f"{script}.8")) == _program_options(SCRIPTS[script])


# -- iifuse(8) ----------------------------------------------------------------------------------


def test_man_page_mount_options_are_the_services():
    page = _section(_page("iifuse.8"), "Mount options", "Ss")
    items = re.findall(r"^\.It Cm (\w+)(?: Ns = Ns (?:Cm|Ar) (\w+))?$", page, re.MULTILINE)
    for name, value in items:
        word = value.replace("SECONDS", "5").replace("PATH", "/srv")
        options.parse_options([f"{name}={word}" if word else name])
    with pytest.raises(errors.UsageError) as refusal:
        options.parse_options(["nonsense"])
    assert {name for name, _ in items} == set(re.findall(r"(?:^|, )(\w+)", refusal.value.todo))


def test_man_page_defaults_are_the_services():
    page = _page("iifuse.8")
    for default in (options.DEFAULT_STATE, protocol.DEFAULT_SOCKET):
        assert f"The default is\n.Pa {default} ." in page
    assert f"{options.Options().stop_wait:g} is the default" in page


# -- iifuse(7) ----------------------------------------------------------------------------------


def test_man_page_lists_every_failure_with_its_exit_code():
    section = _section(_page("iifuse.7"), "DIAGNOSTICS")
    rows = re.findall(r"^\.It (\w+), exit (\d)$", section, re.MULTILINE)
    assert {name: int(code) for name, code in rows} == {
        name: error.exit_code for name, error in errors.BY_NAME.items()
    }


STATES = {
    "idle": {},
    "copying to the shadow": {"progress": Progress.TO_SHADOW, "copying": True},
    "copying to the shadow, aborted": {"progress": Progress.TO_SHADOW},
    "copying to the master": {"progress": Progress.TO_MASTER, "copying": True},
    "copying to the master, aborted": {"progress": Progress.TO_MASTER},
    "exported": {"custody": Custody.EXPORTED},
    "imported": {"custody": Custody.IMPORTED},
}


def _refused(found: SetState) -> set[Verb]:
    refused = set()
    for verb in (*PIT_VERBS, Verb.DISABLE, Verb.EXPORT):
        try:
            state.check("set", found, verb)
        except errors.IifuseError:
            refused.add(verb)
    return refused


def test_man_page_state_table_is_the_codes():
    section = _section(_page("iifuse.7"), "SETS AND THEIR STATES").partition("\n.Ss ")[0]
    table, name = {}, ""
    for first, _, cell in _rows(section):
        name = f"{name}, aborted" if "aborted" in first else first
        words = cell.split(", ")
        table[name] = {v for v in Verb if v in words or v.partition(" ")[0] in words}
    assert table == {
        name: _refused(SetState(Kind.INDEPENDENT, **parts)) for name, parts in STATES.items()
    }


# -- iifuse-bitmap(5) ---------------------------------------------------------------------------


def _fields() -> dict[str, tuple[int, int]]:
    """Name -> first and last byte, of every field but the reserved ones."""
    header = _section(_page("iifuse-bitmap.5"), "HEADER")
    items = re.findall(r"^\.It (\d+)(?:-(\d+))? Va (\S+)$", header, re.MULTILINE)
    return {n: (int(a), int(b or a)) for a, b, n in items if n != "reserved"}


FIELDS = _fields()


def _spans(layout: str, at: int) -> list[tuple[int, int]]:
    """First and last byte of each value of a little-endian struct that begins at `at`."""
    spans = []
    for count, code in re.findall(r"(\d*)([a-zA-Z])", layout):
        repeat = 1 if code in "sx" else int(count or 1)
        size = struct.calcsize(f"<{count}{code}") // repeat
        for _ in range(repeat):
            if code != "x":
                spans.append((at, at + size - 1))
            at += size
    return spans


def test_bitmap_page_fields_lie_where_the_struct_has_them():
    prefix, fixed = fmt._PREFIX, fmt._FIXED
    spans = _spans(prefix.format, 0) + _spans(fixed.format, prefix.size)
    end = prefix.size + fixed.size
    spans.append((end, end + 16 * fmt.JOINED_MAX - 1))
    spans += _spans(fmt._ADDED.format, end + 16 * fmt.JOINED_MAX)
    page = _page("iifuse-bitmap.5")
    reserved = re.findall(r"^\.It (\d+)-(\d+) Va reserved$", page, re.MULTILINE)
    unused = [(int(a), int(b)) for a, b in reserved]
    assert sorted(FIELDS.values()) == [span for span in spans if span not in unused]
    covered = sorted([*FIELDS.values(), *unused])
    assert [a for a, _ in covered] == [0, *(b + 1 for _, b in covered[:-1])]


ONE, OTHER = UUID(int=1), UUID(int=2**128 - 1)
PLAIN = Header(ONE, Kind.INDEPENDENT, 1 << 30, "/m", "/s", "/b", pit=Pit(1, ONE, 1), joined=(ONE,))
CHANGES = {
    "sequence": {"sequence": 2**64 - 1},
    "uuid": {"uuid": OTHER},
    "role": {"role": BitmapRole.IMPORTED},
    "kind": {"kind": Kind.DEPENDENT},
    "progress": {"progress": Progress.TO_MASTER},
    "copying": {"copying": True},
    "custody": {"custody": Custody.IMPORTED},
    "offline": {"offline": Role.SHADOW | Role.OVERFLOW},
    "clean": {"clean": True},
    "process_durability": {"process_durability": True},
    "size_bytes": {"size_bytes": 2**60 - 1},
    "pit.number": {"pit": Pit(2**64 - 1, ONE, 1)},
    "pit.id": {"pit": Pit(1, OTHER, 1)},
    "pit.time_ns": {"pit": Pit(1, ONE, -1)},
    "export_number": {"export_number": 2**64 - 1},
    "import_id": {"import_id": OTHER},
    "boot_id": {"boot_id": OTHER},
    "pending": {"pending": Change.FILL_TO_MASTER},
    "closure": {"closure": Closure.JOINED},
    "restored_offline": {"restored_offline": True},
    "pending_pit.number": {"pending_pit": Pit(number=2**64 - 1)},
    "pending_pit.id": {"pending_pit": Pit(id=OTHER)},
    "pending_pit.time_ns": {"pending_pit": Pit(time_ns=-1)},
    "transition_id": {"transition_id": OTHER},
    "master_stamp.size_bytes": {"master_stamp": Stamp(-1)},
    "master_stamp.mtime_ns": {"master_stamp": Stamp(0, -1)},
    "master_stamp.ctime_ns": {"master_stamp": Stamp(0, 0, -1)},
    "shadow_stamp.size_bytes": {"shadow_stamp": Stamp(-1)},
    "shadow_stamp.mtime_ns": {"shadow_stamp": Stamp(0, -1)},
    "shadow_stamp.ctime_ns": {"shadow_stamp": Stamp(0, 0, -1)},
    "joined": {"joined": (OTHER,)},
    "session": {"session": 2**32 - 1},
    "break_write": {"policy": Policy(break_write=True)},
    "limit_s": {"policy": Policy(limit_s=2**32 - 1)},
    "master_times.mtime_ns": {"master_times": Times(-1)},
    "master_times.ctime_ns": {"master_times": Times(0, -1)},
    "master_times.ceiling_ns": {"master_times": Times(0, 0, -1)},
    "shadow_times.mtime_ns": {"shadow_times": Times(-1)},
    "shadow_times.ctime_ns": {"shadow_times": Times(0, -1)},
    "shadow_times.ceiling_ns": {"shadow_times": Times(0, 0, -1)},
    "master_file.inode": {"master_file": FileId(2**64 - 1)},
    "master_file.birth_ns": {"master_file": FileId(0, -1)},
    "shadow_file.inode": {"shadow_file": FileId(2**64 - 1)},
    "shadow_file.birth_ns": {"shadow_file": FileId(0, -1)},
}
"""Field -> a change of the header that shows in this field only."""


@pytest.mark.parametrize("field", CHANGES)
def test_bitmap_page_field_holds_what_its_name_says(field):
    before, after = fmt.pack(PLAIN), fmt.pack(replace(PLAIN, **CHANGES[field]))
    crc = range(FIELDS["crc"][0], FIELDS["crc"][1] + 1)
    changed = {i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
    changed -= set(crc)
    first, last = FIELDS[field]
    assert changed
    assert changed <= set(range(first, last + 1))


def test_bitmap_page_names_every_field_of_the_header():
    constant = {"magic", "version", "length", "crc", "incompatible", "chunk_bytes", "joined_count"}
    lengths = {f"{name}_length" for name in ("reason", "master", "shadow", "bitmap")}
    assert set(FIELDS) == set(CHANGES) | constant | lengths


def test_bitmap_page_values_are_the_enums():
    text = _section(_page("iifuse-bitmap.5"), "HEADER")
    enums = {"role": BitmapRole, "kind": Kind, "progress": Progress, "custody": Custody,
             "closure": Closure}  # fmt: skip
    for name, enum in enums.items():
        body = re.search(rf" Va {name}\n(.*?)\n\.It ", text, re.DOTALL)[1]
        assert {int(n) for n in re.findall(r"\b(\d):", body)} == set(enum), name
    pending = _rows(_section(_page("iifuse-bitmap.5"), "CHANGES OF WHOLE BITMAPS"))
    assert {(row[0], int(row[2])) for row in pending} == {
        (f"{c.value} {c.name}", c.progress) for c in Change if c
    }


def test_bitmap_page_sizes_are_computed_right():
    rows = _rows(_section(_page("iifuse-bitmap.5"), "How large", "Ss"))
    assert len(rows) >= 4
    for volume, *figures in rows:
        chunks = Geometry(parse_size(volume)).chunks
        sectors = sector.sectors_for(chunks)
        numbers = [int(re.sub(r"\D", "", figure)) for figure in figures]
        assert numbers == [chunks, sectors, sector.bitmap_bytes(chunks)]


def test_bitmap_page_layout_is_the_codes():
    offsets = [row[0] for row in _rows(_section(_page("iifuse-bitmap.5"), "LAYOUT"))[:4]]
    assert offsets == ["0", f"{fmt.SLOT_OFFSETS[1]:,}", f"{sector.HEADER_REGION_BYTES:,}",
                       f"{sector.HEADER_REGION_BYTES:,} + {sector.SECTOR_BYTES} S"]  # fmt: skip
