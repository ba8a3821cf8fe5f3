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
"""Whether a job can use its texts, read before anything runs."""

import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from nemo_distill.errors import InputError
from nemo_distill.support.text_files import check_parallel, iterate_lines, measure_text, no_text

_LOOKED_AT, _LOOKED_AMONG = 2000, 1_000_000
"""Lines of each file, and of the training text, at most."""
_SHARE = 0.5
"""Of the looked-at lines: from there on they are the training text's translations."""


def corpus_faults(directory: Path, source: str, target: str) -> list[str]:
    """Return why a directory is no corpus of two languages: train, valid and test files of each."""
    if not directory.is_dir():
        state = "is no directory" if os.path.lexists(directory) else "does not exist"
        return [f"the corpus '{directory}' {state}; give a directory with train, valid and test files per language"]
    names = [f"{split}.{language}" for split in ("train", "valid", "test") for language in (source, target)]
    missing = [name for name in names if not (directory / name).is_file()]
    if not missing:
        return []
    others = [str(path.name) for name in missing for path in sorted(directory.glob(f"{glob.escape(name)}.*"))]
    if others:
        return [
            f"'{directory}' lacks {', '.join(missing)}, and has {', '.join(others)}; decompress what is compressed"
        ]
    there = sorted(path.name for path in directory.glob("train.*"))
    others = f"; it has {', '.join(there[:4])}: say which languages, --source and --target" if there else ""
    return [f"'{directory}' lacks {', '.join(missing)}; a corpus has train, valid and test files per language{others}"]


def check_texts(texts: Iterable[Sequence[Path]]) -> list[str]:
    """Read texts to their ends, a gigabyte in two to seven seconds: what is wrong there would stop a job hours later.

    Args:
        texts: of each its file and those of its translations, if it has any.

    Returns:
        A line on each file with decomposed letters.

    Raises:
        InputError: a file is missing, empty, no text or damaged, or has not as many lines as what it translates.
    """
    found = []
    for source, *targets in texts:
        sizes = {path: measure_text(path) for path in (source, *targets)}
        for path, (lines, has_text, decomposed) in sizes.items():
            if not has_text:
                raise no_text(path, lines)
            if warning := decomposed.warning(f"'{path}'"):
                found.append(warning)
        for target in targets:
            check_parallel(source, sizes[source][0], target, sizes[target][0])
    return list(dict.fromkeys(found))


def leaks(train: tuple[Path, Path], tests: Mapping[str, Sequence[Path]]) -> list[str]:
    """Return a line on each test set of which pairs are in the training text too: their score is of what is known.

    Lines are compared as they are, without white space around them; `nemo-distill leak-check` finds more.

    Args:
        train: source and target of the training text.
        tests: by name the source and the translations of each test set.
    """
    pairs: dict[tuple[str, str], set[str]] = {}
    for name, (source, *targets) in tests.items():
        for target in targets:
            for pair in _pairs(source, target):
                pairs.setdefault(pair, set()).add(name)
    found = {pair for pair in _pairs(*train) if pair in pairs and all(pair)}
    counts = {name: sum(name in pairs[pair] for pair in found) for name in tests}
    return [
        f"test set {name}: {count} of its pairs are in the training text too, and its score is the better for it; "
        "`nemo-distill leak-check` says which"
        for name, count in counts.items()
        if count
    ]


def _pairs(source: Path, target: Path) -> Iterator[tuple[str, str]]:
    for lines in zip(iterate_lines(source), iterate_lines(target), strict=True):
        yield lines[0].strip(), lines[1].strip()


def check_unlabelled(files: Sequence[Path], corpus: Mapping[str, Sequence[Path]], tests: Sequence[Path] = ()) -> None:
    """Look at the beginning of each file.

    Args:
        files: of text in the source language.
        corpus: source and target file of the training, validation and test text; none where the job fetches it.
        tests: files of further test sets.

    Raises:
        InputError: a file is missing, empty, no text or damaged where it begins; is given twice, or one of the corpus
            or of a test set; or most of its lines are of the training text's translations.
    """
    seen = {os.path.realpath(each): f"the job's own '{each}'" for each in (*itertools.chain(*corpus.values()), *tests)}
    lines = {file: {line.strip() for line in itertools.islice(iterate_lines(file), _LOOKED_AT)} for file in files}
    for file, found in lines.items():
        if not any(found):
            raise InputError(f"unlabelled: '{file}' is empty; give text in the source language")
    for file in files:
        if (path := os.path.realpath(file)) in seen:
            raise InputError(f"unlabelled: '{file}' is {seen[path]}; give other text, each file once")
        seen[path] = f"given twice, as '{file}' too"
    if "train" in corpus:
        source, target = corpus["train"]
        for file, found in lines.items():
            of_target, of_source = _found_in(found, target), _found_in(found, source)
            if of_target >= _SHARE * len(found) and of_target > of_source:
                raise InputError(
                    f"unlabelled: {of_target} of the first {len(found)} different lines of '{file}' are lines of "
                    f"'{target}'; give text in the source language"
                )


def _found_in(lines: set[str], path: Path) -> int:
    """Return how many of some lines the beginning of a file has."""
    return len(lines.intersection(line.strip() for line in itertools.islice(iterate_lines(path), _LOOKED_AMONG)))
