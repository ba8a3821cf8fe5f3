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
"""Filters for pairs of a source and its pseudo-label: which pairs would teach a student something wrong.

Lengths are in letters, see `data.words.count_letters`, which two languages of any scripts share. They ask nothing of
whoever wrote the hypotheses, and nothing of other lines.
"""

import collections
import math
import operator
import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from nemo_distill.data.words import count_letters, fold_case, repeated_share, split_words
from nemo_distill.decoding.engine import NO_END, Hypothesis
from nemo_distill.decoding.engine import UNKNOWN as UNKNOWN_MARK
from nemo_distill.errors import InputError
from nemo_distill.labels.leak_check import TestText, normalise

EMPTY_SOURCE = "empty source"
SOURCE_TOO_LONG = "source too long"
UNKNOWN_SOURCE = "source of unknown pieces"
IN_TEST_SET = "in test set"
EMPTY = "empty hypothesis"
CUT = "cut at the length limit"
UNKNOWN = "unknown pieces"
COPY = "copy of the source"
LENGTH_RATIO = "length ratio"
REPETITION = "repetition"
PLACEHOLDERS = "placeholders differ"
LOW_SCORE = "low score"
DUPLICATE = "duplicate"
ROUND_TRIP = "read as other tokens"
REASONS = (
    EMPTY_SOURCE,
    SOURCE_TOO_LONG,
    UNKNOWN_SOURCE,
    IN_TEST_SET,
    EMPTY,
    CUT,
    UNKNOWN,
    COPY,
    LENGTH_RATIO,
    REPETITION,
    PLACEHOLDERS,
    LOW_SCORE,
    DUPLICATE,
    ROUND_TRIP,
)

# No two parts side by side match the same characters: text that almost fits takes no quadratic time.
_PLACEHOLDER = re.compile(
    r"""
    \{\{[^{}]*\}\}                                   # {{x}}
    | \{\s*(?:[^{}\s]+\s*)?\}                        # {name}, {0:.2f}, ${name}; no words, as in plural forms
    | \[%[^%\]]*%\]                                  # [%key:common::save%]
    | (?<![\d%])%(?:\d+\$|\(\w+\))?[-+#0]*(?:(?!0)\d+)?(?:\.\d+)?[sdiufgxXc@]  # %s, %1$d, %(name)s; not "50%d"
    | </?(?!(?i:unk)>)[A-Za-z][\w-]*(?![\w-])(?=[^<>]*>)  # <b>, </b>, <a href="...">: the name only; not <unk>
    """,
    re.VERBOSE,
)
_UNKNOWN = re.compile("\u2047|<unk>", re.IGNORECASE)  # of SentencePiece; of YouTokenToMe and others
_LONGEST_PHRASE = 24  # words, or characters of a script without spaces
_FEWEST_REPEATED = 6  # pieces of six letters; "1,000,000,000" has four
_MORE_LETTERS = 4  # a short word and its translation may differ by as many


@dataclass(frozen=True)
class FilterSettings:
    """Which hypotheses to refuse. None, or False, switches a filter off; empty lines are always dropped."""

    max_length_ratio: float | None = 3.0
    """Most letters of the longer side for each letter of the shorter; each side counts four more than it has."""
    max_repeats: int | None = 3
    """Most times that a word or phrase may come in a row, unless it does in the source."""
    max_repeated: float | None = 0.3
    """Largest share of the text that came before in it, six letters at a time, unless the source has half of that."""
    min_score: float | None = None
    """Least mean log-probability of the tokens, in nats (0 is certainty), or of other scores of somebody else."""
    drop_copies: bool = True
    """Refuse a hypothesis that equals its source but for case, punctuation and white space."""
    check_placeholders: bool = True
    """Refuse a hypothesis that lacks, adds or changes a placeholder: {name}, {{x}}, %s, %1$d, <b>."""
    drop_unknown: bool = True
    """Refuse a hypothesis with unknown pieces, or more ⁇ and `<unk>` than its source, and a source of nothing else."""
    drop_cut: bool = True
    """Refuse a hypothesis that the search ended at its length limit, without an end token."""
    drop_duplicates: bool = False
    """Keep a pair of the same source and hypothesis only once."""
    round_trip: bool = False
    """Refuse a hypothesis that training reads as other tokens than the teacher wrote."""

    def __post_init__(self) -> None:
        faults = []
        if self.max_length_ratio is not None and not self.max_length_ratio >= 1:
            faults.append(f"max_length_ratio: got {self.max_length_ratio}; give a number of at least 1")
        if self.max_repeats is not None and self.max_repeats < 1:
            faults.append(f"max_repeats: got {self.max_repeats}; give at least 1")
        if self.max_repeated is not None and not 0 <= self.max_repeated < 1:
            faults.append(f"max_repeated: got {self.max_repeated}; give a share of the text, at least 0 and below 1")
        if self.min_score is not None and math.isnan(self.min_score):
            faults.append("min_score: got nan; give a number")
        numbers = (self.max_length_ratio, self.min_score)
        if any(number is not None and math.isinf(number) for number in numbers):
            faults.append("an infinite limit; to switch a filter off, leave its limit out")
        if faults:
            raise InputError("filters: " + "; ".join(faults))


def check_least_score(settings: FilterSettings) -> None:
    """Refuse a least score that no log-probability has.

    Raises:
        InputError: as above.
    """
    if settings.min_score is not None and settings.min_score > 0:
        raise InputError(f"filters: min_score: got {settings.min_score}; a mean log-probability is 0 or less")


def find_fault(
    source: str,
    hypothesis: str,
    score_per_token: float | None = None,
    settings: FilterSettings | None = None,
    *,
    cut: bool = False,
    unknown: bool = False,
) -> str | None:
    """Return why a hypothesis is to be refused, one of `REASONS`; None if it is not.

    Args:
        source: the source sentence.
        hypothesis: its translation.
        score_per_token: mean log-probability of the hypothesis' tokens, in nats; None if it is not known.
        settings: the filters; by default those of `FilterSettings()`.
        cut: the search ended the hypothesis at its length limit.
        unknown: the hypothesis has unknown pieces, whatever its text shows of them.

    Example:
        >>> find_fault("Hallo {name}", "Hello name")
        'placeholders differ'
        >>> find_fault("Hallo {name}", "Hello {name}") is None
        True
    """
    settings = settings or FilterSettings()
    if not hypothesis.strip():
        return EMPTY
    if settings.drop_cut and cut:
        return CUT
    if settings.drop_unknown and (unknown or _count_unknown(hypothesis) > _count_unknown(source)):
        return UNKNOWN
    if settings.drop_copies and _is_copy(source, hypothesis):
        return COPY
    if settings.max_length_ratio is not None and _length_ratio(source, hypothesis) > settings.max_length_ratio:
        return LENGTH_RATIO
    if _repeats_too_much(source, hypothesis, settings):
        return REPETITION
    if settings.check_placeholders and placeholders(source) != placeholders(hypothesis):
        return PLACEHOLDERS
    if settings.min_score is not None and score_per_token is not None and score_per_token < settings.min_score:
        return LOW_SCORE
    return None


class PairFilter:
    """Filters lines one by one: `find_fault`, and test sets.

    Example:
        >>> PairFilter(FilterSettings()).source_fault("")
        'empty source'
    """

    def __init__(self, settings: FilterSettings, test_text: TestText | None = None) -> None:
        self.settings = settings
        self.test_text = test_text

    def source_fault(self, source: str) -> str | None:
        """Return why no hypothesis of this source can be kept, None if one may be."""
        if not source.strip():
            return EMPTY_SOURCE
        if self.test_text is not None and self.test_text.find(source) is not None:
            return IN_TEST_SET
        return None

    def fault(self, source: str, hypothesis: Hypothesis) -> str | None:
        """Return why this hypothesis is refused, None if it is not; see `find_fault`."""
        cut = hypothesis.cut or hypothesis.mark == NO_END  # the mark alone in files of earlier releases
        unknown = hypothesis.unknown > 0 or hypothesis.mark == UNKNOWN_MARK
        return find_fault(source, hypothesis.text, hypothesis.score_per_token, self.settings, cut=cut, unknown=unknown)


def placeholders(text: str) -> Mapping[str, int]:
    """Return the placeholders of a text with how often each occurs; of a tag its name alone counts.

    Example:
        >>> dict(placeholders('<a href="x">{name}</a> has %1$d of {{total}}'))
        {'<a': 1, '{name}': 1, '</a': 1, '%1$d': 1, '{{total}}': 1}
    """
    return collections.Counter(_PLACEHOLDER.findall(text))


def placeholder_spans(text: str) -> list[tuple[int, int]]:
    """Return where the placeholders of a text begin and end.

    Example:
        >>> placeholder_spans("Hallo {name}")
        [(6, 12)]
    """
    return [match.span() for match in _PLACEHOLDER.finditer(text)]


def longest_run(words: Collection[str], longest_phrase: int = _LONGEST_PHRASE) -> int:
    """Return how many times in a row a phrase of up to `longest_phrase` words comes, at most; 0 for no words.

    Example:
        >>> longest_run("a man and a man and a man and so on".split())
        3
    """
    words = list(words)
    best = min(len(words), 1)
    for period in range(1, min(longest_phrase, len(words) // 2) + 1):
        same = 0
        for earlier, later in zip(words, words[period:], strict=False):
            same = same + 1 if earlier == later else 0
            best = max(best, same // period + 1)
    return best


def _count_unknown(text: str) -> int:
    return len(_UNKNOWN.findall(text))


def _length_ratio(source: str, hypothesis: str) -> float:
    shorter, longer = sorted(map(count_letters, (source, hypothesis)))
    return (longer + _MORE_LETTERS) / (shorter + _MORE_LETTERS)


def _is_copy(source: str, hypothesis: str) -> bool:
    """Return whether two texts, not of punctuation alone, are the same but for case, punctuation and white space."""
    letters = normalise(source)
    if letters != normalise(hypothesis) or not letters:
        return source.split() == hypothesis.split()
    symbols = ([each for each in text if unicodedata.category(each)[0] == "S"] for text in (source, hypothesis))
    return operator.eq(*symbols)


def _repeats_too_much(source: str, hypothesis: str, settings: FilterSettings) -> bool:
    if settings.max_repeats is not None:
        words = split_words(fold_case(hypothesis))
        if max(collections.Counter(words).values(), default=0) > settings.max_repeats:  # else no phrase comes as often
            run = longest_run(words)
            if run > settings.max_repeats and run > longest_run(split_words(fold_case(source))):
                return True
    if settings.max_repeated is not None:
        share = repeated_share(hypothesis, fewest=_FEWEST_REPEATED)
        if share > settings.max_repeated and share > 2 * repeated_share(source):
            return True
    return False
