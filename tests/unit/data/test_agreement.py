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
"""What a teacher's scores say of the two sides of a text, with a teacher that is a dictionary."""

import math
import random
import re

import pytest

from nemo_distill.data import agreement
from nemo_distill.data.agreement import SAMPLE, Sample, measure, settle, spread

BOS, EOS, WORDS = 0, 1, 1000


def pairs_of(count: int = 2000) -> list[tuple[list[int], list[int]]]:
    """Return pairs of which a target says its source's words, each 300 higher, in a language of its own."""
    draw = random.Random(3)
    sentences = [[draw.randrange(10, 300) for _ in range(draw.randrange(3, 12))] for _ in range(count)]
    return [([BOS, *words, EOS], [BOS, *(word + 300 for word in words), EOS]) for words in sentences]


def dictionary(pairs) -> list[float]:
    """Score targets as one who knows words from 310 to 599 as translations, and little of anything else."""

    def word(source, id_: int) -> float:
        if id_ == EOS or id_ - 300 in source:
            return math.log(0.5)
        return math.log(1e-3 if 310 <= id_ < 600 else 1e-6)

    return [sum(word(source, id_) for id_ in target[1:]) for source, target in pairs]


def verdict(pairs, **options):
    """Return what is found of a text."""
    places = spread(len(pairs))
    return measure(Sample("text", [pairs[place] for place in places], places), dictionary, WORDS, True, **options)


def test_a_sample_is_of_neighbours_evenly_over_the_whole_text():
    places = spread(10_001)
    assert len(places) == len(set(places)) == SAMPLE
    assert all(places[number + 1] == places[number] + 1 for number in range(0, SAMPLE, 2))
    assert places[0] == 0
    assert places[-1] > 9_900
    assert spread(5) == [0, 1, 2, 3]
    assert spread(1) == []


def test_text_that_belongs_together_has_no_fault():
    found = verdict(pairs_of())
    assert found.fault() is None
    assert found.doubt() is None
    assert sum(found.own) / len(found.own) == pytest.approx(math.log(2))
    assert "0.69 nats a token over 256 pairs" in str(found)


def test_the_other_way_round():
    found = verdict([(target, source) for source, target in pairs_of()])
    assert "the wrong way round" in found.fault()
    assert "0.69 the other way round; swap the files" in found.fault()


def test_lines_in_another_order():
    sources, targets = map(list, zip(*pairs_of(), strict=True))
    random.Random(1).shuffle(targets)
    assert "the lines do not belong together" in verdict(list(zip(sources, targets, strict=True))).fault()


@pytest.mark.parametrize(("offset", "where"), [(1, "preceding"), (-1, "following")])
def test_a_line_that_one_file_lacks(offset: int, where: str):
    sources, targets = map(list, zip(*pairs_of(), strict=True))
    (sources if offset < 0 else targets).pop(900)
    # a target that is gone moves the later ones up: target i is of source i + 1
    fault = verdict(list(zip(sources, targets, strict=False))).fault()
    where = "following" if offset > 0 else "preceding"
    assert "one line apart" in fault
    assert f"the sources of the {where} lines" in fault
    assert 750 < int(re.search(r"about line (\d+) on", fault)[1]) < 1300  # in stretches of 250 lines


def test_targets_of_another_language():
    pairs = [(source, [BOS, *(id_ + 300 for id_ in target[1:-1]), EOS]) for source, target in pairs_of()]
    for source, target in pairs[::2]:
        target[1] = source[1] + 300  # a name, which is the same in all languages
    assert "guesses among its 1000 words 6.91: they are in a language that it does not write" in verdict(pairs).fault()


def test_text_of_which_the_teacher_knows_little_is_a_doubt():
    draw, pairs = random.Random(2), pairs_of()
    pairs = [(source, [id_ if draw.random() < 0.25 else 310 + id_ % 7 for id_ in target]) for source, target in pairs]
    found = verdict(pairs)
    assert found.fault() is None
    assert "is far from the teacher's, it has learnt little yet, or lines are misaligned" in found.doubt()


@pytest.mark.parametrize(("sure", "told"), [(0.70, False), (0.75, True), (0.99, True)])
def test_text_that_the_teacher_knows_by_heart_is_a_doubt(sure: float, told: bool):
    """A threshold of 0.3 nats is a probability of 0.74 for each token."""

    def parrot(pairs) -> list[float]:
        own = [target == [BOS, *(word + 300 for word in source[1:-1]), EOS] for source, target in pairs]
        return [math.log(sure if knows else 1e-4) * (len(pair[1]) - 1) for knows, pair in zip(own, pairs, strict=True)]

    pairs = pairs_of()
    places = spread(len(pairs))
    found = measure(Sample("text", [pairs[place] for place in places], places), parrot, WORDS, True)
    assert found.fault() is None
    doubt = found.doubt()
    assert (doubt is not None) == told
    assert not told or f"needs only {-math.log(sure):.2f} nats a token for the targets" in doubt


@pytest.mark.parametrize("side", ["source", "target"])
def test_text_that_the_tokenizer_does_not_know(side: str):
    """A teacher of another script passed: 7.15 nats a token, and 7.31 for who guesses."""
    unknown, known = 650, pairs_of()
    assert verdict(known, unknown=(unknown, unknown)).unknown == {"source": 0.0, "target": 0.0}
    assert verdict(known, unknown=(unknown, unknown)).doubt() is None
    few, half = pairs_of(), pairs_of()
    for number, pair in enumerate(few):
        pair[side == "target"][1] = unknown if number % 4 == 0 else pair[side == "target"][1]
    for pair in half:
        ids = pair[side == "target"]
        ids[1 : 1 + len(ids) // 2] = [unknown] * (len(ids) // 2)
    found = verdict(few, unknown=(unknown, unknown))
    assert found.fault() is None
    assert f"text: of the {side}s " in found.doubt()
    assert verdict(few, unknown=(None, None)).doubt() is None
    found = verdict(half, unknown=(unknown, unknown))
    assert 0.5 <= found.unknown[side] < 0.75
    assert (
        f"of the {side}s {100 * found.unknown[side]:.0f} % of all tokens are unknown to the tokenizer" in found.fault()
    )


def test_who_stops_and_who_is_told(monkeypatch: pytest.MonkeyPatch):
    swapped = [(target, source) for source, target in pairs_of()]
    said, warned = [], []
    assert "text: source and target are the wrong way" in settle(verdict(swapped), False, said.append, warned.append)
    assert len(said) == 1
    assert not warned
    assert settle(verdict(swapped), True, said.append, warned.append) is None
    assert "wrong way round" in warned[0]
    assert settle(verdict(swapped[: SAMPLE - 2]), False, said.append, warned.append) is None  # a trial on a few lines
    assert len(said) == 3
    assert len(warned) == 2


def test_long_pairs_are_left_out_with_their_neighbours():
    pairs = pairs_of(SAMPLE)
    pairs[6] = (pairs[6][0] * 50, pairs[6][1])
    found = verdict(pairs)
    assert 7 not in found.lines
    assert 6 not in found.lines
    assert len(found.own) == SAMPLE - 2
    assert found.fault() is None
    assert found.sampled == SAMPLE


def test_languages_of_two_vocabularies_are_read_one_way():
    pairs, calls = pairs_of(), []
    sample = Sample("text", [pairs[place] for place in spread(len(pairs))])

    def score(pairs):
        calls.append(len(pairs))
        return dictionary(pairs)

    found = agreement.measure(sample, score, WORDS, False)
    assert calls == [SAMPLE, SAMPLE]
    assert not found.swapped
    assert not found.beside
    assert found.fault() is None


@pytest.mark.parametrize("count", [2, 3, 5, 20, 100])
def test_a_few_pairs_are_told_of(count: int):
    assert "nats a token over" in str(found := verdict(pairs_of(count)))
    assert settle(found, False, lambda text: None, lambda text: None) is None
    assert measure(Sample("text", []), dictionary, WORDS, True) is None


@pytest.mark.parametrize("copies", [2, 4, 10])
def test_text_that_is_there_several_times_belongs_together(copies):
    """The pair half a text further on is the same one."""
    found = verdict(pairs_of(500) * copies)
    assert found.fault() is None
    assert sum(found.shuffled) > 2 * sum(found.own)


def test_nothing_is_said_of_pairs_that_are_all_the_same():
    assert verdict(pairs_of(1) * 300) is None
    targets = pairs_of(2)
    assert verdict([(source, targets[0][1]) for source, _ in pairs_of(300)]) is None


def test_who_reads_a_few_pairs_of_many_does_not_stop():
    """Long ones are not read; a few short ones say too little."""
    long = [([BOS, *[20] * 150, EOS], [BOS, *[320] * 150, EOS])] * 2
    swapped = [(target, source) for source, target in pairs_of(2000)]
    for count, stops in ((20, False), (128, True)):
        found = verdict([*swapped[:count], *long * (SAMPLE // 2 - count // 2)])
        assert (found.sampled, len(found.own)) == (SAMPLE, count)
        assert bool(settle(found, False, [].append, [].append)) is stops
