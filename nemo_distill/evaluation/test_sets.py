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
"""Test sets that are files, several references among them; how test sets are written on the command line."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sacrebleu.metrics import BLEU, CHRF

from nemo_distill.config.languages import Languages
from nemo_distill.errors import InputError
from nemo_distill.evaluation.named_sets import check_named_set, is_named_set, label_of
from nemo_distill.evaluation.results import TEST_SET_NAME, TestSetResult
from nemo_distill.support.composed import Decomposed
from nemo_distill.support.files import sha256
from nemo_distill.support.text_files import read_parallel
from nemo_distill.support.warned import warn

_PAIR = re.compile("([a-z]{2,3}(?:_[A-Za-z]+)?)-([a-z]{2,3}(?:_[A-Za-z]+)?)")
"""Languages of a test set."""
_NAME_BYTES = 120
"""Of a model or test set, at most: both stand in the name of one file."""


@dataclass(frozen=True)
class TestSet:
    """A named pair of aligned text files, or more than one file of references."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    name: str
    source: str
    target: str
    further_targets: tuple[str, ...] = ()
    languages: Languages | None = None
    """Of this set; they tell a model of several which pair is meant."""

    @classmethod
    def parse(cls, text: str) -> "TestSet":
        """Read `name:source:target`, with further targets after further colons, and languages behind the name.

        Two words joined by `-` behind the name are languages where no file has that name.

        Raises:
            InputError: there are fewer than three parts, or one is empty.

        Example:
            >>> TestSet.parse("wmt20:wmt20.de:wmt20.en")
            TestSet(name='wmt20', source='wmt20.de', target='wmt20.en', further_targets=(), languages=None)
        """
        parts = text.split(":")
        languages = None
        if len(parts) > 3 and (pair := _PAIR.fullmatch(parts[1])) and not os.path.exists(parts[1]):
            languages = Languages(*pair.groups())
            del parts[1]
        if len(parts) < 3 or not all(parts):
            raise InputError(
                f"test set '{text}': write it as name:source-file:target-file, for example t:test.de:test.en, with "
                "languages as t:de-en:test.de:test.en, or by a name of sacreBLEU's, for example wmt14 or wmt14:de-en"
            )
        name, source, target, *further = [parts[0], *map(os.path.expanduser, parts[1:])]
        return cls(name, source, target, tuple(further), languages)


@dataclass(frozen=True)
class NamedSet:
    """A test set of sacreBLEU's, not yet in its cache, it may be."""

    set_name: str
    pair: str | None = None
    """Languages, such as `de-en`; None: those of the models."""

    @property
    def name(self) -> str:
        """Its name in results."""
        return label_of(self.set_name, self.pair)


def parse_test_set(text: str) -> TestSet | NamedSet:
    """Read `name:source:target`, or a name of sacreBLEU's, with or without its languages.

    Raises:
        InputError: it is neither, or sacreBLEU has no such set or languages.

    Example:
        >>> parse_test_set("wmt14:de-en")
        NamedSet(set_name='wmt14', pair='de-en')
    """
    name, _, pair = text.partition(":")
    if not name or ":" in pair or (":" in text and not (pair and is_named_set(name))):
        return TestSet.parse(text)
    check_named_set(name, pair or None)
    return NamedSet(name, pair or None)


@dataclass
class TestInput:
    """A test set, read."""

    result: TestSetResult
    sources: list[str]
    references: list[list[str | None]]
    """Of each file of references its lines; None where it has no text and another one has."""
    languages: Languages | None = None
    """As of `TestSet`."""
    metrics: dict[str, BLEU | CHRF] = field(default_factory=dict)
    """BLEU and chrF2, once `choose_metrics` has chosen them."""


def read_test_sets(test_sets: Sequence[TestSet | NamedSet | str]) -> list[TestInput | NamedSet]:
    """Read all test sets that are files; the others are for `read_named_sets`.

    Raises:
        InputError: none given, a bad, unknown or repeated name, or files that `read_parallel` refuses.
    """
    if not test_sets:
        raise InputError("no test set; give at least one as name:source-file:target-file, or by a name of sacreBLEU's")
    parsed = [parse_test_set(item) if isinstance(item, str) else item for item in test_sets]
    check_names(
        [item.name for item in parsed], "test set", TEST_SET_NAME, "up to 100 letters, digits and any of _ @ + = -"
    )
    return [
        item
        if isinstance(item, NamedSet)
        else read_set(item.name, item.source, [item.target, *item.further_targets], item.languages)
        for item in parsed
    ]


def read_set(name: str, source: str, targets: Sequence[str], languages: Languages | None = None) -> TestInput:
    """Read a test set that is files; one without text in a line has no reference there, where another one has."""
    hashes = [sha256(path) for path in (source, *targets)]
    columns = [
        read_parallel(source, target, (hashes[0], target_hash))
        for target, target_hash in zip(targets, hashes[1:], strict=True)
    ]
    references: list[list[str | None]] = [[target for _, target in pairs] for pairs in columns]
    for place, line in enumerate(zip(*references, strict=True)):
        if any(text.strip() for text in line):
            for texts, text in zip(references, line, strict=True):
                texts[place] = text if text.strip() else None
    result = TestSetResult(
        name=name,
        source=str(source),
        target=str(targets[0]),
        source_sha256=hashes[0],
        target_sha256=hashes[1],
        sentences=len(columns[0]),
        further_targets=[str(target) for target in targets[1:]],
        further_target_sha256=hashes[2:],
    )
    return TestInput(result, [text for text, _ in columns[0]], references, languages)


def warn_of_decomposed(test_sets: Iterable[TestInput | NamedSet]) -> None:
    """Warn of each file of a test set that has decomposed letters; sacreBLEU's own sets are left out."""
    for test in test_sets:
        if isinstance(test, NamedSet):
            continue
        result = test.result
        paths = (result.source, result.target, *result.further_targets)
        for path, lines in zip(paths, (test.sources, *test.references), strict=True):
            decomposed = Decomposed()
            decomposed.look(line or "" for line in lines)
            if warning := decomposed.warning(f"test set {result.name}: '{path}'"):
                warn(warning)


def check_names(names: Sequence[str], what: str, pattern: re.Pattern, allowed: str, fix: str = "") -> None:
    """Raise an InputError for a name that is none, or that comes twice; `allowed` and `fix` are for its message."""
    for place, name in enumerate(names):
        if not pattern.fullmatch(name):
            raise InputError(f"{what} name '{name}': a name is made of {allowed}{fix}")
        if len(name.encode()) > _NAME_BYTES:
            raise InputError(f"{what} name '{name}': has more than {_NAME_BYTES} bytes, for a file's name{fix}")
        if name in names[:place]:
            raise InputError(f"two {what}s are named '{name}'; names must differ{fix}")
