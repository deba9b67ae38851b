"""Bad inputs of every kind: a result or an error that is meant, in time, and no memory kept."""

import numpy as np
import pytest

from tests.fuzz.runner import CASE_SECONDS, Found, fuzz

GROWTH_MIB = 50


def check(found: Found) -> None:
    assert not found.faults, "\n\n".join(found.faults)
    assert np.percentile(found.seconds, 99) < CASE_SECONDS / 2


def test_two_hundred_bad_inputs() -> None:
    check(fuzz(200))


@pytest.mark.slow
def test_ten_thousand_bad_inputs() -> None:
    found = fuzz(10_000)
    check(found)
    assert found.resident[9999] - found.resident[999] < GROWTH_MIB
