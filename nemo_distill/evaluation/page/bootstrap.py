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
"""Intervals by the bootstrap over sentences.

The same sentences are drawn for every model, so that a difference of two models has its own interval, which is
narrower than theirs ([Koehn, 2004](https://aclanthology.org/W04-3250/)). Of several seeds of a model the mean is
taken, on each draw.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SAMPLES = 1000
FEWEST = 10
"""Sentences for an interval."""
SEED = 12345
_BLOCK_BYTES = 1 << 26
_PERCENT = (2.5, 97.5)


@dataclass(frozen=True)
class Estimate:
    """A value with its interval of 95 %; all None where there is nothing to measure.

    Of fewer than ten sentences there is no interval: what few sentences vary by tells nothing of others.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the interval, of a difference, leaves out 0."""
        return self.low is not None and (self.low > 0 or self.high < 0)


def resampled_sums(counts: np.ndarray, samples: int = SAMPLES, seed: int = SEED) -> np.ndarray:
    """Return the sums over all sentences, and over as many drawn with replacement, so many times: [samples + 1, K].

    Args:
        counts: of each sentence, [N, K].
        samples: draws.
        seed: of the draws; they are the same for the same N and seed.
    """
    size = len(counts)
    generator = np.random.default_rng(seed)
    block = max(_BLOCK_BYTES // (8 * max(size, 1)), 1)
    parts = [counts.sum(0, keepdims=True)]
    for start in range(0, samples, block):
        drawn = generator.integers(size, size=(min(block, samples - start), size))
        weights = np.stack([np.bincount(each, minlength=size) for each in drawn]).astype(np.float64)
        parts.append(weights @ counts)
    return np.concatenate(parts)


def draws(
    rows: Mapping[str, Sequence[np.ndarray]], score: Callable[[np.ndarray], np.ndarray], samples: int = SAMPLES
) -> dict[str, np.ndarray]:
    """Return the score of each row, first of the sentences as they are, then of each draw: [samples + 1], maybe NaN.

    Args:
        rows: for each row the counts of its models, [N, K] each; all of the same sentences.
        score: of sums [samples + 1, K], the values [samples + 1].
        samples: draws.
    """
    if not rows:
        return {}
    widths = [counts.shape[1] for models in rows.values() for counts in models]
    sums = resampled_sums(np.concatenate([counts for models in rows.values() for counts in models], axis=1), samples)
    parts = iter(np.split(sums, np.cumsum(widths)[:-1], axis=1))
    return {row: np.mean([score(next(parts)) for _ in models], axis=0) for row, models in rows.items()}


def estimate(values: np.ndarray, sentences: int) -> Estimate:
    """Return a value, the first, and the interval of the others, as far as they are numbers.

    Args:
        values: of `draws`.
        sentences: how many have anything to measure.
    """
    found = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]):
        return Estimate()
    if sentences < FEWEST or not len(found):
        return Estimate(float(values[0]))
    low, high = np.percentile(found, _PERCENT)
    return Estimate(float(values[0]), float(low), float(high))


def share(sums: np.ndarray) -> np.ndarray:
    """Return the first column in percent of the second, NaN where that is 0: of [S, 2], [S]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums[:, 1] > 0, 100 * sums[:, 0] / sums[:, 1], np.nan)
