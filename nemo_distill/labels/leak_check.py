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
"""Is a test set in the training text? Lines are compared after normalisation, and by shared runs of words."""

import contextlib
import functools
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

from nemo_distill.data.words import Translation, compatible, fold_case, word_ngrams
from nemo_distill.errors import InputError
from nemo_distill.labels.nbest import table_cell
from nemo_distill.support import files, incoming, text_files
from nemo_distill.support.compressed import suffix_of
from nemo_distill.support.numbered import number_of
from nemo_distill.support.progress_bar import progress_bar
from nemo_distill.support.quoting import plain_text
from nemo_distill.support.threads import available_cores
from nemo_distill.support.workers import run_in_order

EXACT = "exact"
NGRAM = "ngram"
_NAME_SHOWN = 1000
_COLUMNS = (b"train", b"line", b"kind", b"test", b"line", b"text")
_HEADER = b"\t".join(_COLUMNS) + b"\n"
_BLOCK_BYTES = 1 << 18
_INVISIBLE = re.compile(  # Unicode's Default_Ignorable_Code_Point and category Cf; control characters but white space
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160"
    "\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_LETTERS = Translation(lambda character: character if unicodedata.category(character)[0] in "LMN" else " ")


def normalise(text: str) -> str:
    """Return a text without case, punctuation, symbols and differences of white space (letters, marks, digits stay).

    What is not seen, such as a soft hyphen, is not there; punctuation and symbols are like a space.

    Example:
        >>> normalise("  Zone 1:  OPEN!")
        'zone 1 open'
    """
    text = fold_case(compatible(_INVISIBLE.sub("", text)))
    return " ".join(text.translate(_LETTERS).split())


class Leak(NamedTuple):
    """A line of training text that a test set holds too."""

    kind: str
    """`exact` (equal after normalisation) or `ngram` (a run of words in common)."""
    file: str
    """The test file."""
    line: int
    """Its line, from 1; the first one if several match."""


class TestText:
    """The lines of test files, to look training lines up in. Lines of punctuation alone match nothing.

    Args:
        paths: text files, any language, one sentence a line.
        ngram: a training line with this many words in a row in common with a test line counts too; 0: exact only.
        sha256: what the files must have, compared with what is read.

    Raises:
        InputError: a file is missing, empty, not UTF-8 or has changed, or `ngram` is negative.

    Example:
        >>> TestText(["test.de"]).find("guten tag")  # doctest: +SKIP
        Leak(kind='exact', file='test.de', line=3)
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    def __init__(
        self, paths: Sequence[str | os.PathLike], ngram: int = 0, sha256: Sequence[str] | None = None
    ) -> None:
        if ngram < 0:
            raise InputError(f"ngram: got {ngram}; give a number of words, or 0 for exact matches only")
        self.ngram = ngram
        self.paths = [str(path) for path in paths]
        self.sizes: list[int] = []
        """Lines of each file."""
        self._lines: dict[str, list[tuple[int, int]]] = {}
        self._ngrams: dict[tuple[str, ...], tuple[int, int]] = {}
        for place, (path, digest) in enumerate(zip(paths, sha256 or [None] * len(paths), strict=True)):
            lines = text_files.read_lines(path, digest)
            if not any(line.strip() for line in lines):
                raise text_files.no_text(path, len(lines))
            self.sizes.append(len(lines))
            for number, line in enumerate(lines, start=1):
                if text := normalise(line):
                    self._lines.setdefault(text, []).append((place, number))
                    for words in self._ngrams_of(text):
                        self._ngrams.setdefault(words, (place, number))

    def find(self, line: str) -> Leak | None:
        """Return where a training line occurs, an exact match if there is one; None if it does not."""
        matches = self.find_all(line)
        return matches[0] if matches else None

    def find_all(self, line: str) -> list[Leak]:
        """Return every exact match of a training line; if there is none, the first match of a run of words."""
        text = normalise(line)
        exact = self._lines.get(text, []) if text else []
        if exact:
            return [Leak(EXACT, self.paths[place], number) for place, number in exact]
        for words in self._ngrams_of(text):
            if words in self._ngrams:
                place, number = self._ngrams[words]
                return [Leak(NGRAM, self.paths[place], number)]
        return []

    def _ngrams_of(self, text: str) -> Iterator[tuple[str, ...]]:
        return word_ngrams(text, self.ngram) if self.ngram else iter(())


@dataclass
class LeakCount:
    """What one training file shares with one test file."""

    train: str
    test: str
    train_lines: int
    """Lines of the training file."""
    test_lines: int
    """Lines of the test file."""
    exact: int = 0
    """Training lines that equal a test line after normalisation."""
    ngram: int = 0
    """Training lines without such a match that share a run of words."""
    test_lines_found: set[int] = field(default_factory=set)
    """Numbers of the test lines with an exact match, from 1."""

    def add(self, other: "LeakCount") -> None:
        """Add what further lines of the training file share with the test file."""
        self.train_lines += other.train_lines
        self.exact += other.exact
        self.ngram += other.ngram
        self.test_lines_found |= other.test_lines_found


@dataclass
class LeakReport:
    """Every training file against every test file."""

    counts: list[LeakCount]
    was_there: bool = False
    """The file of the report was there already, and says the same."""

    @property
    def leaks(self) -> int:
        """Leaked training lines; a line found in two test files counts twice."""
        return sum(count.exact + count.ngram for count in self.counts)

    def table(self) -> str:
        """Return the counts as text, a row for each pair of files."""
        rows = [("train", "lines", "test", "lines", "exact", "n-gram", "test lines found")]
        for count in self.counts:
            found = len(count.test_lines_found)
            share = f"{found} ({100 * found / count.test_lines:.1f} %)"
            numbers = (count.test_lines, count.exact, count.ngram, share)
            names = [plain_text(name, _NAME_SHOWN) for name in (count.train, count.test)]
            rows.append((names[0], str(count.train_lines), names[1], *map(str, numbers)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        left = (0, 2)
        return "\n".join(
            "  ".join(
                cell.ljust(width) if place in left else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        )


def check_report(path: str | os.PathLike) -> bool:
    """Return whether a report of leaks is at `path`.

    Raises:
        InputError: something else is there, or the name is that of a compressed file, which a report is not.
    """
    fix = "give another name for the report"
    if suffix_of(path):
        raise InputError(f"'{path}': a report is not compressed; {fix}")
    if not os.path.lexists(path):
        return False
    if os.path.islink(path):
        raise InputError(f"'{path}' is a link; {fix}")
    with incoming.open_regular(path, fix=fix) as stream:
        if stream.read(len(_HEADER)) != _HEADER:
            raise InputError(f"'{path}' exists and is no report of leak-check, so it stays; {fix}")
    return True


def check_leaks(
    train: Sequence[str | os.PathLike],
    test: Sequence[str | os.PathLike],
    ngram: int = 0,
    report: str | os.PathLike | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> LeakReport:
    """Look every line of the training files up in every test file, by as many processes as there are cores.

    The test files are held in memory, the training files are not.

    Args:
        train: training text, one sentence a line; any languages.
        test: test text.
        ngram: see `TestText`.
        report: gets every leaked training line, once for each test file that it was found in, as tab-separated text:
            train file, line, kind, test file, line, text. Control characters in it are spaces.
        overwrite: replace another report.
        progress: show a progress bar.

    Raises:
        InputError: a file is missing, empty, not UTF-8 or given on both sides; another report is there and `overwrite`
            is False, or something else.

    Example:
        >>> print(check_leaks(["train.de"], ["test.de"]).table())  # doctest: +SKIP
    """
    if not train or not test:
        raise InputError("no training text or no test text; give at least one file of each")
    both = set(map(os.path.realpath, train)) & set(map(os.path.realpath, test))
    if both:
        raise InputError(f"'{min(both)}' is given as training and as test text; give different files")
    if report is not None:
        check_report(report)
        files.make_directory(Path(report).parent)
    tests = [TestText([path], ngram) for path in test]
    found = LeakReport([])
    with contextlib.ExitStack() as stack:
        rows = None
        if report is not None:
            stack.enter_context(files.reported_storage(report))
            rows = stack.enter_context(tempfile.TemporaryFile(dir=Path(report).parent))
            rows.write(_HEADER)
        for path in train:
            counts = [LeakCount(str(path), text.paths[0], 0, text.sizes[0]) for text in tests]
            for some, leaked in _check_file(path, tests, progress):
                for count, more in zip(counts, some, strict=True):
                    count.add(more)
                if rows is not None:
                    rows.write(leaked)
            found.counts += counts
            if not counts[0].train_lines and (number_of(path) is None or len(train) == 1):  # some labels may be none
                raise InputError(f"'{path}' is empty; give the training text")
        if rows is not None:
            found.was_there = _write_report(rows, report, overwrite)
    return found


def _check_file(
    path: str | os.PathLike, tests: Sequence[TestText], progress: bool
) -> Iterator[tuple[list[LeakCount], bytes]]:
    """Yield what the blocks of a training file share with each test file, and the rows of the report."""
    with incoming.open_regular(path):  # which says why it is no text
        pass
    processes = text_files.parts([path], _BLOCK_BYTES, available_cores())
    work, leaks = functools.partial(_check_block, path, tests), 0
    title = f"looking through {plain_text(Path(path).name)}"
    with progress_bar(title, text_files.count_lines(path) if progress else None, shown=progress) as bar:
        blocks = text_files.line_blocks(path, size=_BLOCK_BYTES)
        for counts, rows in run_in_order(work, blocks, processes, path):
            yield counts, rows
            leaks += sum(count.exact + count.ngram for count in counts)
            bar.set_postfix_str(f"{leaks} leaked", refresh=False)
            bar.update(counts[0].train_lines)


def _check_block(
    path: str | os.PathLike, tests: Sequence[TestText], first: int, block: bytes
) -> tuple[list[LeakCount], bytes]:
    """Return what a block shares with each test file, and its rows of the report."""
    counts = [LeakCount(str(path), text.paths[0], 0, text.sizes[0]) for text in tests]
    rows = []
    for number, line in enumerate(text_files.decode_block(path, first, block), start=first):
        for count, text in zip(counts, tests, strict=True):
            count.train_lines += 1
            matches = text.find_all(line)
            if not matches:
                continue
            if matches[0].kind == EXACT:
                count.exact += 1
                count.test_lines_found |= {match.line for match in matches}
            else:
                count.ngram += 1
            leak = matches[0]
            cells = (str(path), str(number), leak.kind, leak.file, str(leak.line), line)
            rows.append("\t".join(map(table_cell, cells)))
    return counts, files.line_bytes(rows)


def _write_report(rows: IO[bytes], path: str | os.PathLike, overwrite: bool) -> bool:
    """Write a report of these rows; return whether it was there already.

    Raises:
        InputError: another report is there, and `overwrite` is False; or something else.
    """
    if check_report(path):
        if files.sha256(path) == _stream_sha256(rows):
            return True
        if not overwrite:
            raise InputError(f"'{path}' exists and holds another report; give another name, or --overwrite")
    rows.seek(0)
    with files.atomic_path(path) as temporary, open(temporary, "wb") as stream:
        shutil.copyfileobj(rows, stream)
    return False


def _stream_sha256(stream: IO[bytes]) -> str:
    stream.seek(0)
    hashing = incoming.Hashing(stream)
    while hashing.read(_BLOCK_BYTES):
        pass
    return hashing.sha256()
