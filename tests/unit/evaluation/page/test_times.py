# Copyright 2026 The nemo_distill Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
import math

import pytest

from nemo_distill.evaluation.page.times import TimeToQuality, time_to_quality, times_notes, times_table
from nemo_distill.support.validations import Validation


def a_curve(*scores: float, every: float = 60.0) -> list[Validation]:
    """Validations, one each so many seconds."""
    return [Validation(10 * number, every * number, score) for number, score in enumerate(scores, 1)]


@pytest.mark.parametrize(
    ("student", "wanted"),
    [
        (a_curve(3.0, 8.0, 9.0), TimeToQuality(8.0, 180.0, 120.0, 420.0, 220.0)),  # as much is enough
        (a_curve(9.0, 2.0, every=200.0), TimeToQuality(8.0, 180.0, 200.0, 500.0, 300.0)),  # the first time counts
        (a_curve(7.9, 7.99), TimeToQuality(8.0, 180.0, None, None, None)),
        ([], TimeToQuality(8.0, 180.0, None, None, None)),
    ],
)
def test_time_to_quality(student, wanted):
    """The twin has its best, 8, first in its third validation."""
    assert time_to_quality(a_curve(5.0, 7.0, 8.0, 8.0, 6.0), student, 300.0, 100.0) == wanted


def test_ratios_are_to_the_time_of_the_twin():
    times = TimeToQuality(8.0, 180.0, 90.0, 360.0, None)
    assert [times.ratio(each) for each in (times.student, times.whole, times.shared)] == [0.5, 2.0, None]
    assert TimeToQuality(8.0, 0.0, 90.0, 90.0, 90.0).ratio(90.0) is None


def test_seeds_are_compared_one_by_one():
    """The student of seed 2 would be as good as the twin of seed 1, and is not as good as its own."""
    curves = {
        "plain": {"plain@seed1": a_curve(4.0, 5.0), "plain@seed2": a_curve(1.0, 9.0), "plain@seed3": a_curve(6.0)},
        "kd": {"kd@seed3": a_curve(5.0, 6.0), "kd@seed2": a_curve(8.0), "kd@seed1": a_curve(5.0), "kd@seed4": []},
        "other": {"other": a_curve(9.0)},
    }
    header, (line,) = times_table(curves, {"kd": "plain", "other": "plain", "gone": "plain"}, {}, {})
    assert header == ["Student", "Twin", "Twin's best BLEU", "Twin, minutes", "Student, minutes", "/ twin"]
    spread = math.sqrt(0.5)
    assert line[:2] == ["kd", "plain"]
    assert line[2] == f"6.7 ± {math.sqrt(13 / 3):.1f} (n=3)"  # 5, 9, 6
    assert line[4] == f"1.50 ± {spread:.2f} (n=2), 1 not reached"  # 1 and 2 minutes
    assert line[5] == f"1.25 ± {1.5 * spread:.2f} (n=2)"  # 1 of 2 minutes, and 2 of 1


def test_what_was_spent_before_is_counted_in():
    curves = {"plain": {"plain": a_curve(5.0)}, "kd": {"kd": a_curve(5.0)}, "live": {"live": a_curve(4.0)}}
    twins = {"kd": "plain", "live": "plain"}
    header, (kd, live) = times_table(curves, twins, {"kd": 7200.0}, {"kd": 3600.0})
    assert header[3:] == [
        *("Twin, hours", "Student, hours", "/ twin", "With labels and cache, hours", "/ twin"),
        *("With its share of them, hours", "/ twin"),
    ]
    assert kd[3:] == ["0.02", "0.02", "1.00", "2.02", "121.00", "1.02", "61.00"]
    assert live[4:] == ["not reached", "–"] * 3
    header, (kd, _) = times_table(curves, twins, {"kd": 60.0}, {})
    assert kd[3:] == ["1.00", "1.00", "1.00", "2.00", "2.00"]
    assert not [each for each in header if "share" in each]
    assert "shared out" in times_notes({"kd": 60.0}, {"kd": 30.0})[-1]
    assert len(times_notes({}, {})) == 1
