"""Wrong words on the command line of a program that argparse reads."""

import pytest

from iifuse import errors, service

SAID = {
    "--deamon": "unknown option --deamon (did you mean --daemon?)",
    "--log=x --sate=/d /mnt": "unknown option --sate=/d (did you mean --state?)",
    "-z /mnt": "unknown option -z",
    "--daemon": "the following arguments are required: MOUNTPOINT",
    "-owriteback_cache": "the following arguments are required: MOUNTPOINT",
    "/mnt --log": "argument --log: expected one argument",
}


@pytest.mark.parametrize("line", SAID)
def test_near_option_of_the_service_is_named(monkeypatch, line):
    monkeypatch.setattr("sys.argv", ["iifuse", *line.split()])
    with pytest.raises(errors.UsageError) as caught:
        service.parser().parse_args()
    assert caught.value.why == SAID[line]


def test_near_word_in_the_place_of_a_verb_is_named(run):
    said = run("iibitmap", "chek", "/b").err
    assert "invalid choice: 'chek'" in said
    assert "(did you mean check?)" in said
