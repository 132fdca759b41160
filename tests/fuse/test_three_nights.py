"""The procedure in a script: no terminal, no -n, three nights; nothing asks and nothing refuses."""

import itertools
import os
import shutil
import subprocess
import time

import pytest
from filesystems import SIZES, make
from harness import BIN
from samples import sample

VOLUMES = 2

NIGHT = """
set -eu
app()    { IIFUSE_SOCKET=$APP_SOCKET "$@"; }
backup() { IIFUSE_SOCKET=$BACKUP_SOCKET "$@"; }

for n in 1 2; do
    live=$PLACE/live$n
    mount -o loop "$APP_MOUNT$(eval echo \\$M$n)" "$live"
    echo "night $NIGHT" > "$live/diary.$NIGHT"
    head -c 300000 /dev/urandom > "$live/data"
    fsfreeze -f "$live"
done
case $HOW in
    disabled) for n in 1 2; do
                  eval app iiadm -g Backup1 -e ind \\$M$n \\$S$n \\$B$n
              done ;;
    exported) if [ "$NIGHT" = 1 ]; then
                  for n in 1 2; do eval app iiadm -g Backup1 -e ind \\$M$n \\$S$n \\$B$n; done
              fi
              app iiadm -g Backup1 -u ;;
esac
for n in 1 2; do fsfreeze -u "$PLACE/live$n"; done
app iiadm -g Backup1 -w

look() {
    mount -o "$3" "$1" "$PLACE/copy"
    cmp "$PLACE/copy/diary.$NIGHT" "$PLACE/live$2/diary.$NIGHT"
    umount "$PLACE/copy"
}

if [ $HOW = disabled ]; then
    app iiadm -g Backup1 -d
    for n in 1 2; do eval look \\$S$n $n loop; done
else
    app iiadm -g Backup1 -E
    app svadm -d "$S1" "$S2"
    for n in 1 2; do
        eval ticket=\\$S$n.iiticket
        [ -f "$ticket" ] || eval ticket=$APP_STATE/tickets/$(app iiadm -i --json | $PYTHON -c "
import json, sys
for one in json.load(sys.stdin)['sets']:
    if one['shadow'] == '$(eval echo \\$S$n)': print(one['uuid'])").json
        eval backup iiadm -I \\$S$n \\$Q$n "$ticket"
    done
    backup svadm -e "$S1" "$S2"
    backup iiadm -g Backup1 -m "$S1,$S2"
    for n in 1 2; do look "$BACKUP_MOUNT$(eval echo \\$S$n)" $n loop; done
    backup iiadm -g Backup1 -d
    for n in 1 2; do eval app iiadm -J \\$S$n \\$Q$n; done
    app svadm -e "$S1" "$S2"
fi
for n in 1 2; do umount "$PLACE/live$n"; done
"""


@pytest.fixture
def service_seconds():
    return 300


@pytest.fixture
def hang_seconds():
    return 300


@pytest.fixture
def script(place, service, new_service):
    """Run a night; what it printed. `names`: the volumes, M1, S1, B1, Q1, M2 ..."""
    other = new_service("other")
    for name in ("live1", "live2", "copy"):
        (place / name).mkdir()

    def run(number, how, names):
        where = {
            "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHON": str(BIN / "python"),
            "PLACE": str(place), "NIGHT": str(number), "HOW": how,
            "APP_SOCKET": str(service.socket), "APP_MOUNT": str(service.mountpoint),
            "APP_STATE": str(service.state),
            "BACKUP_SOCKET": str(other.socket), "BACKUP_MOUNT": str(other.mountpoint),
        }  # fmt: skip
        done = subprocess.run(
            ["bash", "-c", NIGHT], env={**where, **names}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "yes/no" not in done.stdout + done.stderr
        return done.stderr

    yield run
    for name in ("copy", "live1", "live2"):
        subprocess.run(["fsfreeze", "-u", place / name], capture_output=True, check=False)
        subprocess.run(["umount", "-l", place / name], capture_output=True, check=False)


@pytest.fixture
def volumes(place, attach):
    """Names for the words of a night, on files or on devices; shadows that are blank or not."""

    def build(medium, shadows):
        names = {}
        for n in range(1, VOLUMES + 1):
            master = place / f"m{n}"
            with master.open("wb") as file:
                file.truncate(SIZES["ext4"])
            make("ext4", str(master))
            files = {"M": master, **{k: place / f"{k.lower()}{n}" for k in "SBQ"}}
            if shadows == "earlier":
                shutil.copy(master, files["S"])
            elif shadows == "blank" or medium == "devices":
                with files["S"].open("wb") as file:
                    file.truncate(SIZES["ext4"])
            if medium == "devices":
                for key in "BQ":
                    files[key].write_bytes(bytes(1 << 20))
            for key, path in files.items():
                device = medium == "devices"
                names[f"{key}{n}"] = attach(path) if device else str(path)
        return names

    return build


CASES = [
    *itertools.product(["files"], ["missing", "blank", "earlier"], ["exported", "disabled"]),
    *itertools.product(["devices"], ["blank", "earlier"], ["exported", "disabled"]),
]


@pytest.mark.parametrize(("medium", "shadows", "how"), sample(CASES, 4, "nights"))
def test_three_nights_of_a_script_meet_no_question(service, volumes, script, medium, shadows, how):
    """`exported`: the thirteen steps. `disabled`: a new set each night on the same disks."""
    names = volumes(medium, shadows)
    assert service.run("svadm", "-e", names["M1"], names["M2"]).returncode == 0
    began = time.monotonic()
    for night in (1, 2, 3):
        script(night, how, names)
    assert time.monotonic() - began < 240
