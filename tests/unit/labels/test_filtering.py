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
import pytest

from nemo_distill.decoding.engine import Hypothesis
from nemo_distill.errors import InputError
from nemo_distill.labels import filtering
from nemo_distill.labels.filtering import FilterSettings, PairFilter, find_fault, longest_run, placeholders
from nemo_distill.labels.leak_check import TestText

OFF = FilterSettings(
    max_length_ratio=None, max_repeats=None, max_repeated=None, drop_copies=False, check_placeholders=False
)
LONG = " ".join(f"Wort{number}" for number in range(90))
LOOP = " ".join(f"the man in the {number}. coat sees the man in the blue coat and" for number in range(8))

# reason, source, hypothesis, and the settings that switch it off
REFUSED = [
    (filtering.COPY, "Die Lampe.", "die  lampe", {"drop_copies": False}),
    (
        filtering.LENGTH_RATIO,
        "Die alte Lampe",
        "the old lamp on the wall of the house is so old that it went out",
        {"max_length_ratio": 4.0},
    ),
    (filtering.LENGTH_RATIO, "Ein langer Satz über die alte Lampe", "Lamp", {"max_length_ratio": 4.5}),
    (filtering.LENGTH_RATIO, "水泵今天修好了", "Pump", {"max_length_ratio": None}),
    (
        filtering.REPETITION,
        "Ein Mann und ein Hund sind da",
        "a dog dog dog dog is",
        {"max_repeats": 4, "max_repeated": None},
    ),
    (
        filtering.REPETITION,
        "Ein Mann und noch ein Mann",
        "a man and a man and a man and a man and",
        {"max_repeats": 4, "max_repeated": None},
    ),
    (filtering.REPETITION, LONG, LOOP, {"max_repeated": None}),
    (filtering.PLACEHOLDERS, "Hallo {name}!", "Hello Name!", {"check_placeholders": False}),
    (filtering.PLACEHOLDERS, "%s von %s", "%s of", {"check_placeholders": False}),
    (filtering.PLACEHOLDERS, "Seite %1$d", "page %2$d", {"check_placeholders": False}),
    (filtering.PLACEHOLDERS, "<b>neu</b>", "<b>new", {"check_placeholders": False}),
    (filtering.PLACEHOLDERS, "Hallo du", "hello {{you}}", {"check_placeholders": False}),
]


@pytest.mark.parametrize(("reason", "source", "hypothesis", "off"), REFUSED)
def test_each_filter_refuses_and_can_be_switched_off(reason, source, hypothesis, off):
    assert find_fault(source, hypothesis) == reason
    assert find_fault(source, hypothesis, settings=FilterSettings(**off)) is None
    assert find_fault(source, hypothesis, settings=OFF) is None


@pytest.mark.parametrize(
    ("source", "hypothesis"),
    [
        ("Die Lampe ist offen.", "The lamp is open."),
        ("Ein", "Switched on"),  # each side counts four letters more
        ("ja ja ja ja ja", "yes yes yes yes yes"),  # the source repeats as often
        ("{count} Fenster auf %(room)s", "{count} windows in %(room)s"),
        ("100%ig sicher bei 50%d", "100% certain at 50 percent"),
        ('<a href="hier">Hilfe</a>', '<a href="here">Help</a>'),
        ("{n, plural, one {# Tür} other {# Türen}}", "{n, plural, one {# door} other {# doors}}"),
        ("Wenn a < b und c > d", "If a < b and c > d"),
        ("水泵今天修好了", "The pump was repaired today"),
    ],
)
def test_good_pairs_pass(source, hypothesis):
    assert find_fault(source, hypothesis, score_per_token=-9.0) is None


def test_empty_hypothesis_is_always_refused():
    assert find_fault("Wort", " \u2028", settings=OFF) == filtering.EMPTY


@pytest.mark.parametrize(
    ("flags", "reason", "off"),
    [
        ({"cut": True}, filtering.CUT, {"drop_cut": False}),
        ({"mark": "no end token"}, filtering.CUT, {"drop_cut": False}),  # as earlier releases wrote it
        ({"unknown": 1}, filtering.UNKNOWN, {"drop_unknown": False}),
        ({"mark": "unknown pieces"}, filtering.UNKNOWN, {"drop_unknown": False}),
        ({}, None, {}),
    ],
)
def test_what_engines_say_of_a_hypothesis(flags, reason, off):
    hypothesis = Hypothesis("the lamp here", -2.0, 4, **flags)
    assert PairFilter(FilterSettings()).fault("die Lampe hier", hypothesis) == reason
    assert PairFilter(FilterSettings(**off)).fault("die Lampe hier", hypothesis) is None


def test_unknown_pieces_in_text():
    assert find_fault("die Lampe hier", "the \u2047 here") == filtering.UNKNOWN
    assert find_fault("die Lampe hier", "the <UNK> here") == filtering.UNKNOWN
    assert find_fault("wirklich\u2047 die Lampe", "really\u2047 the lamp") is None  # a character of the source
    assert find_fault("die Lampe hier", "the \u2047 here", settings=FilterSettings(drop_unknown=False)) is None


def test_score_per_token():
    settings = FilterSettings(min_score=-1.0)
    assert find_fault("Wort hier", "word here", -1.01, settings) == filtering.LOW_SCORE
    assert find_fault("Wort hier", "word here", -1.0, settings) is None
    assert find_fault("Wort hier", "word here", None, settings) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{0:.2f} {} ${x} { y }", {"{0:.2f}": 1, "{}": 1, "{x}": 1, "{ y }": 1}),
        ("%s%s %-5d %.1f %@", {"%s": 2, "%-5d": 1, "%.1f": 1, "%@": 1}),
        ("[%key:common::save%] 5 % davon, 100 %", {"[%key:common::save%]": 1}),
        ("<br/>x<br>", {"<br": 2}),
        ("<3 Personen und > 2", {}),
    ],
)
def test_placeholders(text, found):
    assert dict(placeholders(text)) == found


@pytest.mark.parametrize(
    ("text", "times"), [("", 0), ("a", 1), ("a b", 1), ("a a", 2), ("x a b a b a b y", 3), ("a b c a b", 1)]
)
def test_longest_run(text, times):
    assert longest_run(text.split()) == times


def test_pair_filter_remembers_kept_pairs():
    pairs = PairFilter(FilterSettings(drop_duplicates=True))
    assert pairs.fault("a b", Hypothesis("", -1.0, 1)) == filtering.EMPTY
    assert [pairs.duplicate_fault("a b", "x y") for _ in range(2)] == [None, filtering.DUPLICATE]
    assert pairs.duplicate_fault("a c", "x y") is None
    kept = PairFilter(FilterSettings())
    assert [kept.duplicate_fault("a b", "x y") for _ in range(2)] == [None, None]


def test_pair_filter_on_sources(tmp_path):
    (tmp_path / "test.de").write_text("Die Pumpe läuft.\n")
    pairs = PairFilter(FilterSettings(), TestText([tmp_path / "test.de"]))
    assert pairs.source_fault("\u2028 ") == filtering.EMPTY_SOURCE
    assert pairs.source_fault("die pumpe LÄUFT") == filtering.IN_TEST_SET
    assert pairs.source_fault("Die Pumpe") is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length_ratio": 0.5}, "max_length_ratio: got 0.5; give a number of at least 1"),
        ({"max_length_ratio": float("nan")}, "max_length_ratio: got nan"),
        ({"max_repeats": 0}, "max_repeats: got 0; give at least 1"),
        ({"max_repeated": 1.0}, "max_repeated: got 1.0; give a share of the text"),
        ({"min_score": 0.5}, "min_score: got 0.5; a mean log-probability is 0 or less"),
        ({"min_score": -float("inf")}, "to switch a filter off, leave its limit out"),
        ({"max_repeats": 0, "min_score": 1.0}, "max_repeats.*min_score"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        FilterSettings(**settings)
