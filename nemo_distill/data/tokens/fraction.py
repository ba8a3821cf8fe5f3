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
"""A part of a text, chosen by a hash of its lines: the same lines wherever they stand."""

import hashlib
from collections.abc import Iterable

import numpy as np


def choose_fraction(keys: Iterable[str], fraction: float, seed: int, together: bool = False) -> np.ndarray:
    """Choose `round(fraction * len(keys))` places, at least one, in their order.

    The choice goes by a hash of seed and key: components with the same source lines get the same choice, and a
    smaller fraction is a part of a larger one.

    Args:
        keys: with a length; walked through twice.
        fraction: of them.
        seed: of the choice.
        together: equal keys are chosen together, that share of the different ones.

    Example:
        >>> set(choose_fraction("abcdefgh", 0.25, seed=1)) < set(choose_fraction("abcdefgh", 0.5, seed=1))
        True
    """
    if fraction >= 1 or not len(keys):
        return np.arange(len(keys))
    if together:
        hashes = np.fromiter((_hash(f"{seed} 1 {key}") for key in keys), np.uint64, len(keys))
        different = np.unique(hashes)
        return np.flatnonzero(hashes <= different[max(1, round(fraction * len(different))) - 1])
    seen = _occurrences(np.fromiter((_hash(key) for key in keys), np.uint64, len(keys)))
    ranks = (_hash(f"{seed} {turn} {key}") for turn, key in zip(seen.tolist(), keys, strict=True))
    order = np.argsort(np.fromiter(ranks, np.uint64, len(keys)), kind="stable")
    return np.sort(order[: max(1, round(fraction * len(keys)))])


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _occurrences(values: np.ndarray) -> np.ndarray:
    """Return of each value the how-manieth of its kind it is, from 1."""
    order = np.argsort(values, kind="stable")
    is_new = np.diff(values[order], prepend=values[order[:1]] ^ np.uint64(1)) != 0
    begins = np.maximum.accumulate(np.where(is_new, np.arange(len(values)), 0))
    turns = np.empty(len(values), dtype=np.int64)
    turns[order] = np.arange(len(values)) - begins + 1
    return turns
