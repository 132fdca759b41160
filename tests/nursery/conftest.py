"""A nursery of this very process."""

import pytest

from iifuse.nursery.nursery import Nursery


@pytest.fixture
def children():
    """It has ended when the test has."""
    made = Nursery.start()
    yield made
    made.close()
