"""Programs whose standard streams were closed, as `>&-` does: no traceback, the right exit code."""

import os
import subprocess

import pytest
from harness import BIN, CHUNK, Service
from samples import sample

READS = (
    "iiadm -l", "iiadm -i", "iiadm -i --json", "iiadm -g -L", "iiadm -h", "iiadm --version",
    "svadm -i", "iibitmap size 1G", "iiresync --help",
)  # fmt: skip
"""Whose result is what they print."""
SILENT = ("iiadm -u S", "iiadm -w S", "iiadm -a S", "iiadm -R S", "svadm -e M")
REFUSED = ("iiadm -u /gone", "iiadm -u", "iijoin /gone", "iiverify /gone", "iiadm -u m S")
EXPECTED = {">&-": (2, 0), "<&-": (0, 0), "2>&-": (0, 0)}
"""Exit code of what reads, and of what is silent."""
CASES = [
    *((f"{command} {closed}", code[0]) for command in READS for closed, code in EXPECTED.items()),
    *((f"{command} {closed}", code[1]) for command in SILENT for closed, code in EXPECTED.items()),
    *((f"{command} {closed}", None) for command in REFUSED for closed in EXPECTED),
]


@pytest.fixture
def shadow(service, volume, place):
    service.enable("ind", volume("M", 5 * CHUNK), place / "S", group="G")
    service.wait(place / "S")
    return place / "S"


@pytest.mark.finding("K15.13")
@pytest.mark.parametrize(("line", "code"), sample(CASES, 12, "closed streams"))
def test_closed_stream_is_no_defect(service, shadow, line, code):
    line = line.replace(" S", f" {shadow}").replace(" M", f" {shadow.with_name('M')}")
    done = subprocess.run(
        ["sh", "-c", f"{BIN}/{line}"], env={**os.environ, "IIFUSE_SOCKET": str(service.socket)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert not any(word in said for word in ("Traceback", "Error", "defect", "NoneType")), said
    assert done.returncode == code if code is not None else done.returncode in (1, 2), said
    if done.returncode == 2 and ">&-" in line.replace("2>&-", ""):
        assert "standard output: is closed" in said or code is None


def test_service_with_closed_streams_keeps_their_numbers_from_its_volumes(place, volume):
    """Or what a library prints would go into a volume."""
    service = Service(place, "closed")
    words = service.command()
    service.command = lambda: ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words]
    try:
        service.start()
        service.enable("ind", volume("m", 5 * CHUNK), place / "s")
        links = [os.readlink(f"/proc/{service.pid}/fd/{number}") for number in (0, 1, 2)]
        assert links == ["/dev/null"] * 3
        assert service.stop() == 0
    finally:
        service.clean_up()
