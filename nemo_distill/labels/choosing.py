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
"""From n-best lists to training text, by all cores: of each line one hypothesis or several, or the line is dropped."""

import collections
import contextlib
import functools
import hashlib
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress, islice, repeat
from pathlib import Path
from typing import Any

from nemo_distill.decoding.engine import Hypothesis
from nemo_distill.errors import InputError
from nemo_distill.labels import checks, filtering
from nemo_distill.labels.checks import DROPPED, TRUNCATED
from nemo_distill.labels.filtering import PairFilter
from nemo_distill.labels.minimum_risk import expected_utilities, is_in_use
from nemo_distill.labels.nbest import NBest, parse_nbest, table_cell
from nemo_distill.labels.settings import MINIMUM_RISK, NO_SCORES, SelectionSettings, build_similarity
from nemo_distill.support import files, text_files
from nemo_distill.support.numbered import cut_blocks, open_numbered
from nemo_distill.support.progress_bar import progress_bar
from nemo_distill.support.quoting import one_line
from nemo_distill.support.seen import DIGEST_BYTES, Seen
from nemo_distill.support.texts import GivenText, Texts
from nemo_distill.support.threads import available_cores
from nemo_distill.support.workers import run_in_order

_HEADER = b"line\treason\tsource\thypothesis\n"
_BLOCK_BYTES = 1 << 19
_MOST_SHOWN = 3


class Chooser:
    """Chooses the hypotheses of a line, whatever other lines say.

    Hypotheses that a filter refuses are passed over. A line is dropped when none is left, for the reason of its first.
    Of equal ones one is kept.

    Args:
        settings: what to choose.
        hashes: `tests`: what the files must have.
        gold_processed: gold translations are processed text, and so is what of a hypothesis is compared with them.
    """

    def __init__(
        self, settings: SelectionSettings, hashes: Mapping[str, Any] | None = None, gold_processed: bool = False
    ) -> None:
        self._gold_processed = gold_processed
        self._filters, self._select, self._keep = settings.filters, settings.select, settings.keep
        self._pairs = PairFilter(settings.filters, settings.test_text(hashes))
        self._similarity = build_similarity(settings)

    def choose(self, row: NBest, reference: str = "") -> tuple[list[Hypothesis], str | None]:
        """Return the chosen hypotheses, best first, and None; or the refused one, if there is one, and the reason.

        Args:
            row: a line's hypotheses.
            reference: its gold translation; an empty one leaves them in their order.
        """
        ranked = [one for one in row.hypotheses if one.text.strip() and one.trained_text.strip()]
        if self._select == MINIMUM_RISK:
            utilities = expected_utilities([one.text for one in ranked])
            ranked = [one for _, one in sorted(zip(utilities, ranked, strict=True), key=lambda pair: -pair[0])]
        elif self._similarity and reference.strip():
            read = operator.attrgetter("trained_text" if self._gold_processed else "text")
            ranked.sort(key=lambda one: -self._similarity(read(one), reference))
        reason = self._pairs.source_fault(row.source) or (filtering.SOURCE_TOO_LONG if row.cut else None)
        if reason is None and row.unknown and self._filters.drop_unknown:
            reason = filtering.UNKNOWN_SOURCE
        if row.processed is not None and not row.processed.strip():
            reason = filtering.EMPTY_SOURCE
        if reason is None and not ranked:
            reason = filtering.EMPTY
        if reason is not None:
            return ranked[:1], reason
        if self._filters.min_score is not None and any(one.score is None for one in ranked):
            raise InputError(f"{NO_SCORES}: line {row.line} has hypotheses without a score")
        kept: dict[str, Hypothesis] = {}
        for one in ranked:
            fault = self._pairs.fault(row.source, one)
            if fault is None and self._filters.round_trip and one.mark:
                fault = filtering.ROUND_TRIP
            if fault is None:
                kept.setdefault(one.text, one)
            reason = reason or fault
            if len(kept) == self._keep:
                break
        return (list(kept.values()), None) if kept else (ranked[:1], reason)


class Forecast:
    """What of the lines that a teacher has translated so far will be kept and dropped, but for duplicates.

    Args:
        settings: what to choose; hypotheses are neither compared with gold translations nor with each other.
        hashes: `tests`: what the files must have.
    """

    def __init__(self, settings: SelectionSettings, hashes: Mapping[str, Any] | None = None) -> None:
        self._chooser = Chooser(replace(settings, select="best", target=None, bleu_tokenizer=None), hashes)
        self._kept, self._dropped = 0, collections.Counter()

    def add(self, rows: Iterable[NBest]) -> str:
        """Count further lines, and return in words what there is of all."""
        for row in rows:
            _, reason = self._chooser.choose(row)
            self._kept += reason is None
            self._dropped.update([reason] if reason else ())
        return _statistics(self._kept, self._dropped)


@dataclass
class _Chosen:
    """What is written of some lines, which go to the same files."""

    first: int
    """Number of the first of them in the input."""
    kept: list[bytes]
    """Of each file, its lines."""
    dropped: list[bytes]
    """Rows of the table of dropped lines."""
    reasons: collections.Counter
    marked: collections.Counter
    numbers: list[int]
    """Of the lines of the pairs that are kept, in the input: one comes as often as hypotheses of it are kept."""
    digests: bytes
    """Of the pairs that are kept, where equal ones are to be found."""


def _choose_block(
    chooser: Chooser,
    processed: bool,
    is_hashed: bool,
    path: Path,
    own: int,
    first: int,
    block: bytes,
    references: list[str] | None,
) -> _Chosen:
    """Choose among the hypotheses of a block of an n-best file, from its line `own` on, of input line `first`."""
    forms: list[list[str]] = [[] for _ in checks.file_names(processed)]
    chosen = _Chosen(first, [], [], collections.Counter(), collections.Counter(), [], b"")
    digests = []
    rows = parse_nbest(text_files.decode_block(path, own, block), path, first, own)
    for row, reference in zip(rows, repeat("") if references is None else references, strict=False):
        hypotheses, reason = chooser.choose(row, reference)
        chosen.marked.update([TRUNCATED] if row.cut else [one.mark for one in hypotheses if one.mark])
        if reason is not None:
            chosen.reasons[reason] += 1
            text = hypotheses[0].text if hypotheses else ""
            chosen.dropped.append(_dropped(row.line, reason, row.source, text))
            continue
        for hypothesis in hypotheses:
            line = [row.source, hypothesis.text]
            if processed:
                line += [row.source if row.processed is None else row.processed, hypothesis.trained_text]
            for form, one in zip(forms, line, strict=True):
                form.append(one_line(one))
            chosen.numbers.append(row.line)
            if is_hashed:
                pair = f"{row.source}\n{hypothesis.text}".encode()
                digests.append(hashlib.blake2b(pair, digest_size=DIGEST_BYTES).digest())
    chosen.kept, chosen.digests = list(map(files.line_bytes, forms)), b"".join(digests)
    return chosen


def _dropped(line: int, reason: str, source: str, hypothesis: str) -> bytes:
    return files.line_bytes(["\t".join((str(line), reason, *map(table_cell, (source, hypothesis))))])


def _drop_seen(chosen: _Chosen, seen: Seen) -> None:
    """Leave out the pairs that came before; a line of which none is left is dropped."""
    starts = range(0, len(chosen.digests), DIGEST_BYTES)
    is_again = [seen.add(chosen.digests[start : start + DIGEST_BYTES]) for start in starts]
    if not any(is_again):
        return
    forms = [content.decode().split("\n")[:-1] for content in chosen.kept]
    new = [not each for each in is_again]
    left = set(compress(chosen.numbers, new))
    again: dict[int, bytes] = {}
    for number, *pair in zip(chosen.numbers, *forms[:2], strict=True):
        if number not in left:
            again.setdefault(number, _dropped(number, filtering.DUPLICATE, *pair))
    chosen.dropped = sorted([*chosen.dropped, *again.values()], key=lambda row: int(row.partition(b"\t")[0]))
    chosen.reasons[filtering.DUPLICATE] += len(again)
    chosen.numbers = list(compress(chosen.numbers, new))
    chosen.kept = [files.line_bytes(compress(form, new)) for form in forms]


def write_selection(
    nbest: GivenText,
    sha256: str | Sequence[str],
    directory: Path,
    settings: SelectionSettings,
    lines: int,
    progress: bool,
    hashes: Mapping[str, Any] | None = None,
    processed: bool = False,
    gold_processed: bool = False,
) -> dict[str, Any]:
    """Write the lines that are kept, in both forms if there are two, and `dropped.tsv`.

    Blocks of lines go to as many processes as there are cores. Of all lines together only the digests of pairs are
    remembered, and these, with `drop_duplicates` alone, on disk.

    Args:
        nbest: the n-best lists, in a file or several.
        sha256: what they must have, as `Texts.sha256` returns it.
        directory: to write to.
        settings: what to choose, and how many lines go to a file.
        lines: of the lists.
        progress: show a bar, with what is kept and dropped.
        hashes: `target` and `tests`: what the files must have.
        processed: there are two forms of text.
        gold_processed: gold translations are in the second, as the input is.

    Returns:
        For the manifest: `counts`, the numbers of lines read, kept and dropped, and, with `keep` above 1, of the pairs
        that are written; `read_back`, by kind, the numbers of hypotheses, kept or not, of which training reads
        something else than the teacher wrote.

    Raises:
        InputError: there are not so many lines; a file has not the hash that it must have. Nothing is written then.
        StorageError: no room.
    """
    dropped: collections.Counter = collections.Counter()
    marked: collections.Counter = collections.Counter()
    kept = pairs = 0
    seen = Seen(directory, lines * settings.keep) if settings.filters.drop_duplicates else None
    work = functools.partial(_choose_block, Chooser(settings, hashes, gold_processed), processed, seen is not None)
    text = Texts(nbest)
    processes = text_files.parts(text.paths, _BLOCK_BYTES, available_cores())
    if settings.select == MINIMUM_RISK and is_in_use():
        processes = 1  # whose threads compare
    heads = dict.fromkeys(checks.file_names(processed, suffix=settings.suffix), b"")
    heads[f"{DROPPED}{settings.suffix}"] = _HEADER
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress_bar("selecting", lines, shown=progress))
        streams_of = stack.enter_context(open_numbered(directory, heads, settings.lines_per_file))
        for chosen in run_in_order(work, _blocks(text, sha256, settings, hashes), processes, text.paths[0]):
            if seen is not None:
                _drop_seen(chosen, seen)
            *streams, table = streams_of(chosen.first)
            for stream, content in zip(streams, chosen.kept, strict=True):
                stream.write(content)
            table.writelines(chosen.dropped)
            kept += len(set(chosen.numbers))
            pairs += len(chosen.numbers)
            dropped.update(chosen.reasons)
            marked.update(chosen.marked)
            bar.set_postfix_str(_statistics(kept, dropped), refresh=False)
            bar.update(len(set(chosen.numbers)) + chosen.reasons.total())
        if kept + dropped.total() != lines:
            raise InputError(
                f"the n-best lists have {kept + dropped.total()} lines, not {lines} as the input has; make them anew"
            )
    by_reason = {reason: dropped[reason] for reason in filtering.REASONS if dropped[reason]}
    counts = {"lines": kept + dropped.total(), "kept": kept, "dropped": by_reason}
    if settings.keep > 1:
        counts["pairs"] = pairs
    return {"counts": counts, "read_back": {mark: marked[mark] for mark in sorted(marked)}}


def _blocks(
    nbest: Texts, sha256: str | Sequence[str], settings: SelectionSettings, hashes: Mapping[str, Any] | None
) -> Iterator[tuple[Path, int, int, bytes, list[str] | None]]:
    """Yield the blocks of n-best files with the gold translations of their lines, all to the end of their files."""
    gold = Texts(settings.target).lines((hashes or {}).get("target")) if settings.target else None
    for *place, block in cut_blocks(nbest.blocks(sha256, _BLOCK_BYTES), settings.lines_per_file):
        yield *place, block, None if gold is None else list(islice(gold, block.count(b"\n") + 1))
    for _ in gold or ():  # where its hash is compared
        pass


def _statistics(kept: int, dropped: collections.Counter) -> str:
    """Return in words how many lines are kept, and for what most of the others are dropped."""
    lines = max(kept + dropped.total(), 1)
    parts = [f"{kept} kept ({100 * kept / lines:.1f} %)"]
    parts += [f"{reason} {count}" for reason, count in dropped.most_common(_MOST_SHOWN)]
    if others := dropped.total() - sum(count for _, count in dropped.most_common(_MOST_SHOWN)):
        parts.append(f"others {others}")
    return ", ".join(parts)
