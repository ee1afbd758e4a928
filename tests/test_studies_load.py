"""What else a machine does, from made-up counts of the kernel; no test looks at the machine itself."""

import pytest

from studies import load
from studies.load import Load

STAT = "cpu  100 20 30 1000 50 6 4 40 7 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n"


def test_all_work_counts_and_idle_time_does_not():
    assert load.parse(STAT, 100) == pytest.approx((100 + 20 + 30 + 6 + 4 + 40) / 100)


@pytest.mark.parametrize(
    ("everybody", "own", "expected"),
    [(10.0, 4.0, 0.3), (10.0, 10.0, 0.0), (9.9, 10.0, 0.0), (40.0, 4.0, 1.0)],
    ids=["others", "alone", "rounding", "more than there is"],
)
def test_the_share_of_others_is_what_is_not_our_own(everybody, own, expected):
    assert load.share((10.0, 4.0), (10.0 + everybody, 4.0 + own), 20.0) == pytest.approx(expected)


@pytest.mark.parametrize(("others", "high"), [(None, False), (0.0, False), (load.HIGHEST, False), (0.11, True)])
def test_a_load_is_high_above_the_limit(others, high):
    assert Load(3.0, others).high == high


def test_a_look_that_is_too_short_says_nothing_of_others():
    assert load.Watch().load(wait=False).others is None
