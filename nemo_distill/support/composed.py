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
"""Text whose letters are decomposed (NFD): to a reader it looks the same, to models and scores it is other text."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

# Without them no line is composed, which takes long in some scripts: marks of Latin, Greek, Cyrillic, Arabic and kana,
# and jamo; of scripts of India halves of a vowel.
_MARKS = re.compile("[\u0300-\u036f\u0653-\u0655\u1161-\u1175\u11a8-\u11c2\u3099\u309a]")
_HALVES = re.compile(
    "[\u09c7\u0b47\u0bc6\u0bc7\u0c46\u0cbf\u0cc6\u0cca\u0d46\u0d47\u0dd9]"
    "[\u09be\u09d7\u0b3e\u0b56\u0b57\u0bbe\u0bd7\u0c56\u0cc2\u0cd5\u0cd6\u0d3e\u0d57\u0dca\u0dcf\u0ddf]"
)
_FIRST_BYTES = b"\xcc\xcd\xd9\xe0\xe1\xe3"
"""Of these characters in UTF-8: text of most scripts of Europe has none, which is found out sooner."""


@dataclass
class Decomposed:
    """Counts the lines of a text that would be shorter composed (NFC).

    Example:
        >>> found = Decomposed()
        >>> found.look(["gut", "scho\\u0308n"])
        >>> found.lines, found.first
        (1, 2)
    """

    lines: int = 0
    first: int = 0
    """The number of the first one, from 1."""
    _number: int = field(default=0, repr=False)
    _open: bytes = field(default=b"", repr=False)

    def look(self, lines: Iterable[str]) -> None:
        """Look at the next lines of the text."""
        for line in lines:
            self._number += 1
            if _may_compose(line) and len(unicodedata.normalize("NFC", line)) < len(line):
                self.lines += 1
                self.first = self.first or self._number

    def look_at_block(self, block: bytes) -> None:
        """Look at the next bytes of the text, which is UTF-8; the last line must have its end."""
        block = self._open + block
        end = block.rfind(b"\n") + 1
        whole, self._open = block[:end], block[end:]
        if any(byte in whole for byte in _FIRST_BYTES) and _may_compose(text := whole.decode()):
            self.look(text[:-1].split("\n"))
        else:
            self._number += whole.count(b"\n")

    def warning(self, name: str) -> str | None:
        """Return what to warn of; None where no line is decomposed.

        Args:
            name: of the text.
        """
        if not self.lines:
            return None
        places = f"line {self.first}" if self.lines == 1 else f"{self.lines} lines, the first is {self.first}"
        return (
            f"{name}: {places}: letters are decomposed (NFD, the accent a character of its own): scores count them as "
            "other letters, models read other tokens. Compose the text: `uconv -x nfc`, Python's "
            "unicodedata.normalize('NFC', line), or `nemo-distill corpus own`, which does so"
        )


def _may_compose(text: str) -> bool:
    return not text.isascii() and bool(_MARKS.search(text) or _HALVES.search(text))
