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
"""What a word is on the page, and how often the training text has it."""

import sys
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from nemo_distill.data.words import fold_case, split_words
from nemo_distill.support.progress_bar import progress_bar
from nemo_distill.support.text_files import count_lines, iterate_lines

BANDS = ((0, 0), (1, 4), (5, 19), (20, 99), (100, 999), (1000, None))
"""Least and most occurrences in the training text."""
LENGTHS = ((1, 5), (6, 10), (11, 15), (16, 20), (21, 30), (31, 50), (51, None))
"""Least and most words of a sentence."""


class TrainingCounts(NamedTuple):
    """How often the training text has each word that a page asks for."""

    source: Counter
    target: Counter
    pairs: int


@cache
def _marks() -> str:
    """Return all punctuation and signs, which stand around words and are none."""
    return "".join(c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c)[0] in "PS")


def words_of(text: str) -> list[str]:
    """Return the words of a text: its pieces between spaces, without the punctuation around them and without case.

    In scripts that put no space between words each character is one.

    Example:
        >>> words_of('"Zwei Männer, gut-gelaunt."')
        ['zwei', 'männer', 'gut-gelaunt']
    """
    pieces = split_words(text)
    stripped = (each if each[0].isalnum() and each[-1].isalnum() else each.strip(_marks()) for each in pieces)
    return [fold_case(piece) for piece in stripped if piece]


def band_of(count: int, bands: Sequence[tuple[int, int | None]]) -> int:
    """Return the number of the band that a count is in; the first or last where it is in none.

    Example:
        >>> band_of(7, BANDS)
        2
    """
    return max((number for number, (least, _) in enumerate(bands) if count >= least), default=0)


def band_name(band: tuple[int, int | None]) -> str:
    """Return how a band is called.

    Example:
        >>> [band_name(band) for band in ((0, 0), (1, 4), (1000, None))]
        ['0', '1–4', '1,000+']
    """
    least, most = band
    return f"{least:,}+" if most is None else f"{least:,}" if least == most else f"{least:,}–{most:,}"


def count_training_words(files: Sequence[tuple[str, str]], wanted: Collection[str]) -> TrainingCounts:
    """Count words of a training text, in memory that does not grow with it.

    Args:
        files: pairs of source and target files.
        wanted: the words to count, of either side.

    Raises:
        InputError: as `iterate_lines`.
    """
    wanted = frozenset(wanted)
    sides = [Counter(), Counter()]
    pairs = 0
    for pair in files:
        for counts, path in zip(sides, pair, strict=True):
            what, read = f"counting the words of {Path(path).name}", iterate_lines(path)
            lines = progress_bar(what, count_lines(path), iterable=read, leave=False)
            pairs += _count(lines, wanted, counts) * (counts is sides[0])
    return TrainingCounts(*sides, pairs)


def _count(lines: Iterable[str], wanted: frozenset[str], counts: Counter) -> int:
    number = 0
    for line in lines:
        counts.update(word for word in words_of(line) if word in wanted)
        number += 1
    return number
