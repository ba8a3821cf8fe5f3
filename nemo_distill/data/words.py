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
"""Lengths of text in any script: letters as an alphabet has them, and words where no space stands between them."""

import itertools
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

_HAN = r"\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = r"\u3031-\u3035\u3040-\u312f\u31a0-\u31ff\uff66-\uff9f"  # and bopomofo
# Thai, Lao, Tibetan, Myanmar, Khmer, Tai Le, New Tai Lue, Tai Tham
_OTHER_UNSPACED = r"\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf"
_UNSPACED = _HAN + _KANA + _OTHER_UNSPACED
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")
# How many letters a character of Han, kana and Hangul is worth; one of any other script is one. Measured on 2 to 50
# thousand pairs of the UI strings with English, as the English characters for one of the other side.
_LETTERS = [(3.0, re.compile(rf"[{_HAN}]")), (1.5, re.compile(rf"[{_KANA}]")), (2.0, re.compile(r"[\uac00-\ud7a3]"))]
_LETTERS_OF_A_WORD = 5.0
_MOST_MARKS = 30
_MOST_REMEMBERED = 1 << 16  # characters


class Translation(dict):
    """A table for `str.translate` that asks a function of each character, mostly once.

    Args:
        of: returns what stands for a character, None for nothing.

    Example:
        >>> "a1b2".translate(Translation(lambda character: None if character.isdigit() else character))
        'ab'
    """

    def __init__(self, of: Callable[[str], str | None]) -> None:
        super().__init__()
        self._of = of

    def __missing__(self, code: int) -> str | None:
        found = self._of(chr(code))
        if len(self) < _MOST_REMEMBERED:
            self[code] = found
        return found


_MARKS = Translation(lambda character: character if unicodedata.combining(character) else None)


def compatible(text: str) -> str:
    """Return the compatibility form (NFKC) of a text, of each run of combining marks the first 30.

    No language has more of them together (the Stream-Safe Text Format of UAX 15), and a run takes quadratic time.
    """
    if not text.isascii() and len(text.translate(_MARKS)) > _MOST_MARKS:
        runs = itertools.groupby(text, lambda character: unicodedata.combining(character) != 0)
        text = "".join("".join(itertools.islice(run, _MOST_MARKS) if is_marks else run) for is_marks, run in runs)
    return unicodedata.normalize("NFKC", text)


# Marks that capitals lack: the dot of i; of Greek grave, acute, diaeresis, breathings and circumflex
_LACKED = re.compile("(?<=i)\u0307+|(?<=[α-ω])[\u0300\u0301\u0308\u0313\u0314\u0342]+")
_HAS_NO_PLAIN_CASE = re.compile("[ı\u0307\u0370-\u03ff\u1f00-\u1fff]")


def fold_case(text: str) -> str:
    """Return a text without case, composed: texts that differ in case alone are one, whatever their language.

    I, İ, i and ı, of which Turkish makes other pairs than other languages, are all `i`; Greek has no accents, as in
    capitals.

    Example:
        >>> fold_case("IŞIK") == fold_case("ışık"), fold_case("ΑΚΥΡΩΣΗ") == fold_case("Ακύρωση")
        (True, True)
    """
    if text.isascii():
        return text.lower()
    text = text.casefold()
    if _HAS_NO_PLAIN_CASE.search(text):
        text = _LACKED.sub("", unicodedata.normalize("NFD", text.replace("ı", "i")))
    return unicodedata.normalize("NFC", text)


def count_letters(text: str) -> float:
    """Return the length of a text in letters: a measure that translations have in common whatever their scripts.

    White space counts for nothing, a Han character for three letters, a syllable of Hangul for two, kana for one and
    a half, every other character for one; compatibility forms (NFKC) as what they stand for.

    Example:
        >>> count_letters("The pump was repaired"), count_letters("水泵修好了")
        (18.0, 15.0)
    """
    text = compatible(text)
    letters = len("".join(text.split()))
    if text.isascii():
        return float(letters)
    return letters + sum((worth - 1) * len(script.findall(text)) for worth, script in _LETTERS)


def is_unspaced(character: str) -> bool:
    """Return whether a character is of a script that puts no space between words: Han, kana, Thai, Khmer ..."""
    return _IS_UNSPACED.fullmatch(character) is not None


def split_words(text: str) -> list[str]:
    """Return the pieces between spaces; in scripts written without them each character."""
    return _WORD.findall(text)


def split_spaced(text: str) -> list[tuple[str, str]]:
    """Return the pieces of `split_words`, each behind the white space in front of it.

    Example:
        >>> split_spaced("die Pumpe 水泵")
        [('', 'die'), (' ', 'Pumpe'), (' ', '水'), ('', '泵')]
    """
    found = list(_WORD.finditer(text))
    starts = [0, *(match.end() for match in found)]
    return [(text[start : match.start()], match[0]) for start, match in zip(starts, found, strict=False)]


def count_words(text: str) -> int:
    """Return the number of words; where no space stands between them, five letters (see `count_letters`) are one.

    Example:
        >>> count_words("Die Lampe"), count_words("ランプが点灯しました"), count_words("灯")
        (2, 4, 1)
    """
    return math.ceil(sum(map(_letters_of_piece, split_words(text))) / _LETTERS_OF_A_WORD)


def word_ngrams(text: str, size: int) -> Iterator[tuple[str, ...]]:
    """Yield, from each piece of `split_words` on, as many pieces as are `size` words, see `count_words`.

    Example:
        >>> list(word_ngrams("a b c", 2))
        [('a', 'b'), ('b', 'c')]
    """
    pieces = split_words(text)
    return map(tuple, _windows(pieces, [*map(_letters_of_piece, pieces)], size * _LETTERS_OF_A_WORD))


def word_stretches(pieces: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield start and end of each stretch of a text's pieces (see `split_words`) that may be one word.

    Between spaces that is one piece; of a script without spaces, one piece or more, up to that with the fifth letter.

    Example:
        >>> list(word_stretches(["a", "b"])), list(word_stretches(["水", "泵", "好"]))
        ([(0, 1), (1, 2)], [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)])
    """
    letters = [*map(_letters_of_piece, pieces)]
    for start in range(len(pieces)):
        inside = 0.0
        for end in range(start, len(pieces)):
            if inside >= _LETTERS_OF_A_WORD or (inside and not is_unspaced(pieces[end][0])):
                break
            inside += letters[end]
            yield start, end + 1


def repeated_share(text: str, letters: int = 6, fewest: int = 1) -> float:
    """Return which share of a text came before in it: of all its pieces of so many letters, those seen earlier.

    Case and white space count for nothing, nor do less than `fewest` such pieces. Letters are those of
    `count_letters`, so that scripts compare.

    Example:
        >>> round(repeated_share("a red coat, a blue coat, a green coat"), 2), repeated_share("a dog " * 9) > 0.8
        (0.04, True)
    """
    text = "".join(fold_case(compatible(text)).split())
    if text.isascii():  # what `_windows` gives, sooner
        pieces = [text[start : start + letters] for start in range(len(text) - letters + 1)]
    else:
        pieces = [*_windows(text, [_letters_of_character(each) for each in text], letters)]
    repeated = len(pieces) - len(set(pieces))
    return repeated / len(pieces) if repeated >= fewest else 0.0


def _windows(pieces: Sequence, letters: list[float], needed: float) -> Iterator[Sequence]:
    """Yield, from each piece on, as many as have `needed` letters. Letters are whole or halves: sums are exact."""
    end, inside = 0, 0.0
    for start in range(len(pieces)):
        while inside < needed and end < len(pieces):
            inside += letters[end]
            end += 1
        if inside < needed:
            return
        yield pieces[start:end]
        inside -= letters[start]


def _letters_of_character(character: str) -> float:
    if character < "\u2e80":
        return 1.0
    return next((letters for letters, script in _LETTERS if script.fullmatch(character)), 1.0)


def _letters_of_piece(piece: str) -> float:
    return count_letters(piece) if is_unspaced(piece) else _LETTERS_OF_A_WORD
