"""LAN-free backup and rapid restore on real data: `make demo`.

Two services on this machine stand for an application host and a backup host, a directory for the
SAN that both see. The procedure of "LAN-Free Backups Using the Sun StorEdge Instant Image 3.0
Software" is performed, steps 5 to 13, then a rapid restore. Each command is shown as a person
types it, and every claim is verified by reading the volumes themselves. Exit code 1 at the first
one that is not true. Whatever happens, nothing stays mounted, frozen or on disk.

It runs in a mount namespace of its own. A program that makes one while the demonstration runs (a
service that is started, a container) has all that is mounted then, and would keep the loop devices
busy and with them the shadows.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from demo_lib import backup, hosts, lend, places, restore, resync, setting
from demo_lib.hosts import Host
from demo_lib.places import Site
from demo_lib.play import SIGNALS, Play, Watch
from demo_lib.stage import Stage, Untrue

ALONE = "IIFUSE_DEMO_ALONE"
"""Environment variable of the demonstration once it is."""
UNSHARE = ("unshare", "--mount", "--propagation", "slave")
"""What others unmount is unmounted for us too; what we mount, nobody else has."""


class Interrupted(BaseException):
    """A signal asks us to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def main() -> int:
    """The demonstration; its exit code."""
    stage = Stage()
    try:
        places.check_programs(hosts.PATH)
        with _cleaned_up(places.find_room()) as (root, watch):
            site = Site(root)
            app, bak = Host("app", "APP", site, stage), Host("bak", "BAK", site, stage)
            _perform(Play(stage, site, watch, app, bak))
    except Untrue as error:
        stage.failed(str(error))
        return 1
    except Interrupted as error:
        stage.interrupted()
        return error.exit_code
    except OSError as error:
        stage.failed(f"the files can be read ({error})")
        return 1
    stage.claim(True, "nothing is left behind: no mount, no loop device, no process, no file")
    stage.summary()
    return 0


@contextmanager
def _cleaned_up(root: str) -> Iterator[tuple[str, Watch]]:
    """A directory, and somebody who removes it with everything below."""
    watch = Watch(root)

    def end(number: int, _frame: object) -> None:
        watch.begin()
        raise Interrupted(number)

    for number in SIGNALS:
        signal.signal(number, end)
    try:
        yield root, watch
    finally:
        left = watch.clean_up()
    if left:
        raise Untrue("nothing is left behind", "; ".join(left))


def _perform(play: Play) -> None:
    try:
        setting.begin(play)
        setting.plan(play)
        first = lend.take_and_lend(play)
        device = backup.take_in(play, first)
        written = backup.back_up(play, first, device)
        resync.join(play)
        second = resync.resync(play, first, written)
        lost = restore.mistake(play, second)
        restore.restore(play, second, lost)
        restore.verify(play, second)
        restore.finish(play)
    except (Untrue, OSError):
        with suppress(OSError):  # the janitor may have been here
            _show_logs(play)
        raise


def _show_logs(play: Play) -> None:
    """The last words of the services, for whoever looks for the reason."""
    for host in (play.app, play.bak):
        play.stage.explain(f"The service of {host.name} says:")
        play.stage.output("\n".join(host.log().splitlines()[-8:]))


def go_apart() -> None:
    """Begin again in a mount namespace of our own, where one is to be had."""
    if ALONE in os.environ:
        return
    os.environ[ALONE] = "1"
    with suppress(OSError):
        tried = subprocess.run([*UNSHARE, "true"], check=False, capture_output=True)  # noqa: S603
        if tried.returncode == 0:
            os.execvp(UNSHARE[0], [*UNSHARE, sys.executable, *sys.argv])  # noqa: S606


if __name__ == "__main__":
    go_apart()
    sys.exit(main())
