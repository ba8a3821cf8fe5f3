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
"""Sentence pairs cut into batches, from their lengths alone.

The batches are those of NeMo's `TranslationDataset.pack_data_into_batches`, which walks through lists of all pairs.
Pairs of equal lengths are alike to it. So here the pairs are sorted by counting, and the walk takes them from *cells*,
all pairs with one length of source and one of target: its steps are as many as there are cells and batches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Packing(Sequence):
    """Which pairs make each batch."""

    order: np.ndarray
    """Numbers of the pairs, from 0, batch behind batch: uint32 [pairs]."""
    starts: np.ndarray
    """Where each batch begins in `order`, and the end of the last one: int64 [batches + 1]."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> list[int]:
        """Return the numbers of the pairs of one batch."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self.order[self.starts[number] : self.starts[number + 1]].tolist()


def pack(source: np.ndarray, target: np.ndarray, tokens_in_batch: int) -> Packing:
    """Cut pairs into batches of about so many tokens, padding included, by NeMo's rule.

    Args:
        source: length of each source, with start and end, int32 [pairs].
        target: length of each target.
        tokens_in_batch: of source and target together. The pair that makes a batch larger ends it; of nine pairs or
            more, the last ones then go into the next batch, so that a multiple of eight stays.

    Example:
        >>> list(pack(np.array([5, 3, 5]), np.array([4, 4, 4]), 8))
        [[1, 0], [2]]
    """
    sides = [_ranked(side) for side in (source, target)]
    (source_lengths, _), (target_lengths, _) = sides
    counts = np.zeros(len(source_lengths) * len(target_lengths), dtype=np.int64)
    for _, cells in _cells(source, target, sides):
        counts += np.bincount(cells, minlength=len(counts))
    order = np.empty(len(source), dtype=np.uint32)
    places = np.cumsum(counts) - counts
    filled = np.flatnonzero(counts)
    rows, columns = np.divmod(filled, max(len(target_lengths), 1))
    starts, pieces = _walk(
        source_lengths[rows], target_lengths[columns], counts[filled], places[filled], tokens_in_batch
    )
    for first, cells in _cells(source, target, sides):
        local = np.argsort(cells.astype(np.min_scalar_type(len(counts))), kind="stable")  # 16 bits: by their digits
        found, begins, number = np.unique(cells[local], return_index=True, return_counts=True)
        within = np.arange(len(local)) - np.repeat(begins, number)
        order[places[cells[local]] + within] = local + first
        places[found] += number
    return Packing(_joined(order, *pieces), starts)


def _ranked(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lengths that occur, ascending, and for each length its place among them."""
    occurs = np.bincount(lengths) > 0 if len(lengths) else np.zeros(0, dtype=bool)
    return np.flatnonzero(occurs), np.cumsum(occurs) - 1


def _cells(
    source: np.ndarray, target: np.ndarray, sides: Sequence[tuple[np.ndarray, np.ndarray]]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of a pair, and the cells of it and the next ones; they grow with source, then with target."""
    (_, source_ranks), (target_lengths, target_ranks) = sides
    for first in range(0, len(source), _CHUNK):
        rows = slice(first, first + _CHUNK)
        yield first, source_ranks[source[rows]] * len(target_lengths) + target_ranks[target[rows]]


def _walk(
    source: np.ndarray, target: np.ndarray, counts: np.ndarray, places: np.ndarray, tokens_in_batch: int
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Fill batches, always with the shortest pair of a length of source or of the next one, whichever pads less.

    Args:
        source: length of the sources of each cell; cells are sorted by it, and then by `target`.
        target: length of its targets.
        counts: its pairs.
        places: of its first pair in the sorted order.
        tokens_in_batch: most tokens of a batch.

    Returns:
        Where batches begin, and the pieces of the sorted order that they consist of: first place and length.
    """
    edges = np.flatnonzero(np.diff(source, prepend=-1, append=-1)).tolist()
    heads, ends = edges[:-1], edges[1:]  # of each length of source: its first cell with pairs left, and its end
    source, target, left, places = (each.tolist() for each in (source, target, counts, places))
    batches: list[list[tuple[int, int, int]]] = [[]]  # pieces: cell, first place, pairs
    size = longest_source = longest_target = 0

    for bucket in range(len(heads)):
        while heads[bucket] < ends[bucket]:
            chosen, cell, most = bucket, heads[bucket], left[heads[bucket]]
            widths = max(longest_source, source[cell]), max(longest_target, target[cell])
            if bucket + 1 < len(heads) and heads[bucket + 1] < ends[bucket + 1]:
                further = heads[bucket + 1]
                wider = max(longest_source, source[further]), max(longest_target, target[further])
                if sum(widths) > sum(wider):
                    # and so it goes on as long as the shortest of this bucket would make the batch longer
                    most = left[further] if target[cell] > wider[1] else 1
                    chosen, cell, widths = bucket + 1, further, wider
            longest_source, longest_target = widths
            taken = min(most, max(tokens_in_batch // sum(widths) - size + 1, 1))
            batches[-1].append((cell, places[cell], taken))
            size += taken
            places[cell] += taken
            left[cell] -= taken
            heads[chosen] += not left[cell]
            if size * sum(widths) > tokens_in_batch:
                size = _close(batches, size)
                longest_source = max((source[each] for each, _, _ in batches[-1]), default=0)
                longest_target = max((target[each] for each, _, _ in batches[-1]), default=0)
    sizes = [sum(count for _, _, count in batch) for batch in batches]
    starts = np.cumsum([0, *filter(None, sizes)], dtype=np.int64)
    pieces = np.array([piece[1:] for batch in batches for piece in batch], dtype=np.int64).reshape(-1, 2)
    return starts, (pieces[:, 0], pieces[:, 1])


def _close(batches: list[list[tuple[int, int, int]]], size: int) -> int:
    """Begin a new batch with what the last one, of so many pairs, has too much; return its size."""
    leave = 8 * ((size - 1) // 8) or size
    closed, rest = [], []
    for cell, place, count in batches[-1]:
        here = min(count, leave)
        leave -= here
        closed += [(cell, place, here)] * (here > 0)
        rest += [(cell, place + here, count - here)] * (count > here)
    batches[-1:] = [closed, rest]
    return sum(count for _, _, count in rest)


def _joined(order: np.ndarray, firsts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return pieces of an array one behind the other."""
    joined, done = np.empty_like(order), 0
    for some in range(0, len(firsts), _CHUNK >> 3):
        first, length = firsts[some : some + (_CHUNK >> 3)], lengths[some : some + (_CHUNK >> 3)]
        places = np.repeat(first - (np.cumsum(length) - length), length) + np.arange(length.sum())
        joined[done : done + len(places)] = order[places]
        done += len(places)
    return joined
