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
"""Text of your own as a corpus: two files line by line, columns of a table, or the segments of a translation memory.

What is held out are stretches of neighbouring pairs, which are about one thing, and none of it has a near-copy in the
training text; see `corpus.split_pairs`.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

from nemo_distill.data.corpora import corpus
from nemo_distill.errors import InputError
from nemo_distill.support import files, text_files
from nemo_distill.support.quoting import plain_text

LICENCE = "that of the text"

_STRETCH = 10
"""Neighbouring pairs that are held out together."""
_CODES = ("bpt", "ept", "it", "ph", "ut")
"""Elements of a segment of TMX 1.4b whose content is markup of another format, and no text."""
_APART = ("ph", "ut")
"""Of these the ones that may stand for text, such as a line break: words on either side stay apart."""
_MOST_SHOWN = 10


@dataclass(frozen=True)
class Part:
    """Files that a part of the pairs is read from."""

    kind: str
    """`text`, two files of as many lines; `tsv`, a file of columns with tabs between; `tmx`, a translation memory."""
    paths: tuple[Path, ...]
    """Of `text` source and target, else one. Names in `.gz` or `.zst` are decompressed."""
    columns: tuple[int, int] | None = None
    """Of `tsv`, those of source and target, from 1; None: the table has two."""


def build(
    parts: Sequence[Part],
    source: str,
    target: str,
    output_dir: str | os.PathLike,
    *,
    min_words: int = 1,
    valid_size: int = 1000,
    test_size: int = 1000,
    seed: int = 0,
    keep_copies: bool = False,
    overwrite: bool = False,
) -> tuple[dict[str, Any], bool]:
    """Write `train`, `valid` and `test` of some parallel text with a manifest.

    Args:
        parts: what to read, in this order.
        source: language code of the source side.
        target: language code of the target side.
        output_dir: directory to write.
        min_words: words that at least one side of a pair must have.
        valid_size: different sources held out for validation, about.
        test_size: the same for the test.
        seed: another seed holds out other pairs.
        keep_copies: keep pairs whose two sides are the same text.
        overwrite: replace another run in `output_dir`.

    Returns:
        The manifest, and whether the directory was already finished and nothing had to be done.

    Raises:
        InputError: files cannot be read as what they are said to be; too little text; output directory taken.
    """
    corpus.check_languages(source, target)
    corpus.check_counts(min_words=min_words, valid_size=valid_size, test_size=test_size)
    paths = [path for part in parts for path in part.paths]
    hashes = {path: files.sha256(path) for path in paths}
    request = {
        "corpus": "own",
        "source": source,
        "target": target,
        "inputs": {str(number): _noted(part, hashes) for number, part in enumerate(parts, start=1)},
        "min_words": min_words,
        "valid_size": valid_size,
        "test_size": test_size,
        "seed": seed,
        "keep_copies": keep_copies,
    }
    corpus.refuse_inputs_as_outputs(paths, output_dir, source, target)
    return corpus.write(output_dir, request, lambda: _select(parts, hashes, request), overwrite)


def _noted(part: Part, hashes: dict[Path, str]) -> dict[str, Any]:
    """Return what a manifest says of a part."""
    columns = None if part.columns is None else [*part.columns]
    return {"kind": part.kind, "columns": columns, "sha256": [hashes[path] for path in part.paths]}


def _select(
    parts: Sequence[Part], hashes: dict[Path, str], request: dict[str, Any]
) -> tuple[dict[str, list[corpus.Pair]], dict[str, Any]]:
    """Return the pairs of each split and what the manifest tells about them."""
    raw = [
        corpus.Pair(f"{number}:{line // _STRETCH}", *pair)
        for number, part in enumerate(parts)
        for line, pair in enumerate(_READERS[part.kind](part, request["source"], request["target"], hashes))
    ]
    pairs, dropped = corpus.clean(raw, request["min_words"], request["keep_copies"], one_translation=False)
    sources: dict[str, list[str]] = {}
    for pair in pairs:
        sources.setdefault(pair.group, []).append(pair.source)
    try:
        group_splits = corpus.assign_groups(sources, request["valid_size"], request["test_size"], request["seed"])
    except InputError as error:
        reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.items() if count) or "none"
        raise InputError(
            f"of {len(raw)} pairs {len(pairs)} can be used (dropped: {reasons}), which cannot spare "
            f"{request['test_size']} for the test and {request['valid_size']} for validation, by stretches of "
            f"{_STRETCH} neighbours; give more text, or smaller --test-size and --valid-size"
        ) from error
    splits, more_dropped = corpus.split_pairs(pairs, group_splits)
    corpus.check_splits(splits, f"{len(pairs)} usable pairs", "give more text")
    details = {
        "licence": LICENCE,
        "read_pairs": len(raw),
        "dropped": {**dropped, **more_dropped},
        "splits": {split: {"pairs": len(members)} for split, members in splits.items()},
    }
    return splits, details


def _read_text(part: Part, source: str, target: str, hashes: dict[Path, str]) -> list[tuple[str, str]]:
    return text_files.read_parallel(*part.paths, sha256=tuple(hashes[path] for path in part.paths))


def _read_tsv(part: Part, source: str, target: str, hashes: dict[Path, str]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of a table; quotes are text, and a line of white space an empty pair."""
    (path,), columns = part.paths, part.columns
    lines = text_files.read_lines(path, hashes[path])
    if not lines:
        raise text_files.no_text(path, 0)
    for number, line in enumerate(lines, start=1):
        cells = line.split("\t")
        if not line.strip():
            cells = [""] * max(columns or (2,))
        if len(cells) == 1:
            raise InputError(
                f"'{path}', line {number}: has no tab, and tabs stand between columns: {plain_text(line, 80)}"
            )
        if columns is None and len(cells) != 2:
            raise InputError(
                f"'{path}', line {number}: has {len(cells)} columns, where two were expected: "
                f"{plain_text(line, 80)}; say which of them are source and target, such as --columns 2 4"
            )
        first, second = columns or (1, 2)
        if len(cells) < max(first, second):
            raise InputError(
                f"'{path}', line {number}: has {len(cells)} columns, and --columns {first} {second} asks for more: "
                f"{plain_text(line, 80)}"
            )
        yield cells[first - 1], cells[second - 1]


def _read_tmx(part: Part, source: str, target: str, hashes: dict[Path, str]) -> list[tuple[str, str]]:
    """Return the pairs of a translation memory, empty ones of units that lack one of the languages.

    `de` is `de-DE` too, where a unit has no `de`; `de-AT` is that alone. Of several segments it is the first with
    text.
    """
    (path,) = part.paths
    pairs: list[tuple[str, str]] = []
    languages: dict[str, None] = {}

    def take(segments: list[tuple[str, str]]) -> None:
        languages.update(dict.fromkeys(code for code, _ in segments))
        pair = _of_language(segments, source), _of_language(segments, target)
        pairs.append(pair if all(pair) else ("", ""))

    units = _Units(path, take)
    for block in text_files.blocks(path, hashes[path]):
        units.feed(block)
    units.close()
    if not pairs:
        raise InputError(f"'{path}' holds no unit (<tu>); is it TMX?")
    if not any(map(all, pairs)):
        found = plain_text(", ".join([*languages][:_MOST_SHOWN]) or "none", 200)
        raise InputError(
            f"'{path}' has no unit with segments in {source} and {target}; its languages are {found}: give "
            "--source and --target as they are there"
        )
    return pairs


def _of_language(segments: Sequence[tuple[str, str]], wanted: str) -> str:
    """Return the first segment with text of a language or, of one without a region, of any of its regions."""
    wanted = wanted.casefold().replace("_", "-")
    found = [(code.casefold().replace("_", "-"), text) for code, text in segments if text.strip()]
    exact = [text for code, text in found if code == wanted]
    of_regions = [text for code, text in found if "-" not in wanted and code.startswith(f"{wanted}-")]
    return next(iter([*exact, *of_regions]), "")


class _Units:
    """Reads the units of TMX (https://www.gala-global.org/tmx-14b) one by one.

    Args:
        path: for messages.
        take: is called with the segments of each unit, each with its language.
    """

    def __init__(self, path: Path, take: Callable[[Sequence[tuple[str, str]]], None]) -> None:
        self.path, self._take = path, take
        self._segments: list[tuple[str, str]] = []
        self._language, self._text, self._codes, self._apart = "", None, 0, False
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.EntityDeclHandler = self._refuse
        self._parser.SkippedEntityHandler = self._refuse_skipped
        self._parser.buffer_text = True

    def feed(self, block: bytes, is_end: bool = False) -> None:
        """Read some more bytes."""
        try:
            self._parser.Parse(block, is_end)
        except InputError:
            raise
        except expat.ExpatError as error:
            raise InputError(f"'{self.path}' is no XML that can be read: {error}; write the file anew") from error
        except (LookupError, ValueError) as error:  # of an encoding
            raise InputError(f"'{self.path}' cannot be read: {error}; convert it to UTF-8") from error

    def close(self) -> None:
        """Say that these were all bytes."""
        self.feed(b"", is_end=True)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "tu":
            self._segments = []
        elif name == "tuv":
            self._language = attributes.get("xml:lang", attributes.get("lang", ""))
        elif name == "seg":
            self._text, self._codes, self._apart = [], 0, False
        elif name in _CODES:
            self._codes += 1

    def _end(self, name: str) -> None:
        if name == "tu":
            self._take(self._segments)
        elif name == "seg" and self._text is not None:
            self._segments.append((self._language, "".join(self._text)))
            self._text = None
        elif name in _CODES:
            self._codes -= 1
            self._apart = self._apart or name in _APART

    def _characters(self, data: str) -> None:
        if self._text is not None and not self._codes:
            if self._apart and self._text and self._text[-1][-1].isalnum() and data[0].isalnum():
                self._text.append(" ")
            self._text.append(data)
            self._apart = False

    def _refuse(self, name: str, *_: Any) -> None:
        raise InputError(f"'{self.path}' declares an entity, {plain_text(name, 40)}, which no TMX needs; remove it")

    def _refuse_skipped(self, name: str, is_parameter: bool) -> None:
        if not is_parameter:
            raise InputError(
                f"'{self.path}' has the entity &{plain_text(name, 40)};, whose text is not in it; write the character "
                "in its place"
            )


_READERS = {"text": _read_text, "tsv": _read_tsv, "tmx": _read_tmx}
