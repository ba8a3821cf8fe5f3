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
"""p values: those of sacreBLEU's approximate randomization where no trial is a tie; uniform between equal systems."""

import random

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from nemo_distill.evaluation.significance import compare_systems, randomization_p_value

WORDS = [f"word{number}" for number in range(60)]


def corpus(sentences: int) -> list[list[str]]:
    generator = random.Random(1)
    return [[generator.choice(WORDS) for _ in range(generator.randint(5, 15))] for _ in range(sentences)]


def system(references: list[list[str]], seed: int, wrong: float = 0.3) -> list[str]:
    """Hypotheses in which each word is another one with this probability."""
    generator = random.Random(seed)
    return [
        " ".join(generator.choice(WORDS) if generator.random() < wrong else word for word in words)
        for words in references
    ]


def compare(system: list[str], baseline: list[str], references: list[str], **metrics) -> dict[str, float]:
    metrics = metrics or {"BLEU": BLEU(), "chrF2": CHRF()}
    found = compare_systems("t", ("a", "b"), (system, baseline), [references], metrics)
    assert [(item.system, item.baseline, item.samples) for item in found] == [("a", "b", 1000)] * len(metrics)
    return {item.metric: item.p_value for item in found}


def test_p_values_are_those_of_sacrebleu():
    words = corpus(60)
    references = [" ".join(sentence) for sentence in words]
    systems = system(words, 1, 0.30), system(words, 2, 0.34)
    metrics = {"BLEU": BLEU(), "chrF2": CHRF()}
    named = [("b", systems[1]), ("a", systems[0])]
    signatures, expected = PairedTest(named, metrics, [references], test_type="ar", n_samples=1000)()
    found = compare_systems("t", ("a", "b"), systems, [references], metrics)
    for item in found:
        baseline, other = expected[item.metric]
        assert (item.system_score, item.baseline_score) == pytest.approx((other.score, baseline.score))
        assert item.p_value == pytest.approx(other.p_value)
        assert item.signature == str(signatures[item.metric])
        assert 0.001 < item.p_value < 0.9


def test_few_differences_are_no_evidence():
    """Of k sentences that differ in one way, 2 of 2 ** k exchanges give what was found, or its opposite."""
    words = corpus(30)
    references = [" ".join(sentence) for sentence in words]
    baseline = system(words, 1)
    assert compare(baseline, baseline, references) == {"BLEU": 1.0, "chrF2": 1.0}
    assert compare([references[0], *baseline[1:]], baseline, references) == {"BLEU": 1.0, "chrF2": 1.0}
    three = compare([*references[:3], *baseline[3:]], baseline, references)
    assert list(three.values()) == pytest.approx([2 / 8] * 2, abs=0.05)  # 1,000 trials: a deviation of 0.014
    assert max(compare([*references[:20], *baseline[20:]], baseline, references).values()) == 1 / 1001


def test_p_is_uniform_between_equal_systems():
    """1,000 trials: on 25 sentences each, either system wrote either hypothesis by chance; p is of 60 exchanges.

    Below 0.05 are 5 % of them, of which the standard deviation is 0.7 %.
    """
    words, metric = corpus(2000), BLEU()
    references = [[" ".join(sentence) for sentence in words]]
    one, other = (np.array(metric._extract_corpus_statistics(system(words, seed), references)) for seed in (1, 2))
    generator = np.random.default_rng(4)
    found = []
    for trial in range(1000):
        rows, swapped = generator.integers(len(words), size=25), generator.integers(2, size=(25, 1), dtype=bool)
        pair = np.where(swapped, other[rows], one[rows]), np.where(swapped, one[rows], other[rows])
        found.append(
            randomization_p_value(
                lambda sums: metric._compute_score_from_stats(sums.tolist()).score, *pair, trials=60, seed=trial
            )
        )
    assert np.mean(np.array(found) < 0.05) == pytest.approx(3 / 61, abs=0.015)
    for level in (0.1, 0.25, 0.5, 0.75, 0.95):
        expected = int(level * 61) / 61  # p is a multiple of 1 / 61
        assert np.mean(np.array(found) <= level) == pytest.approx(expected, abs=0.045), level
