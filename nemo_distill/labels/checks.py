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
"""Checks of what is said of pseudo-labels: their manifests, against the files beside them."""

import collections
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from nemo_distill.config.languages import is_language
from nemo_distill.config.mixture import PROCESSED_SOURCE, PROCESSED_TARGET, PSEUDO_SOURCE, PSEUDO_TARGET
from nemo_distill.decoding.engine import MARKS
from nemo_distill.errors import InputError
from nemo_distill.labels.filtering import REASONS
from nemo_distill.support import text_files
from nemo_distill.support.compressed import suffix_of
from nemo_distill.support.manifest import MANIFEST
from nemo_distill.support.numbered import base_name, numbered, numbers_in
from nemo_distill.support.records import read_record

NBEST, DROPPED = "nbest.jsonl", "dropped.tsv"
RAW_NAMES, PROCESSED_NAMES = (PSEUDO_SOURCE, PSEUDO_TARGET), (PROCESSED_SOURCE, PROCESSED_TARGET)
TRUNCATED = "truncated source"
_NO_MARKS = "its counts of hypotheses that are read as others are none"
_MOST_SHOWN = 6


def file_names(processed: bool, *others: str, suffix: str = "", numbers: Sequence[int | None] = (None,)) -> list[str]:
    """Return the names of the files of labels: with the processed text or without, plain or compressed, numbered."""
    names = (*RAW_NAMES, *(PROCESSED_NAMES if processed else ()), *others)
    return [numbered(name + suffix, number) for name in names for number in numbers]


def listed_names(manifest: Mapping[str, Any], *others: str) -> list[str]:
    """Return the names that a manifest of labels should list, by what it says and the largest number in it."""
    numbers = numbers_in(manifest["files"])
    return file_names(has_processed(manifest), *others, suffix=suffix_in(manifest), numbers=numbers)


def has_processed(manifest: Mapping[str, Any]) -> bool:
    """Return whether a manifest of labels lists processed text."""
    return not set(PROCESSED_NAMES).isdisjoint(map(base_name, manifest["files"]))


def reads_processed(request: Mapping[str, Any]) -> bool:
    """Return whether labels were made of text that is processed already, and so is their gold text, by a request."""
    return bool(request.get("processed"))


def suffix_in(manifest: Mapping[str, Any]) -> str:
    """Return the end of the names of the files that a manifest of labels lists; nothing where they are plain."""
    return max(map(suffix_of, manifest["files"]), default="")


@dataclass(frozen=True)
class Counts:
    """How many lines were kept and dropped."""

    lines: int
    kept: int
    dropped: dict[str, int]
    pairs: int | None = None
    """That are written, where a line may have several."""

    def __post_init__(self) -> None:
        numbers = (self.lines, self.kept, *self.dropped.values())
        if min(numbers) < 0 or self.lines != self.kept + sum(self.dropped.values()):
            raise ValueError("the counts do not add up")
        if unknown := self.dropped.keys() - set(REASONS):
            raise ValueError(f"the reason {min(unknown)[:80]!a} is unknown")


@dataclass(frozen=True)
class _Facts:
    """What a manifest of labels says beside its request and its files."""

    engine: str
    counts: Counts
    input_name: str | None = None
    teacher_names: list[str] | None = None
    tokenizers: dict[str, str] | None = None
    languages: dict[str, str | None] | None = None
    read_back: dict[str, int] | None = None

    def __post_init__(self) -> None:
        if not all(value is None or is_language(value) for value in (self.languages or {}).values()):
            raise ValueError("its languages are none")
        if not (self.read_back or {}).keys() <= {*MARKS, TRUNCATED}:
            raise ValueError(_NO_MARKS)


@dataclass(frozen=True)
class _Asked:
    """What of a request says what decodes, and how many hypotheses are kept."""

    engine: str | None = None
    quantization: str = "float32"
    keep: int | None = None

    def fits(self, name: str) -> bool:
        """Return whether the engine called so may have been asked for."""
        engines = {"nemo": "nemo", "ctranslate2": f"ctranslate2 {self.quantization}"}
        asked = engines.values() if self.engine == "auto" else [engines.get(self.engine)]
        return self.engine is None or name.partition(",")[0] in asked


@dataclass(frozen=True)
class _Search:
    """What of a request says how many hypotheses there are."""

    verb: str
    num_hypotheses: int


def check_manifest(manifest: Mapping[str, Any], directory: Path, names: Collection[str]) -> Counts:
    """Check what a manifest of labels says, its counts against the files; return the counts.

    Args:
        manifest: as `support.manifest.find_finished` returns it.
        directory: it lies in, for the message.
        names: of the files that it must list.

    Raises:
        InputError: it lacks one of them, has a value of another type, another engine than was asked for, or other
            counts than the files.
    """
    where, fix = str(directory / MANIFEST), "make the labels anew (--overwrite)"
    if set(manifest["files"]) != set(names):
        shown = ", ".join(list(names)[:_MOST_SHOWN]) + (" ..." if len(names) > _MOST_SHOWN else "")
        raise InputError(f"'{where}' is damaged: it does not list {shown}; {fix}")
    facts = _known(_Facts, manifest, where, fix)
    asked = _known(_Asked, manifest["request"], where, fix)
    if not asked.fits(facts.engine):
        raise InputError(f"'{where}' is damaged: its engine is not the one that was asked for; {fix}")
    counts, most = facts.counts, asked.keep or 1
    if not 0 <= sum((facts.read_back or {}).values()) <= counts.lines * most:
        raise InputError(f"'{where}' is damaged: {_NO_MARKS}; {fix}")
    pairs = counts.kept if counts.pairs is None else counts.pairs
    if _count(directory, manifest, counts.lines, most) != (pairs, counts.dropped):
        raise InputError(f"'{where}' is damaged: its counts are not those of the files; {fix}")
    return counts


def _count(directory: Path, manifest: Mapping[str, Any], lines: int, most: int) -> tuple[int, dict[str, int]] | None:
    """Return how many pairs the files of labels have, and dropped lines by reason; None where they are not aligned.

    Args:
        directory: of the labels.
        manifest: of them.
        lines: of the input.
        most: pairs of a line.
    """
    processed, suffix, numbers = has_processed(manifest), suffix_in(manifest), numbers_in(manifest["files"])
    each, pairs, dropped = manifest["request"].get("lines_per_file"), 0, collections.Counter()
    if each is None and numbers != [None]:
        return None
    if each is not None and (type(each) is not int or each < 1 or len(numbers) != -(-lines // each)):
        return None
    for place, number in enumerate(numbers):
        names = file_names(processed, suffix=suffix, numbers=[number])
        some, *others = (text_files.count_lines(directory / name) for name in names)
        rows = islice(text_files.iterate_lines(directory / numbered(f"{DROPPED}{suffix}", number)), 1, None)
        reasons = collections.Counter(line.partition("\t")[2].partition("\t")[0] for line in rows)
        kept = (lines if each is None else min(each, lines - place * each)) - reasons.total()
        if set(others) != {some} or not kept <= some <= kept * most:
            return None
        pairs += some
        dropped.update(reasons)
    return pairs, dict(dropped)


def check_nbest_request(manifest: Mapping[str, Any], directory: Path) -> int:
    """Return the number of hypotheses that `pseudo-label` was asked for.

    Raises:
        InputError: the manifest's request is not one of `pseudo-label`.
    """
    where, fix = str(directory / MANIFEST), "make the labels anew"
    search = _known(_Search, manifest["request"], where, fix)
    if search.verb != "pseudo-label" or search.num_hypotheses < 1:
        raise InputError(f"'{where}' is damaged: its request is not one of pseudo-label; {fix}")
    return search.num_hypotheses


def _known(cls: type, content: Mapping[str, Any], where: str, fix: str) -> Any:
    known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
    try:
        return read_record(cls, known, where, fix)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"'{where}' is damaged: {error}; {fix}") from error
