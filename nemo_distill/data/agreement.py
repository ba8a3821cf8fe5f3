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
"""Do the two sides of a training text belong together? One number of a teacher tells: what it makes of the targets.

A few hundred pairs are taken, spread over the whole text. The teacher reads each target with its own source, with the
source of a pair far away, and with that of the line beside it; and the pairs the other way round. Where its own source
does not help, or another one helps more, the sides are misaligned or swapped; where the teacher would do better
guessing among all words, the text is in a language that it does not write. Nothing here draws random numbers.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Pair = tuple[Sequence[int], Sequence[int]]
"""Ids of a source and of a target, each with start and end token."""
Scorer = Callable[[Sequence[Pair]], Sequence[float]]
"""Returns the log-probability in nats of each target, end token included."""

SAMPLE = 256
"""Pairs that are read. A text of fewer is told of and never refused: who tries something on a handful of lines, with a
model of a few steps perhaps, is not to be stopped."""
_FEWEST = 64  # pairs that are read in the end, on which a text may be refused
_STRETCHES = 8
_ERRORS = 3.0  # standard errors of a mean difference over pairs
_MARGIN = 1.0  # nats a token by which another reading must be better: e times the perplexity
_LITTLE = 0.3  # of the loss on shuffled pairs; on its own kind of text a teacher of 1,000 steps saves more than half
_BY_HEART = 0.3  # nats a token; of text that they are trained on, teachers that generalise need about 1
_LONGEST = 128  # tokens of a side
_SOME_UNKNOWN = 0.01  # of a side's tokens
_MOST_UNKNOWN = 0.25  # of text in another script it is about a half: each word, and the space before it


@dataclass
class Sample:
    """Pairs of a text, in its order."""

    name: str
    """Of the text, in messages."""
    pairs: list[Pair]
    lines: list[int] | None = None
    """The number of each pair in the text, from 0, where pairs 2k and 2k + 1 are neighbours there; None: the order is
    another one."""
    drawn: int | None = None
    """How many pairs were drawn, where some of them are not among `pairs`."""


def spread(total: int, count: int = SAMPLE) -> list[int]:
    """Return the places of at most `count` of `total` pairs: twos of neighbours, evenly over all.

    Example:
        >>> spread(100, 4)
        [0, 1, 50, 51]
    """
    blocks = min(count, total) // 2
    starts = [2 * (block * (total // 2) // blocks) for block in range(blocks)]
    return [place for start in starts for place in (start, start + 1)]


@dataclass
class Agreement:
    """What a teacher makes of the pairs of a text: nats a target token, one number for each pair."""

    name: str
    """Of the text."""
    sampled: int
    """Pairs that were taken; longer ones were not read."""
    words: int
    """Of the teacher's target vocabulary."""
    own: list[float]
    """Each target with its own source."""
    shuffled: list[float]
    """With the source of a pair far away."""
    beside: list[float] = field(default_factory=list)
    """With the source of the neighbour; empty where there is none."""
    swapped: list[float] = field(default_factory=list)
    """Each source as the target of its target; empty where the vocabularies differ."""
    swapped_shuffled: list[float] = field(default_factory=list)
    """The same of pairs far away."""
    lines: list[int] | None = None
    """As of `Sample`, of those that were read."""
    unknown: dict[str, float] = field(default_factory=dict)
    """By side the share of tokens that are the tokenizer's unknown one."""
    seconds: float = 0.0

    def __str__(self) -> str:
        way = f", {statistics.fmean(self.swapped):.2f} the other way round" if self.swapped else ""
        return (
            f"does the teacher know this text? {self.name}: {statistics.fmean(self.own):.2f} nats a token over "
            f"{len(self.own)} pairs, {statistics.fmean(self.shuffled):.2f} where the same are shuffled{way} "
            f"({self.seconds:.1f} s)"
        )

    def summary(self) -> dict[str, float]:
        """Return the means, as a manifest keeps them."""
        return {
            "pairs": len(self.own),
            "nats": round(statistics.fmean(self.own), 4),
            "shuffled_nats": round(statistics.fmean(self.shuffled), 4),
        }

    def fault(self) -> str | None:
        """Return why the pairs cannot be what the teacher was trained on; None where nothing says so."""
        own, shuffled = statistics.fmean(self.own), statistics.fmean(self.shuffled)
        if side := _unknown_from(self.unknown, _MOST_UNKNOWN):
            return (
                f"of the {side}s {100 * self.unknown[side]:.0f} % of all tokens are unknown to the tokenizer: they "
                "are in a script that the teacher does not know, or of another form; take the text of its languages, "
                "or another teacher"
            )
        if self._is_swapped():
            return (
                f"source and target are the wrong way round: the teacher needs {own:.2f} nats a token for the targets "
                f"and {statistics.fmean(self.swapped):.2f} the other way round; swap the files, or in a "
                "job --source and --target"
            )
        if fault := self._shift():
            return fault
        if not self._is_better(self.own, self.shuffled):
            return (
                f"the teacher needs {own:.2f} nats a token for the targets with their own sources and {shuffled:.2f} "
                "with those of other lines: the lines do not belong together, or the teacher has learnt nothing of "
                "such text. Look at line N of both files, and at the teacher's scores"
            )
        if own >= math.log(self.words):
            return (
                f"the teacher needs {own:.2f} nats a token for the targets, and who guesses among its {self.words} "
                f"words {math.log(self.words):.2f}: they are in a language that it does not write, or of another form"
            )
        return None

    def doubt(self) -> str | None:
        """Return what is worth a look, of pairs without a fault."""
        own, shuffled = statistics.fmean(self.own), statistics.fmean(self.shuffled)
        if told := known_by_heart(self.name, own):
            return told
        if told := much_unknown(self.name, self.unknown):
            return f"{told} needs a teacher of its own"
        if own <= (1 - _LITTLE) * shuffled:
            return None
        return (
            f"{self.name}: with their own sources the targets cost the teacher {own:.2f} nats a token, little "
            f"less than the {shuffled:.2f} with those of other lines; the text is far from the teacher's, it has "
            "learnt little yet, or lines are misaligned"
        )

    def _is_swapped(self) -> bool:
        """Return whether the pairs the other way round are translations that the teacher knows, and much better so."""
        return (
            self._is_better(self.swapped, self.own, _MARGIN)
            and self._is_better(self.swapped, self.swapped_shuffled)
            and statistics.fmean(self.swapped) < math.log(self.words)
        )

    def _shift(self) -> str | None:
        """Return at which line the sides begin to be one line apart, if they do in most of what follows there."""
        size = len(self.own) // 2 // _STRETCHES * 2
        if self.lines is None or not self.beside or size < 16:
            return None
        for parity, where in ((0, "following"), (1, "preceding")):
            for start in range(0, size * _STRETCHES, size):
                rows = slice(start + parity, start + size, 2)
                if self._is_better(self.beside[rows], self.own[rows], _MARGIN):
                    line = self.lines[start] + 1
                    return (
                        f"the sides are one line apart, from about line {line} on at the latest: there the targets "
                        f"fit the sources of the {where} lines better than their own; find the line that a file lacks"
                    )
        return None

    @staticmethod
    def _is_better(one: Sequence[float], other: Sequence[float], margin: float = 0.0) -> bool:
        """Return whether one reading of the same pairs costs less than another, by more than chance."""
        saved = [theirs - ours for ours, theirs in zip(one, other, strict=True)] if one else []
        if len(saved) < 2:
            return False
        error = statistics.stdev(saved) / math.sqrt(len(saved))
        return statistics.fmean(saved) > max(_ERRORS * error, margin)


def measure(
    sample: Sample,
    score: Scorer,
    words: int,
    one_vocabulary: bool,
    unknown: tuple[int | None, int | None] = (None, None),
) -> Agreement | None:
    """Return what a teacher makes of a text; None where nothing can be told apart.

    Args:
        sample: of the text.
        score: of the teacher.
        words: of its target vocabulary.
        one_vocabulary: source and target ids mean the same, so that the pairs can be read the other way round.
        unknown: id of the unknown token of source and target; None: there is none.
    """
    start = time.monotonic()
    kept = _short_pairs(sample, one_vocabulary)
    if len(kept) < 2:
        return None
    sources, targets = map(list, zip(*(sample.pairs[number] for number in kept), strict=True))
    lines = None if sample.lines is None else [sample.lines[number] for number in kept]
    others = _others(sources, targets)
    if others is None:
        return None

    def nats(sources: Sequence, targets: Sequence) -> list[float]:
        scores = score(list(zip(sources, targets, strict=True)))
        return [-float(each) / (len(target) - 1) for each, target in zip(scores, targets, strict=True)]

    found = Agreement(sample.name, sample.drawn or len(sample.pairs), words, nats(sources, targets), [], lines=lines)
    found.unknown = unknown_shares(sources, targets, unknown)
    found.shuffled = nats([sources[other] for other in others], targets)
    if lines is not None:
        found.beside = nats([sources[number ^ 1] for number in range(len(sources))], targets)
    if one_vocabulary:
        found.swapped = nats(targets, sources)
        found.swapped_shuffled = nats([targets[other] for other in others], sources)
    found.seconds = time.monotonic() - start
    return found


def unknown_shares(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], unknown: tuple[int | None, int | None]
) -> dict[str, float]:
    """Return by side the share of tokens that are the tokenizer's unknown one.

    Args:
        sources: token ids, from a first to a last special one.
        targets: token ids likewise.
        unknown: id of the unknown token of source and target; None: there is none, nor a share.
    """
    return {
        side: sum(list(row).count(id_) for row in rows) / max(sum(len(row) - 2 for row in rows), 1)
        for side, rows, id_ in zip(("source", "target"), (sources, targets), unknown, strict=True)
        if id_ is not None
    }


def _unknown_from(shares: Mapping[str, float], least: float) -> str | None:
    """Return the first side of which so many tokens or more are unknown, if one is."""
    return next((side for side, share in shares.items() if share >= least), None)


def much_unknown(name: str, shares: Mapping[str, float]) -> str | None:
    """Return what is worth a look where a tokenizer does not know some of a text, but for what to do about it.

    Args:
        name: of the text.
        shares: see `unknown_shares`.
    """
    if (side := _unknown_from(shares, _SOME_UNKNOWN)) is None:
        return None
    return (
        f"{name}: of the {side}s {100 * shares[side]:.1f} % of all tokens are unknown to the tokenizer, and no model "
        "of it reads or writes them; a tokenizer that covers more characters (nemo-distill tokenizer --coverage)"
    )


def _others(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[int] | None:
    """Return for each pair the number of one far away with another source and another target; None if one has none."""
    sides, count, found = [list(map(tuple, side)) for side in (sources, targets)], len(sources), []
    for number in range(count):
        far = ((number + count // 4 * 2 + step) % count for step in range(count))
        found.append(next((other for other in far if all(side[other] != side[number] for side in sides)), None))
    return None if None in found else found


def _short_pairs(sample: Sample, both_ways: bool) -> list[int]:
    """Return the numbers of the pairs that are read: short ones, neighbours together.

    With `both_ways` no side is longer than both sides are somewhere, so that the model has a position for each token.
    """
    longest = _LONGEST
    if both_ways and sample.pairs:
        longest = min(longest, *(max(map(len, side)) for side in zip(*sample.pairs, strict=True)))
    short = {number for number, pair in enumerate(sample.pairs) if max(map(len, pair)) <= longest}
    return [number for number in sorted(short) if sample.lines is None or number ^ 1 in short]


def known_by_heart(name: str, nats: float) -> str | None:
    """Return what is worth a look where a teacher says a text's targets nearly without a doubt.

    Args:
        name: of the text.
        nats: that it needs for a token.
    """
    if nats >= _BY_HEART:
        return None
    return (
        f"{name}: the teacher needs only {nats:.2f} nats a token for the targets: it wrote them itself, or knows them "
        "by heart, and then its distributions say little more than the labels do, and a student gains less. It says "
        "more of disturbed copies of its text (pseudo-label --disturb 4, distillation=recommended_disturbed), and a "
        "teacher trained with dropout teaches more"
    )


def settle(found: Agreement, go_on: bool, say: Callable[[str], None], warn: Callable[[str], None]) -> str | None:
    """Tell what was found; return the fault that the work must not begin with, if there is one.

    Args:
        found: of one text.
        go_on: whatever it is; a fault is a warning then, and so it is of a text of fewer than `SAMPLE` pairs, or of
            which hardly any could be read.
        say: gets the numbers.
        warn: gets what is worth a look.
    """
    say(str(found))
    fault = found.fault()
    if fault is None:
        if doubt := found.doubt():
            warn(doubt)
    elif not go_on and found.sampled >= SAMPLE and len(found.own) >= _FEWEST:
        return f"{found.name}: {fault}"
    else:
        warn(f"{found.name}: {fault}")
    return None
