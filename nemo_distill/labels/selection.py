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
"""From n-best lists to training text: choose one hypothesis of each line, refuse bad ones, say what was dropped."""

import collections
import contextlib
import functools
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice, repeat
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nemo_distill.data.bleu_tokenizer import SAMPLE_LINES, build_bleu, choose_bleu_tokenizer
from nemo_distill.decoding.engine import Hypothesis
from nemo_distill.errors import InputError
from nemo_distill.labels import checks, filtering
from nemo_distill.labels.checks import DROPPED, NBEST, TRUNCATED
from nemo_distill.labels.filtering import FilterSettings, PairFilter
from nemo_distill.labels.leak_check import TestText
from nemo_distill.labels.nbest import NBest, read_nbest, table_cell
from nemo_distill.support import files, incoming, manifest, text_files
from nemo_distill.support.lock import locked
from nemo_distill.support.quoting import one_line

_logger = logging.getLogger(__name__)
SELECTIONS = ("best", "closest-bleu", "closest-chrf")
NO_SCORES = "min_score needs a score of each hypothesis; leave it out, or give scores"


@dataclass(frozen=True)
class SelectionSettings:
    """Which hypothesis of each line to keep, and which lines to drop."""

    select: str = "best"
    """`best`: the likeliest; `closest-bleu`, `closest-chrf`: the most similar to gold (Kim & Rush 2016)."""
    target: str | os.PathLike | None = None
    """Gold translations, line n for input line n; only for `closest-*`."""
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

    def __post_init__(self) -> None:
        if self.select not in SELECTIONS:
            raise InputError(f"select: got '{self.select}'; give one of {', '.join(SELECTIONS)}")
        if (self.select == "best") != (self.target is None):
            fix = "give the gold translations" if self.target is None else "leave it out, or select closest-bleu"
            raise InputError(f"target: got {self.target!r} with select {self.select}; {fix}")
        if self.ngram and not self.tests:
            raise InputError(f"ngram: got {self.ngram} without a test set to compare with; give one, or leave it out")

    def request(self) -> dict[str, Any]:
        """Return the settings as flat JSON values, files by their hashes: equal requests give equal files.

        Raises:
            InputError: a file is missing, or is no regular file.
        """
        return {
            "select": self.select,
            "target": files.sha256(self.target) if self.target else None,
            "bleu_tokenizer": self.tokenizer if self.select == "closest-bleu" else None,
            **asdict(self.filters),
            "round_trip": self.filters.round_trip or None,  # requests of earlier releases have no such key
            "tests": [files.sha256(path) for path in self.tests],
            "ngram": self.ngram,
        }

    @functools.cached_property
    def tokenizer(self) -> str:
        """SacreBLEU's tokenizer for `closest-bleu`: the one asked for, or one that fits the gold text."""
        gold = islice(text_files.iterate_lines(self.target), SAMPLE_LINES)
        return choose_bleu_tokenizer(
            self.bleu_tokenizer, self.target_language, gold, "bleu_tokenizer", f"'{self.target}'"
        )

    @property
    def inputs(self) -> list[str | os.PathLike]:
        """The files that are read."""
        return [*self.tests, *([self.target] if self.target else [])]

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
        if self.select != "best":
            if num_hypotheses == 1:
                raise InputError(
                    f"select {self.select} chooses among hypotheses, but num_hypotheses is 1; decode several"
                )
            count = sum(1 for _ in text_files.iterate_lines(self.target, (hashes or {}).get("target")))
            if count != lines:
                raise InputError(
                    f"'{self.target}' has {count} lines but the input has {lines}; line N must translate line N"
                )
            _build_similarity(self)
        if self.tests:
            self.test_text(hashes)

    def test_text(self, hashes: Mapping[str, Any] | None = None) -> TestText | None:
        """Return the test sets, to look lines up in; None if there are none."""
        return TestText(self.tests, self.ngram, (hashes or {}).get("tests")) if self.tests else None


def select(
    nbest_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    settings: SelectionSettings | None = None,
    *,
    overwrite: bool = False,
    progress: bool = True,
) -> tuple[dict[str, Any], bool]:
    """Choose and filter anew from the n-best lists of a finished directory; nothing is decoded.

    Args:
        nbest_dir: a directory that `pseudo_label` wrote.
        output_dir: another directory; gets the same files but `nbest.jsonl`.
        settings: what to choose; by default the likeliest hypothesis and the default filters.
        overwrite: replace another run in `output_dir`.
        progress: show a progress bar.

    Returns:
        The manifest, and whether the directory was already finished and nothing had to be done.

    Raises:
        InputError: `nbest_dir` is not such a directory, is not finished, or changes meanwhile; bad settings;
            `output_dir` is taken or in use.

    Example:
        >>> select("labels", "labels-bleu", SelectionSettings("closest-bleu", "train.en"))  # doctest: +SKIP
    """
    settings = settings or SelectionSettings()
    source, directory = Path(nbest_dir), Path(output_dir)
    if os.path.realpath(directory) == os.path.realpath(source):
        raise InputError(f"'{output_dir}' holds the n-best lists themselves; give another output directory")
    labelled = _read_labelled(source)
    lines, num_hypotheses = labelled["counts"]["lines"], checks.check_nbest_request(labelled, source)
    digest = labelled["files"][NBEST]["sha256"]
    request = {"verb": "select", "nbest": digest, **settings.request()}
    processed = checks.has_processed(labelled)
    if "languages" not in labelled:
        _logger.warning(
            "the labels in '%s' are of an earlier release: where the teacher normalizes and tokenizes text (Moses), "
            "they lack the text that training should read; make them anew",
            source,
        )
    filters = settings.filters
    if (
        (filters.drop_cut or filters.drop_unknown)
        and "teachers" in labelled["request"]
        and "nbest_format" not in labelled
    ):
        _logger.warning(
            "the labels in '%s' are of an earlier release, which noted less of what is unknown or cut; make them anew",
            source,
        )
    names = checks.file_names(processed, DROPPED)
    with locked(directory):
        manifest.refuse_inputs_as_outputs(settings.inputs, [directory / name for name in names])
        if finished := manifest.find_finished(directory, request, overwrite):
            checks.check_manifest(finished, directory, names)
            return finished, True
        settings.check(lines, num_hypotheses, request)
        if settings.filters.min_score is not None and labelled["request"].get("scores") is False:
            raise InputError(f"{NO_SCORES}: those of '{nbest_dir}' have none")
        manifest.start_run(directory, names, overwrite)
        rows = read_nbest(source / NBEST, digest)
        facts = write_selection(rows, directory, settings, lines, progress, request, processed)
        kept = ("engine", "languages", "input_name", "teacher_names", "tokenizers")
        details = {key: labelled[key] for key in kept if key in labelled}
        return manifest.finish_run(directory, request, names, {**details, **facts}), False


def _read_labelled(source: Path) -> dict[str, Any]:
    """Return the manifest of a finished directory of `pseudo-label`, whose files have the hashes that it lists."""
    content = incoming.read_json(source / manifest.MANIFEST) if (source / manifest.MANIFEST).is_file() else {}
    request = content.get("request") if isinstance(content, dict) else None
    found = manifest.find_finished(source, request) if isinstance(request, dict) else None
    if found is None or NBEST not in found["files"]:
        raise InputError(f"'{source}' holds no finished n-best lists; give a directory of `nemo-distill pseudo-label`")
    checks.check_manifest(found, source, checks.file_names(checks.has_processed(found), NBEST, DROPPED))
    return found


def write_selection(
    rows: Iterable[NBest],
    directory: Path,
    settings: SelectionSettings,
    lines: int,
    progress: bool,
    hashes: Mapping[str, Any] | None = None,
    processed: bool = False,
) -> dict[str, Any]:
    """Write the lines that are kept, in both forms if there are two, and `dropped.tsv`.

    Returns:
        For the manifest: `counts`, the numbers of lines read, kept and dropped; `read_back`, by kind, the numbers of
        lines, kept or not, of which training reads something else than the teacher wrote.

    Raises:
        InputError: there are not so many lines; a file has not the hash that it must have. Nothing is written then.
    """
    dropped: collections.Counter = collections.Counter()
    marked: collections.Counter = collections.Counter()
    kept = 0
    with contextlib.ExitStack() as stack:
        streams = [
            stack.enter_context(_open_atomic(directory / name)) for name in checks.file_names(processed, DROPPED)
        ]
        streams[-1].write("line\treason\tsource\thypothesis\n")
        rows = tqdm(rows, total=lines, unit=" lines", desc="selecting", disable=not progress)
        for row, hypothesis, reason in choose(rows, settings, hashes):
            text = "" if hypothesis is None else hypothesis.text
            mark = TRUNCATED if row.cut else hypothesis and hypothesis.mark
            marked.update([mark] if mark else ())
            if reason is None:
                kept += 1
                forms = [row.source, text]
                if processed:
                    forms += [row.source if row.processed is None else row.processed, hypothesis.trained_text]
                for stream, form in zip(streams, forms, strict=False):
                    stream.write(one_line(form) + "\n")
            else:
                dropped[reason] += 1
                streams[-1].write("\t".join((str(row.line), reason, *map(table_cell, (row.source, text)))) + "\n")
        if kept + dropped.total() != lines:
            raise InputError(
                f"the n-best lists have {kept + dropped.total()} lines, not {lines} as the input has; make them anew"
            )
    by_reason = {reason: dropped[reason] for reason in filtering.REASONS if dropped[reason]}
    counts = {"lines": kept + dropped.total(), "kept": kept, "dropped": by_reason}
    return {"counts": counts, "read_back": {mark: marked[mark] for mark in sorted(marked)}}


def choose(
    rows: Iterable[NBest], settings: SelectionSettings, hashes: Mapping[str, Any] | None = None
) -> Iterator[tuple[NBest, Hypothesis | None, str | None]]:
    """Yield each row with the chosen hypothesis and None, or with the refused one, if there is one, and the reason.

    Hypotheses that a filter refuses are passed over. A line is dropped when none is left, for the reason of its first.

    Args:
        rows: the n-best lists.
        settings: what to choose.
        hashes: `target` and `tests`: what the files must have.
    """
    pairs = PairFilter(settings.filters, settings.test_text(hashes))
    similarity = _build_similarity(settings)
    gold = text_files.iterate_lines(settings.target, (hashes or {}).get("target")) if settings.target else None
    for row, reference in zip(rows, repeat("") if gold is None else gold, strict=False):
        ranked = [one for one in row.hypotheses if one.text.strip() and one.trained_text.strip()]
        if similarity and reference.strip():
            ranked.sort(key=lambda one: -similarity(one.text, reference))
        reason = pairs.source_fault(row.source) or (filtering.SOURCE_TOO_LONG if row.cut else None)
        if reason is None and row.unknown and settings.filters.drop_unknown:
            reason = filtering.UNKNOWN_SOURCE
        if row.processed is not None and not row.processed.strip():
            reason = filtering.EMPTY_SOURCE
        if reason is None and not ranked:
            reason = filtering.EMPTY
        if reason is not None:
            yield row, ranked[0] if ranked else None, reason
            continue
        if settings.filters.min_score is not None and any(one.score is None for one in ranked):
            raise InputError(f"{NO_SCORES}: line {row.line} has hypotheses without a score")
        reasons = [pairs.fault(row.source, one) for one in ranked]
        place = reasons.index(None) if None in reasons else 0
        reason = reasons[place]
        if reason is None and settings.filters.round_trip and ranked[place].mark:
            reason = filtering.ROUND_TRIP
        yield row, ranked[place], reason or pairs.duplicate_fault(row.source, ranked[place].text)
    for _ in gold or ():  # to its end, where its hash is compared
        pass


def _build_similarity(settings: SelectionSettings):
    """Return the function (hypothesis, gold) -> similarity, None for `best`."""
    if settings.select == "best":
        return None
    from sacrebleu.metrics import CHRF

    if settings.select == "closest-chrf":
        metric = CHRF()
    else:
        metric = build_bleu(settings.tokenizer, "bleu_tokenizer", effective_order=True)
    return lambda hypothesis, gold: metric.sentence_score(hypothesis, [gold]).score


@contextlib.contextmanager
def _open_atomic(path: Path):
    with files.atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as stream:
        yield stream
