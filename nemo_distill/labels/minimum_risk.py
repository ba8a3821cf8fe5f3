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
"""Choice by agreement, minimum Bayes risk: which hypothesis is most like all that the model might say.

Eikema & Aziz 2020 (arXiv:2005.10283) and 2022 (arXiv:2108.04718); with n-best lists Kumar & Byrne 2004. The utility
is sacreBLEU's chrF, as `fastchrf` computes it: the same numbers, to the last bit.
"""

import functools
import math
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Sequence

_THREADS = "RAYON_NUM_THREADS"


def expected_utilities(texts: Sequence[str]) -> list[float]:
    """Return of each hypothesis its mean chrF against all hypotheses of its line, itself among them.

    Each counts alike. Samples come as often as the model says them, so that this is the expected utility under the
    model, estimated without bias; scores would count their probability twice. Equal means come from equal comparisons,
    whatever the order of the texts.

    Args:
        texts: of one line, each as often as it was said.

    Returns:
        From 0 to 100, in their order.

    Example:
        >>> [round(each, 1) for each in expected_utilities(["a red car", "a red cat", "the moon"])]
        [58.6, 59.4, 35.7]
    """
    letters = ["".join(text.split()) for text in texts]
    counts = Counter(letters)
    scores = _pairwise(list(counts))
    means = {
        one: math.fsum(score * count for score, count in zip(row, counts.values(), strict=True)) / len(texts)
        for one, row in zip(counts, scores, strict=True)
    }
    return [means[one] for one in letters]


def is_in_use() -> bool:
    """Return whether this process may have threads of `fastchrf`: a process forked from it would wait for them."""
    return "fastchrf" in sys.modules


def _pairwise(texts: Sequence[str]) -> Sequence[Sequence[float]]:
    """Return the chrF of each text (rows) with each as its reference (columns)."""
    if len(texts) < 2:
        return [[100.0]] * len(texts)
    if _first_user() != os.getpid():  # its threads are those of the process that forked this one
        from sacrebleu.metrics import CHRF

        metric = CHRF()
        return [[metric.sentence_score(one, [other]).score for other in texts] for one in texts]
    from fastchrf import pairwise_chrf

    return pairwise_chrf([texts], [texts])[0]


@functools.cache
def _first_user() -> int:
    """Return the process that first compared texts, this one or one that it was forked from."""
    if multiprocessing.parent_process() is not None:  # one of many, which share the cores
        os.environ[_THREADS] = "1"
    return os.getpid()
