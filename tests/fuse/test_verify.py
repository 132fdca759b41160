"""iiverify by the real programs: what was changed behind the service's back is found and healed."""

import json
import os

import pytest
from harness import CHUNK


@pytest.fixture
def whole(service, volume, place):
    """An independent set that is whole: (master, shadow)."""
    master, shadow = volume("m", 1500 * CHUNK + 1000), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    return master, shadow


def spoil(path, *offsets):
    """Change bytes of a raw volume, as a broken disk would."""
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 0x40]))


def verify(service, *words):
    done = service.run("iiverify", *words)
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_verify_finds_nothing_where_all_is_well(service, whole):
    master, shadow = whole
    service.write(master, 5 * CHUNK, b"marked as different")
    service.write(shadow, 6 * CHUNK, b"marked as different")
    assert verify(service, shadow) == (0, [], "")


@pytest.mark.parametrize("side", [0, 1])
def test_verify_finds_every_byte_changed_behind_its_back(service, whole, side):
    shadow = whole[1]
    last = 1500 * CHUNK
    spoil(whole[side], 17, 100 * CHUNK + 5, 101 * CHUNK, last + 999)
    code, lines, said = verify(service, shadow)
    assert code == 1
    assert lines == [
        f"{shadow}: 0 {CHUNK}",
        f"{shadow}: {100 * CHUNK} {2 * CHUNK}",
        f"{shadow}: {last} 1000",
    ]
    assert "--mark" in said
    assert service.status(shadow).shadow_bits == 0


def test_verify_joins_extents_over_its_windows(service, whole):
    _, shadow = whole
    spoil(shadow, 1023 * CHUNK, 1024 * CHUNK)
    assert verify(service, shadow)[1] == [f"{shadow}: {1023 * CHUNK} {2 * CHUNK}"]


@pytest.mark.parametrize("direction", ["s", "m"])
def test_marked_chunks_are_healed_by_the_next_update(service, whole, direction):
    master, shadow = whole
    kept = master.read_bytes()
    spoil(shadow if direction == "s" else master, 3 * CHUNK, 1400 * CHUNK + 7)
    code, lines, said = verify(service, "--mark", shadow)
    assert (code, len(lines)) == (1, 2)
    assert "heals" in said
    assert service.status(shadow).shadow_bits == 2
    assert verify(service, shadow)[0] == 0
    service.flip(direction, shadow)
    service.wait(shadow)
    assert verify(service, shadow)[0] == 0
    service.stop()
    assert master.read_bytes() == shadow.read_bytes()[: len(kept)] == kept


def test_marks_survive_a_kill(service, whole):
    master, shadow = whole
    spoil(shadow, 3 * CHUNK)
    verify(service, "--mark", shadow)
    service.kill()
    service.start()
    assert service.status(shadow).shadow_bits >= 1
    service.flip("s", shadow)
    service.wait(shadow)
    service.stop()
    assert shadow.read_bytes()[: master.stat().st_size] == master.read_bytes()


def test_verify_of_a_group_reports_as_json(service, whole, volume, place):
    service.enable("ind", volume("m2"), place / "s2", group="night")
    service.wait(place / "s2")
    service.run("iiadm", "-g", "night", "-m", whole[1])
    spoil(place / "s2", CHUNK)
    code, lines, _ = verify(service, "--json", "-g", "night")
    assert code == 1
    found = {one["shadow"]: one for one in json.loads("\n".join(lines))["sets"]}
    assert found[str(whole[1])]["differing"] == []
    assert found[str(place / "s2")] == {
        "shadow": str(place / "s2"),
        "differing": [{"offset": CHUNK, "length": CHUNK}],
        "marked": False,
        "complete": True,
    }


def test_verify_while_the_set_is_written_finds_nothing(service, whole):
    master, shadow = whole
    fd = os.open(service.path(master), os.O_RDWR)
    pid = os.fork()
    if pid == 0:
        for turn in range(100_000):
            os.pwrite(fd, b"%d" % turn, (turn * 37 % 1500) * CHUNK)
        os._exit(0)
    try:
        assert verify(service, "--rate", "100M/s", shadow)[0] == 0
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(fd)


@pytest.mark.parametrize("state", ["dependent", "exported", "aborted"])
def test_verify_refuses_where_equal_bits_do_not_mean_equal_bytes(service, volume, place, state):
    master, shadow = volume("m", 64 << 20), place / "s"
    service.enable("dep" if state == "dependent" else "ind", master, shadow)
    if state == "aborted":
        service.abort(shadow)
        assert service.status(shadow).progress == "to_shadow"
    if state == "exported":
        service.wait(shadow)
        assert service.run("iiadm", "-E", shadow).returncode == 0
    code, lines, said = verify(service, shadow)
    assert (code, lines) == (2, [])
    assert str(shadow) in said
