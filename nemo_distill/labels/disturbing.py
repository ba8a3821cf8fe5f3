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
"""Sources that nobody wrote: copies of a text with other words of it in the place of some, for a teacher to translate.

What a teacher says of the text that it learnt is much what that text says. Of other sources it says what else it
knows, and a student of little text has more of it to learn from. Jiao et al. 2020 (TinyBERT, arXiv:1909.10351) and
Beyer et al. 2022 (arXiv:2106.05237) do so with sentences and pictures; words in place of others are the noise of
SwitchOut (Wang et al. 2018, arXiv:1808.07512).
"""

import itertools
import random
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nemo_distill.data.words import is_unspaced, split_spaced
from nemo_distill.errors import InputError
from nemo_distill.labels.filtering import placeholder_spans
from nemo_distill.support.texts import GivenText, Texts

REPLACED = 0.2
"""Share of the words in whose place another comes."""
LEFT_OUT = 0.05
"""Share of the words that are left out."""
_BLOCK = 4096  # lines; words come from the same block and the one before, so that no more than these are in memory
_FORMS = re.compile(
    r"\{\s*\w+\s*,\s*(?:plural|select|selectordinal|number|date|time)\b|(?<!\w)\w+(?=\s*\{[^{}]*[\s#])"
)
"""Of ICU messages: what is counted, and the name of a form in front of its text."""
_MARKUP = frozenset("{}<>[]%$@#=|\\/_`")


class DisturbedTexts(Texts):
    """Copies of a text, one after the other, all disturbed differently: line n of each is made of line n.

    The same text, number of copies and seed give the same lines. See `disturb`; words come from the lines nearby, some
    four to eight thousand.

    Args:
        given: a file, or several.
        copies: how many.
        seed: another one disturbs otherwise.

    Raises:
        InputError: no file, or no copy.
    """

    def __init__(self, given: GivenText, copies: int, seed: int = 0) -> None:
        super().__init__(given)
        if copies < 1:
            raise InputError(f"disturb: got {copies}; give at least 1, or leave it out")
        self.copies, self._seed = copies, seed

    def __str__(self) -> str:
        return f"{self.copies} disturbed cop{'y' if self.copies == 1 else 'ies'} of {super().__str__()}"

    def lines(self, sha256: str | Sequence[str] | None = None) -> Iterator[str]:
        """Yield the lines of all copies; `sha256` is of the text as it is given."""
        for copy in range(self.copies):
            lines, before = super().lines(sha256), []
            for number in itertools.count():
                block = list(map(_pieces, itertools.islice(lines, _BLOCK)))
                if not block:
                    break
                yield from _disturb(block, random.Random(f"{self._seed} {copy} {number}"), before)
                before = block


def disturb(lines: Sequence[str], generator: random.Random) -> Iterator[str]:
    """Yield each line with some of its words left out, and others in the place of some.

    A word begins with a letter and has no sign of markup, so that numbers, punctuation and placeholders stay, and what
    says which form of an ICU message is whose (`{count, plural, one {...} other {...}}`). In
    scripts that put no space between words (Han, kana, Thai ...) a character with its marks is one, and only such a
    one takes its place. In every line that has a word at least one is replaced, by chance it may be by itself, or left
    out, and one word stays or comes.

    Args:
        lines: sentences; words are drawn from all of them as often as they occur.
        generator: of the draws.

    Example:
        >>> list(disturb(["turn the lamp on", "open {door} 3"], random.Random(3)))
        ['on the lamp on', 'turn {door} 3']
    """
    return _disturb(list(map(_pieces, lines)), generator)


def _disturb(
    split: Sequence[Sequence["_Piece"]], generator: random.Random, others: Sequence[Sequence["_Piece"]] = ()
) -> Iterator[str]:
    """Yield what `disturb` does of lines in pieces, with words of others too."""
    pools: dict[bool, list[str]] = {False: [], True: []}
    for piece in itertools.chain.from_iterable([*others, *split]):
        if piece.is_word:
            pools[is_unspaced(piece.text[0])].append(piece.text)
    for pieces in split:
        draws = {place: generator.random() for place, piece in enumerate(pieces) if piece.is_word}
        if draws and min(draws.values()) >= REPLACED + LEFT_OUT:  # the one that came closest
            draws[min(draws, key=draws.get)] = REPLACED
        if draws and max(draws.values()) < LEFT_OUT:
            draws[max(draws, key=draws.get)] = LEFT_OUT
        parts, space = [], ""
        for place, piece in enumerate(pieces):
            draw, text = draws.get(place, 1.0), piece.text
            space = piece.space or space
            if draw < LEFT_OUT:
                continue
            if draw < REPLACED + LEFT_OUT:
                pool = pools[is_unspaced(text[0])]
                text = pool[int(generator.random() * len(pool))]
            parts += [space, text]
            space = ""
        yield "".join(parts).strip()


class _Piece(NamedTuple):
    """A piece of a line."""

    space: str
    """In front of it."""
    text: str
    is_word: bool


def _pieces(line: str) -> list[_Piece]:
    """Return the pieces of a line, each character without spaces around it together with its marks."""
    joined: list[tuple[str, list[str]]] = []
    for space, text in split_spaced(line):
        if joined and not space and unicodedata.category(text[0]).startswith("M"):
            joined[-1][1].append(text)
        else:
            joined.append((space, [text]))
    kept = bytearray(len(line))  # 1 where a placeholder is
    for start, end in [*placeholder_spans(line), *(found.span() for found in _FORMS.finditer(line))]:
        kept[start:end] = b"\1" * (end - start)
    pieces, end = [], 0
    for space, texts in joined:
        text = "".join(texts)
        start = end + len(space)
        end = start + len(text)
        pieces.append(_Piece(space, text, text[0].isalpha() and not any(kept[start:end]) and not _MARKUP & set(text)))
    return pieces
