"""Commands in messages: what is copied from there into a shell does what was meant."""

import subprocess

import advice
import pytest

from iifuse.units import command

NAMES = [
    "/srv/vol01", "/srv/my volume", "/srv/it's", '/srv/"x"', "/srv/$HOME", "/srv/`id`",
    "/srv/a\\b", "/srv/a;b&c|d", "/srv/*?[x]", "/srv/(a)", "/srv/#a", "/srv/~", "/srv/!a",
    "/srv/a\nb", "/srv/\ta", "/srv/\x1b[0m", "/srv/größe", "/srv/\xa0", "/srv/日本",
    "/srv/a=b,c:d@e%f+g-h_i.j", "/srv/{a,b}",
]  # fmt: skip


@pytest.mark.finding("K15.6")
def test_command_is_taken_by_a_shell_as_it_was_meant():
    text = command("printf '%s\\0'", *NAMES).removeprefix("'").removesuffix("'")
    done = subprocess.run(["bash", "-c", text], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == NAMES


def test_command_of_plain_names_stands_as_it_is_typed():
    assert command("iiadm -R", "/srv/vol01", "/srv/vol-2") == "'iiadm -R /srv/vol01 /srv/vol-2'"


@pytest.mark.parametrize("name", NAMES)
def test_command_in_a_message_is_found_whole(name):
    said = f"/srv/it's: is 'so'; do {command('iiadm -R', name)}, then {command('umount', name)}"
    expected = "".join(sign if sign.isprintable() else "?" for sign in name).replace("\xa0", "?")
    found = advice.commands(said)
    assert [words[0] for words in found] == ["iiadm", "umount"]
    if name != "/srv/\xa0":
        assert [words[-1] for words in found] == [expected, expected]


@pytest.mark.parametrize(
    "said",
    ["bring it back ('-R')", "abort it (-a)", "finish it (-u m)", "see 'iiadm -R'",
     "'iiadm -J SET BITMAP' joins it", "'iiadm -u x /a /b' does", "'iiresync m' too"],
)  # fmt: skip
def test_part_of_a_command_is_no_advice(said):
    with pytest.raises(AssertionError):
        advice.check(f"iiadm: /srv/vol01: is so; {said}")
