"""In every state of a set: what a refusal advises is not refused in its turn, or says what is not.

Some sets for each state and loss, one for each verb: it is run, then the commands that its refusal
names, in their order, until the set is well or taken apart. A sample here, all of it in
`make test-long`.
"""

from itertools import product

import pytest
from advice_cells import LOSSES, STATES, VERBS, Stage, lead_out
from samples import sample, some

CELLS = [
    (state, loss)
    for state, loss in product(STATES, LOSSES)
    if not (state == "ind imported" and loss == "master away")
    and not (state == "ind exported" and loss in ("shadow away", "shadow offline"))
]


@pytest.mark.finding("K15.7")
@pytest.mark.parametrize(("state", "loss"), sample(CELLS, 4, "advice"))
def test_advice_of_every_refusal_leads_out(new_service, place, state, loss):
    host = new_service("host")
    other = new_service("other") if state == "ind imported" else None
    stage = Stage(host, other, place, state)
    verbs = some(VERBS, 6, f"{state} {loss}")
    for piece, verb in zip(stage.build(loss, len(verbs)), verbs, strict=True):
        lead_out(stage, piece, verb)
