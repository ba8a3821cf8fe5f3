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
"""Make a corpus of LibreOffice's help, which is translated paragraph by paragraph: one of docs/results.md is of it.

apt-get download libreoffice-help-es libreoffice-help-en-us
for each in libreoffice-help-*.deb; do dpkg-deb -x $each help; done
python docs/help_corpus.py help/usr/share/libreoffice/help es en-US data/help

Paragraphs of the same id belong together. Whole pages go to training, validation (5 %) and test (5 %), by a hash of
their names. Left out are paragraphs of fewer than three words on a side, those that are not translated, and of
training ones those that validation or test set hold, but for digits, signs and case.
"""

import hashlib
import re
import sys
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

_BLOCKS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "td", "li"}
_VOID = {"br", "img", "hr", "meta", "link", "input"}
_OTHER_SYSTEMS = {"MAC", "UNIX"}
_LEAST_WORDS = 3


class Paragraphs(HTMLParser):
    """The text of a page's paragraphs by their ids, without what is hidden."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self._parts: dict[str, list[str]] = {}
        self._id = ""
        self._open: list[tuple[str, bool]] = []
        self.feed(page)
        joined = {name: " ".join("".join(parts).split()) for name, parts in self._parts.items()}
        self.texts = {name: unicodedata.normalize("NFC", text) for name, text in joined.items()}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a paragraph, or a part of one that may be hidden."""
        found = dict(attrs)
        if tag in _BLOCKS:
            name = found.get("id") or ""
            self._id, self._open = name if re.match("(par|hd|tit)_id", name) else "", []
        elif tag not in _VOID:
            self._open.append((tag, "hidden" in found or found.get("class") in _OTHER_SYSTEMS))

    def handle_endtag(self, tag: str) -> None:
        """End a paragraph, or a part of one."""
        if tag in _BLOCKS:
            self._id, self._open = "", []
        elif self._open and self._open[-1][0] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        """Take text."""
        if self._id and not any(hidden for _, hidden in self._open):
            self._parts.setdefault(self._id, []).append(data)


def split_of(page: str) -> str:
    """Return the set that a page belongs to."""
    number = int(hashlib.sha256(page.encode()).hexdigest(), 16) % 100
    return "test" if number < 5 else "valid" if number < 10 else "train"


def likeness(text: str) -> str:
    """Return what two paragraphs have in common that are the same but for digits, signs and case."""
    return re.sub(r"\W+|\d+", " ", text.lower()).strip()


def main(root: Path, source: str, target: str, out: Path) -> None:
    """Write train, valid and test files of both languages."""
    found: dict[str, list[tuple[str, str]]] = {"test": [], "valid": [], "train": []}
    for path in sorted((root / target / "text").rglob("*.html")):
        page = path.relative_to(root / target / "text")
        other = root / source / "text" / page
        if not other.exists():
            continue
        sources, targets = (Paragraphs(each.read_text("utf-8")).texts for each in (other, path))
        for name, text in targets.items():
            pair = (sources.get(name, ""), text)
            if pair[0] != text and all(len(side.split()) >= _LEAST_WORDS for side in pair):
                found[split_of(str(page))].append(pair)
    out.mkdir(parents=True, exist_ok=True)
    held_out: set[str] = set()
    for split, pairs in found.items():
        kept: dict[tuple[str, str], None] = {}
        for pair in pairs:
            alike = set(map(likeness, pair))
            if not alike & held_out:
                kept[pair] = None
                held_out |= alike if split != "train" else set()
        for side, language in enumerate((source, target)):
            lines = (f"{pair[side]}\n" for pair in kept)
            (out / f"{split}.{language.partition('-')[0]}").write_text("".join(lines), "utf-8")
        print(f"{split}: {len(kept)} pairs")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
