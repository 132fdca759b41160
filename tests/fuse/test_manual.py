"""What README and manual tell people to type, typed word for word at two root prompts.

`make install` is what the unit's tests try; here the programs lie in PATH. Systemd is played by
`hosts.SYSTEMCTL`, with the settings that iifuse(8) shows.
"""

import re
import threading
import time

import manual
import pytest
from hosts import Host, squeezed
from manual import PAGES, Block

VOLUME_BYTES = 24 << 20
NEEDS_OTHERS = {
    ("iifuse.7", "Logical volumes"): "needs device-mapper",
    ("iibitmap.8", "lvcreate"): "needs device-mapper",
    ("iifuse.8", "systemctl enable"): "test_under_systemd does",
    ("iifuse.8", "systemctl restart"): "test_under_systemd does",
}
"""What cannot be typed here, by page and section or first word, and why."""


@pytest.fixture
def hosts(place):
    """(the application's host, the backup's), which share /san and /backup."""
    with_all = [Host(name, place) for name in ("app", "backup")]
    yield with_all
    for host in with_all:
        host.end()


class Reader:
    """Types the blocks of one page, in their order, and knows which it has typed."""

    def __init__(self, page, hosts):
        (path,) = (path for path in PAGES if path.name == page)
        self.blocks = manual.blocks(path)
        self.hosts = {host.name: host for host in hosts} | {"": hosts[0]}
        self.page, self.typed = page, []

    def next(self, start, *, answer=""):
        """Type the next block, which has to begin with the command `start`; what it has said."""
        block = self.blocks[len(self.typed)]
        assert block.typed[0].command.startswith(start), block
        self.typed.append(block)
        return "".join(self._type(block, answer))

    def leave_out(self, start):
        block = self.blocks[len(self.typed)]
        assert block.typed[0].command.startswith(start), block
        assert any(p == self.page and w in (block.section, start) for p, w in NEEDS_OTHERS)
        self.typed.append(block)

    def _type(self, block: Block, answer):
        for typed in block.typed:
            asks = any("(yes/no)" in line for line in typed.says)
            said = self.hosts[typed.host].type(typed.command, "yes\n" if asks else answer)
            # A terminal shows the answer when it is read, not where it was typed.
            told = squeezed(" ".join(typed.says).removesuffix(" yes"))
            assert re.search(as_it_may_be(told), squeezed(said)), (typed.command, said)
            yield said

    def check_end(self):
        assert self.typed == self.blocks


def as_it_may_be(told):
    """A pattern for what a page shows: with other times and numbers."""
    day = re.compile(r"[A-Z][a-z]{2} [A-Z][a-z]{2} \d+ [\d:]+ \d{4} \S+(?=,)")
    parts = [re.sub(r"\d+", r"\\d+", re.escape(part)) for part in day.split(told)]
    return r"\w+ \w+ +\d+ [\d:]+ \d+ \S+".join(parts)


def make_file_system(host, path):
    host.type(f"mkdir -p $(dirname {path}); truncate -s {VOLUME_BYTES} {path}; mkfs.ext4 -q {path}")


class Writer(threading.Thread):
    """A program that works below /data of a host: it adds a line to a file and syncs it."""

    def __init__(self, host):
        super().__init__()
        self.host, self.stopping = host, threading.Event()
        self.failure = ""

    def run(self):
        code, said = self.host.try_to(
            "n=0; while [ ! -e /data/stop ]; do n=$((n + 1)); echo line $n >> /data/diary;"
            " sync /data/diary; done; rm /data/stop"
        )
        self.failure = said if code else ""

    def stop(self):
        self.host.type("touch /data/stop")
        self.join()
        assert not self.failure, self.failure


@pytest.fixture
def work(hosts):
    """A program at work on the application's host, from the call on; None stops it."""
    running = []

    def start():
        running.append(Writer(hosts[0]))
        running[-1].start()
        return running[-1]

    yield start
    for writer in running:
        hosts[0].try_to("touch /data/stop")
        writer.join(30)


# -- README -----------------------------------------------------------------------------------


def tour():
    (lines,) = manual.fenced((manual.ROOT / "README.md").read_text(), "sh")
    return [[*re.split(r"\s{2,}# ?", line), ""][:2] for line in lines.splitlines()]


def test_tour_fits_a_screen():
    assert len(tour()) <= 20
    assert all(len("  ".join(line)) <= 100 for line in tour())
    assert all(len(line[0]) < 80 for line in tour())


@pytest.mark.finding("K15.1")
def test_tour_brings_back_what_was_there_at_the_point_in_time(hosts, work):
    app, backup = hosts
    make_file_system(app, "/srv/prod/vol01")
    writer, at_rest = None, ""
    for command, about in tour():
        on = hosts if about.startswith("both hosts") else [backup if "other host" in about else app]
        if command == "make install":
            continue
        if command.startswith("umount /data && iiadm -g Backup1 -u m"):
            writer.stop()
            app.type("echo mistake > /data/diary; rm -f /data/precious; sync")
        asks = "yes\n" if "it asks" in about else ""
        for host in on:
            host.type(command, asks)
        if command.startswith("mount") and on == [app] and writer is None:
            app.type("echo treasure > /data/precious")
            writer = work()
            wait_for_lines(app, 3)
        if command.startswith("mount") and on == [backup]:
            at_rest = backup.type("cat /data/diary")
            assert backup.type("cat /data/precious") == "treasure\n"
    assert at_rest.startswith("line 1\nline 2\nline 3\n")
    assert app.type("cat /data/diary") == at_rest
    assert app.type("cat /data/precious") == "treasure\n"


def wait_for_lines(host, count):
    deadline = time.monotonic() + 30
    while int(host.type("cat /data/diary 2>/dev/null | wc -l")) < count:
        assert time.monotonic() < deadline


# -- the procedure ------------------------------------------------------------------------------


@pytest.mark.finding("K15.1")
def test_procedure_of_the_manual_page_works_as_it_stands(hosts, work):
    app, backup = hosts
    page = Reader("iifuse.7", hosts)
    for number in range(1, 6):
        make_file_system(app, f"/srv/production/vol0{number}")
    for host in hosts:
        host.type("systemctl start iifuse@prod; mkdir -p /san/backup")
    app.type("svadm -e /srv/production/vol01; mount -o loop /mnt/ii/srv/production/vol01 /data")
    writer = work()
    wait_for_lines(app, 2)
    page.next("fsfreeze --freeze")
    first = app.type("cat /data/diary")
    page.next("iiadm -g Backup1 -e")
    page.next("iiadm -g Backup1 -u")
    page.next("fsfreeze --unfreeze")
    page.next("iiadm -g Backup1 -w")
    page.next("iiadm -I")
    page.next("mount -o loop")
    assert backup.type("cat /snapshot/diary") == first
    page.next("umount /snapshot")
    page.next("iiadm -J")
    page.next("fsfreeze --freeze")
    page.next("iiexport")
    page.leave_out("vgchange")
    page.next("mount -o loop,ro")
    kept = app.type("cat /snapshot/diary")
    assert kept.startswith(first)
    app.type("umount /snapshot")
    writer.stop()
    app.type("echo mistake > /data/diary; sync")
    page.next("umount /data", answer="yes\n")
    assert app.type("cat /data/diary") == kept
    _failures(page, app, backup)
    page.check_end()


def _failures(page, app, backup):
    """The worked procedures of FAILURES AND REPAIR, from where the restore has ended."""
    app.type("umount /data; iiadm -E /san/backup/vol01")
    assert "100.0% of the volume" in page.next("iiadm -R /san/backup/vol01")
    app.type("systemctl stop iifuse@prod; rm /srv/production/vol01")
    page.next("systemctl start", answer="yes\n")
    app.type("umount /data; iiadm -c m -n /san/backup/vol01; iiadm -a /san/backup/vol01")
    app.type("systemctl stop iifuse@prod")
    page.next("iibitmap check")
    app.type("umount /data; systemctl start iifuse@prod")
    page.next("iiverify")
    app.type("systemctl stop iifuse@prod; rm -r /var/lib/iifuse/prod; systemctl start iifuse@prod")
    listed = page.next("iiadm -g Backup1 --attach")
    assert listed.count("(shadow volume)") == 5
    assert "offline" not in listed


# -- the pages of the programs ----------------------------------------------------------------


def test_examples_of_iiadm_work_as_they_stand(hosts):
    app, _ = hosts
    page = Reader("iiadm.8", hosts)
    for number in (1, 2):
        make_file_system(app, f"/prod/vol0{number}")
    for host in hosts:
        host.type("systemctl start iifuse@prod")
    page.next("iiadm -g Backup1 -e")
    page.next("iiadm -g Backup1 -w")
    page.next("iiadm -I")
    page.next("iiadm -J")
    page.next("iiadm --health")
    app.type("iiadm -g Backup1 -w; iiadm -E /backup/vol01")
    page.next("iiadm -R", answer="yes\n")
    app.type("iiadm -w /backup/vol01")
    whole = app.type("cksum < /prod/vol01")
    page.next("systemctl stop", answer="yes\n")
    assert app.type("cksum < /mnt/ii/prod/vol01") == whole
    app.type("systemctl stop iifuse@prod; rm /prod/vol01.bmp; systemctl start iifuse@prod")
    assert "bitmap volume offline" in page.next("iiadm -i")
    app.type("iiadm -w /backup/vol01; cmp /mnt/ii/prod/vol01 /mnt/ii/backup/vol01")
    page.check_end()


@pytest.fixture
def night(hosts):
    """A group whose shadow is whole, and the files that the other pages name."""
    app, _ = hosts
    make_file_system(app, "/prod/vol01")
    make_file_system(app, "/prod/vol02")
    for host in hosts:
        host.type("systemctl start iifuse@prod")
    for name in ("vol01", "vol02"):
        app.type(f"iiadm -g Backup1 -e ind /prod/{name} /backup/{name} /prod/{name}.bmp")
    app.type("iiadm -g Backup1 -w")
    return app


def test_examples_of_the_companions_work_as_they_stand(night, hosts):
    app, backup = hosts
    pages = {name: Reader(f"{name}.8", hosts) for name in (
        "iiexport", "iiimport", "iijoin", "iiresync", "iiverify", "svadm", "iibitmap"
    )}  # fmt: skip
    pages["iiexport"].next("iiexport")
    pages["iiimport"].hosts[""] = backup
    pages["iiimport"].next("iiimport")
    backup.type("printf new | dd of=/mnt/ii/backup/vol01 bs=1 seek=1000000 conv=notrunc 2>&1")
    backup.type("cp --sparse=always /backup/vol01 /copy/vol01; printf old |"
                " dd of=/copy/vol01 bs=1 seek=1000000 conv=notrunc 2>&1")  # fmt: skip
    backup.type("iiadm -g Backup1 -d")
    pages["iibitmap"].leave_out("lvcreate")
    pages["iibitmap"].hosts[""] = backup
    pages["iibitmap"].next("iibitmap changed")
    backup.type("cmp /backup/vol01 /copy/vol01")
    pages["iijoin"].next("iijoin")
    assert "of the volume" in pages["iiresync"].next("iiresync")
    pages["iiverify"].next("iiverify --rate")
    pages["iiverify"].next("iiverify --mark")
    app.type("iiadm -c m -n /backup/vol01; iiadm -a /backup/vol01; systemctl stop iifuse@prod")
    pages["iibitmap"].hosts[""] = app
    pages["iibitmap"].next("iibitmap check")
    app.type("umount /data; systemctl start iifuse@prod; svadm -e /home/vol01 || :")
    app.type("iiadm -g Backup1 -d; svadm -e /backup/vol01 /backup/vol02")
    pages["svadm"].next("svadm -d")
    for page in pages.values():
        page.check_end()


def test_examples_of_the_service_work_as_they_stand(hosts):
    app, _ = hosts
    page = Reader("iifuse.8", hosts)
    page.leave_out("systemctl enable")
    page.leave_out("systemctl restart")
    page.next("mkdir -p /mnt/ii")
    page.next("mkdir -p /mnt/test")
    make_file_system(app, "/srv/prod/vol01")
    app.type("svadm -e /srv/prod/vol01")
    page.next("mount")
    page.next("umount")
    page.check_end()


def test_every_page_with_something_to_type_is_typed():
    known = {"iifuse.7", "iifuse.8", "iiadm.8"} | {
        f"{name}.8"
        for name in ("iiexport", "iiimport", "iijoin", "iiresync", "iiverify", "svadm", "iibitmap")
    }
    assert {page.name for page in PAGES if manual.blocks(page)} == known
