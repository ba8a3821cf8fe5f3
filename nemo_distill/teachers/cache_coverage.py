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
"""Whether a cache holds the text that a student trains on: by blocks of keys, once for a text in a store."""

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from nemo.collections.nlp.data import TranslationDataset
from torch.utils.data import ConcatDataset

from nemo_distill.data.line_dataset import LineDataset, with_prefix
from nemo_distill.data.mixing.dataset import MixedDataset
from nemo_distill.data.tokens.pairs import TextBatches
from nemo_distill.data.tokens.store import key_of, made_once
from nemo_distill.support import files, incoming
from nemo_distill.support.manifest import MANIFEST
from nemo_distill.support.threads import available_cores
from nemo_distill.support.workers import run_in_order
from nemo_distill.teachers.cache_format import LogitCache, pair_keys

_BLOCK = 1 << 15  # pairs
_FOUND = "found.json"


@dataclass(frozen=True)
class TrainingText:
    """The sentence pairs of a text as a student reads them."""

    text: TextBatches
    prefix: int | None = None
    """What stands in front of the sources."""
    is_reversed: bool = False
    """The student reads the targets as sources."""

    def rows(self, numbers: Sequence[int], token: int | None) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray]]:
        """Return sources and targets of some pairs, a further token in front of the sources."""
        sides = self.text.sources.rows(numbers), self.text.targets.rows(numbers)
        sources, targets = reversed(sides) if self.is_reversed else sides
        return with_prefix(with_prefix(sources, self.prefix), token), targets


@dataclass(frozen=True)
class Coverage:
    """What a cache has of a text."""

    pairs: int
    missed: int
    first: int
    """Number of the first pair that is missed; 0 where there is none."""


def training_texts(dataset) -> Iterator[TrainingText]:
    """Yield the texts of a training set; tarred sets are left out."""
    if isinstance(dataset, MixedDataset):
        for component, prefix in zip(dataset.components, dataset.prefixes, strict=True):
            if isinstance(component, TextBatches):
                yield TrainingText(component, prefix)
    elif isinstance(dataset, LineDataset):
        yield TrainingText(dataset.text, dataset.prepend_id or None, dataset.reverse_lang_direction)
    elif isinstance(dataset, ConcatDataset) or (
        isinstance(getattr(dataset, "datasets", None), list) and not isinstance(dataset, TranslationDataset)
    ):
        for part in dataset.datasets:
            yield from training_texts(part)


def stored_coverage(cache: LogitCache, text: TrainingText, token: int | None) -> Coverage:
    """Return what a cache has of a text; one that lies in a store is looked up once, and the result is noted there.

    Args:
        cache: of the teacher.
        text: of the student.
        token: that stands in front of the sources in the cache alone.
    """
    stored = text.text.stored
    if stored is None or not os.access(stored.parent.parent, os.W_OK):
        return _look_up(cache, text, token, 1)
    manifest = files.sha256(cache.directory / MANIFEST)
    request = [stored.name, manifest, text.prefix, text.is_reversed, token]
    directory = stored.parent.parent / "coverage" / key_of(request)

    def find() -> Coverage | None:
        if not (directory / _FOUND).exists():
            return None
        noted = incoming.read_json(directory / _FOUND)
        return Coverage(*(int(noted[name]) for name in ("pairs", "missed", "first")))

    def make() -> None:
        found = _look_up(cache, text, token, available_cores())
        files.write_json_atomic(directory / _FOUND, vars(found))

    return made_once(directory, find, make, "the look at what the cache has of the training text")


def _look_up(cache: LogitCache, text: TrainingText, token: int | None, processes: int) -> Coverage:
    total = len(text.text.sources)
    starts = [(first,) for first in range(0, total, _BLOCK)]
    work = functools.partial(_missing, cache, text, token)
    missed, firsts = 0, []
    for count, first in run_in_order(work, starts, min(processes, len(starts)), cache.directory):
        missed += count
        firsts += [first] if count else []
    return Coverage(total, missed, firsts[0] if firsts else 0)


def _missing(cache: LogitCache, text: TrainingText, token: int | None, first: int) -> tuple[int, int]:
    """Return how many pairs of a block the cache has not, and the number of the first one."""
    numbers = range(first, min(first + _BLOCK, len(text.text.sources)))
    places = cache.find(pair_keys(zip(*text.rows(numbers, token), strict=True)))
    missing = np.flatnonzero(places < 0)
    return len(missing), first + int(missing[0]) if len(missing) else 0
