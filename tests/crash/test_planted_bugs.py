"""The crash tests bite: each planted defect is found."""

import pytest
from crash_bugs import BUGS
from crash_explore import Options, Tally, explore
from crash_scenarios import SCENARIOS
from lost import Lost

SEEDS = 8


def look_for(bug):
    """Explore until something is lost."""
    total, options = Tally(), Options(per_stop=bug.per_stop, go_on=0.3, kill=bug.kill)
    for seed in range(bug.seed, bug.seed + SEEDS):
        for name in bug.scenarios:
            total.add(explore(name, SCENARIOS[name], seed, options))
    return total


@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_caught(name):
    bug = BUGS[name]
    with bug.plant(), pytest.raises(Lost) as caught:
        print(look_for(bug))
    print(caught.value)
    assert ": Lost: " in str(caught.value), "that is another failure than a broken promise"


def test_planted_bugs_are_enough():
    assert len(BUGS) >= 15
