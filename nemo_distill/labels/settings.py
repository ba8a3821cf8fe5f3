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
"""Which hypothesis of each line to keep, and which lines to drop."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from nemo_distill.data.bleu_tokenizer import SAMPLE_LINES, build_bleu, choose_bleu_tokenizer
from nemo_distill.errors import InputError
from nemo_distill.labels.filtering import FilterSettings
from nemo_distill.labels.leak_check import TestText
from nemo_distill.support import files
from nemo_distill.support.compressed import check_available
from nemo_distill.support.texts import GivenText, Texts

MINIMUM_RISK = "mbr"
CLOSEST = ("closest-bleu", "closest-chrf")
SELECTIONS = ("best", *CLOSEST, MINIMUM_RISK)
NO_SCORES = "min_score needs a score of each hypothesis; leave it out, or give scores"


def check_shard_lines(shard_lines: int) -> None:
    """Refuse shards without a line.

    Raises:
        InputError: as above.
    """
    if shard_lines < 1:
        raise InputError(f"shard_lines: got {shard_lines}; give at least 1")


@dataclass(frozen=True)
class SelectionSettings:
    """Which hypothesis of each line to keep, and which lines to drop."""

    select: str = "best"
    """`best`: the likeliest; `closest-bleu`, `closest-chrf`: the most similar to gold (Kim & Rush 2016); `mbr`: the
    most similar to all hypotheses of the line, by chrF (minimum Bayes risk, Eikema & Aziz 2020)."""
    target: GivenText | None = None
    """Gold translations, line n for input line n, in a file or several; only for `closest-*`."""
    bleu_tokenizer: str | None = None
    """sacreBLEU's tokenizer for `closest-bleu`; None: that of the language, else of the script of the gold text."""
    filters: FilterSettings = field(default_factory=FilterSettings)
    """Hypotheses to refuse."""
    tests: Sequence[str | os.PathLike] = ()
    """Test sets (the source side matters): lines that occur in them are dropped."""
    ngram: int = 0
    """Words in a row in common with a test line that make a line drop out too; 0: only equal lines."""
    target_language: str | None = None
    """Of the gold text, for the choice of `bleu_tokenizer`."""
    compress: str | None = None
    """`gz` or `zst`: every file but the manifest is compressed, and has a name that ends so."""
    keep: int = 1
    """Most hypotheses kept of a line, each as a pair with its source; equal ones count once."""
    lines_per_file: int | None = None
    """Lines of the input whose labels go to one file, `source-00001.txt` and so on, alike for all kinds of files."""

    def __post_init__(self) -> None:
        if self.select not in SELECTIONS:
            raise InputError(f"select: got '{self.select}'; give one of {', '.join(SELECTIONS)}")
        if (self.select in CLOSEST) == (self.target is None):
            fix = "give the gold translations" if self.target is None else "leave it out, or select closest-bleu"
            given = None if self.target is None else Texts(self.target)
            raise InputError(f"target: got {given} with select {self.select}; {fix}")
        if self.bleu_tokenizer is not None and self.select != "closest-bleu":
            raise InputError(
                f"bleu_tokenizer: got {self.bleu_tokenizer} with select {self.select}, which has no BLEU; leave it "
                "out, or select closest-bleu"
            )
        if self.keep < 1:
            raise InputError(f"keep: got {self.keep}; give at least 1")
        if self.compress not in (None, "gz", "zst"):
            raise InputError(f"compress: got '{self.compress}'; give gz or zst, or leave it out")
        if self.lines_per_file is not None and self.lines_per_file < 1:
            raise InputError(f"lines_per_file: got {self.lines_per_file}; give at least 1, or leave it out")
        check_available(self.suffix)
        if self.ngram and not self.tests:
            raise InputError(f"ngram: got {self.ngram} without a test set to compare with; give one, or leave it out")

    def request(self) -> dict[str, Any]:
        """Return the settings as flat JSON values, files by their hashes: equal requests give equal files.

        Raises:
            InputError: a file is missing, or is no regular file.
        """
        numbered = {"lines_per_file": self.lines_per_file} if self.lines_per_file else {}  # of one file as ever
        return {
            "select": self.select,
            "target": Texts(self.target).sha256() if self.target else None,
            "bleu_tokenizer": self.tokenizer if self.select == "closest-bleu" else None,
            **asdict(self.filters),
            "round_trip": self.filters.round_trip or None,  # requests of earlier releases have no such key
            "tests": [files.sha256(path) for path in self.tests],
            "ngram": self.ngram,
            "compress": self.compress,
            "keep": self.keep if self.keep > 1 else None,  # nor this one
            **numbered,
        }

    @functools.cached_property
    def tokenizer(self) -> str:
        """SacreBLEU's tokenizer for `closest-bleu`: the one asked for, or one that fits the gold text."""
        gold = islice(Texts(self.target).lines(), SAMPLE_LINES)
        return choose_bleu_tokenizer(
            self.bleu_tokenizer, self.target_language, gold, "bleu_tokenizer", str(Texts(self.target))
        )

    @property
    def suffix(self) -> str:
        """The end of the names of files that are written."""
        return f".{self.compress}" if self.compress else ""

    @property
    def inputs(self) -> list[str | os.PathLike]:
        """The files that are read."""
        return [*self.tests, *(Texts(self.target).paths if self.target else ())]

    def check(self, lines: int, num_hypotheses: int, hashes: Mapping[str, Any] | None = None) -> None:
        """Refuse gold text that does not fit the input, before any work starts.

        Args:
            lines: lines of the input.
            num_hypotheses: hypotheses of each line.
            hashes: `target` and `tests`: what the files must have, as `request` noted.

        Raises:
            InputError: another number of lines, bad UTF-8, nothing to choose from, unknown tokenizer, bad test sets; a
                file has changed.
        """
        if self.select != "best" and num_hypotheses == 1:
            raise InputError(
                f"select {self.select} chooses among hypotheses, but num_hypotheses is 1; decode several, or give "
                "several of a line"
            )
        if self.keep > num_hypotheses:
            raise InputError(
                f"keep: got {self.keep}, but num_hypotheses is {num_hypotheses}; decode as many, or give as many of a "
                "line"
            )
        if self.target is not None:
            target = Texts(self.target)
            count = sum(1 for _ in target.lines((hashes or {}).get("target")))
            if count != lines:
                raise InputError(f"{target} has {count} lines but the input has {lines}; line N must translate line N")
            build_similarity(self)
        if self.tests:
            self.test_text(hashes)

    def test_text(self, hashes: Mapping[str, Any] | None = None) -> TestText | None:
        """Return the test sets, to look lines up in; None if there are none."""
        return TestText(self.tests, self.ngram, (hashes or {}).get("tests")) if self.tests else None


def build_similarity(settings: SelectionSettings) -> Callable[[str, str], float] | None:
    """Return the function (hypothesis, gold) -> similarity, None where no gold text is read."""
    if settings.select not in CLOSEST:
        return None
    from sacrebleu.metrics import CHRF

    if settings.select == "closest-chrf":
        metric = CHRF()
    else:
        metric = build_bleu(settings.tokenizer, "bleu_tokenizer", effective_order=True)
    return lambda hypothesis, gold: metric.sentence_score(hypothesis, [gold]).score
