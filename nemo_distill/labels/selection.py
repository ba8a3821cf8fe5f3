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
"""What to choose and what to refuse of n-best lists, and the same done anew; the work itself is in `choosing`."""

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from nemo_distill.data.bleu_tokenizer import SAMPLE_LINES, choose_bleu_tokenizer
from nemo_distill.errors import InputError
from nemo_distill.labels import checks
from nemo_distill.labels.checks import DROPPED, NBEST
from nemo_distill.labels.choosing import NO_SCORES, build_similarity, write_selection
from nemo_distill.labels.filtering import FilterSettings
from nemo_distill.labels.leak_check import TestText
from nemo_distill.support import files, incoming, manifest, text_files
from nemo_distill.support.lock import locked

_logger = logging.getLogger(__name__)
SELECTIONS = ("best", "closest-bleu", "closest-chrf")


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
            build_similarity(self)
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
        facts = write_selection(source / NBEST, digest, directory, settings, lines, progress, request, processed)
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
