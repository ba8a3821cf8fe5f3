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
"""Whether two systems differ by more than chance: approximate randomization (Riezler and Maxwell, 2005).

Were two systems equally good, it would not matter which of them wrote which of the two hypotheses of a sentence. So
they are exchanged at random, sentence by sentence, and p is the share of these trials, the texts as they are being one
of them, in which the systems differ at least as much as they do. sacreBLEU's own test leaves out trials that differ
just as much, which makes p too small where few sentences differ: 1 / (trials + 1) where a single one does.
"""

from collections.abc import Callable, Sequence

import numpy as np
from sacrebleu.metrics.base import Metric

from nemo_distill.evaluation.results import Comparison

TRIALS = 1000
SEED = 12345
_ROUNDING = 1e-9
_BLOCK_BYTES = 1 << 26


def compare_systems(
    test_set: str,
    names: tuple[str, str],
    hypotheses: tuple[Sequence[str], Sequence[str]],
    references: Sequence[Sequence[str | None]],
    metrics: dict[str, Metric],
) -> list[Comparison]:
    """Return the comparison of a system with a baseline by each metric.

    Args:
        test_set: its name.
        names: of system and baseline.
        hypotheses: of both, one per sentence.
        references: one list of sentences per translator.
        metrics: by name.
    """
    comparisons = []
    for name, metric in metrics.items():
        system, baseline = (np.array(metric._extract_corpus_statistics(texts, references)) for texts in hypotheses)

        def score(sums: np.ndarray, metric: Metric = metric) -> float:
            return metric._compute_score_from_stats(sums.tolist()).score

        signature = metric.get_signature()
        signature.update("seed", str(SEED))
        signature.update("ar", TRIALS)
        comparisons.append(
            Comparison(
                test_set=test_set,
                metric=name,
                system=names[0],
                baseline=names[1],
                system_score=score(system.sum(0)),
                baseline_score=score(baseline.sum(0)),
                p_value=randomization_p_value(score, system, baseline),
                samples=TRIALS,
                signature=str(signature),
            )
        )
    return comparisons


def randomization_p_value(
    score: Callable[[np.ndarray], float],
    system: np.ndarray,
    baseline: np.ndarray,
    trials: int = TRIALS,
    seed: int = SEED,
) -> float:
    """Return the two-sided p value of the difference of two systems, from 1 / (trials + 1) to 1.

    Args:
        score: the score of a corpus with these sums, [K] -> points.
        system: counts of each sentence, whole numbers, [N, K].
        baseline: the same of the other system.
        trials: random exchanges.
        seed: of the exchanges.
    """
    differences, sums, base_sums = (system - baseline).astype(np.float64), system.sum(0), baseline.sum(0)
    found = abs(score(sums) - score(base_sums)) - _ROUNDING
    generator = np.random.default_rng(seed)
    block = max(_BLOCK_BYTES // (8 * len(differences)), 1)
    count = 0
    for start in range(0, trials, block):
        exchanged = generator.integers(2, size=(min(block, trials - start), len(differences)), dtype=bool)
        moved = np.rint(exchanged.astype(np.float64) @ differences).astype(sums.dtype)  # exact: far below 2 ** 53
        count += sum(abs(score(sums - each) - score(base_sums + each)) >= found for each in moved)
    return (count + 1) / (trials + 1)
