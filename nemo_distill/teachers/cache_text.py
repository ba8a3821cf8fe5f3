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
"""The text of a cache as a student's training reads it: raw text is processed by the teacher's processors."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nemo_distill.archives.restore import read_archive_config
from nemo_distill.config.languages import SIDES
from nemo_distill.config.section import TeacherConfig
from nemo_distill.data.forms import PROCESSED, RAW, check_form, labels_are_processed
from nemo_distill.data.processing import process_lines
from nemo_distill.data.processors import Processing
from nemo_distill.support import files, text_files
from nemo_distill.support.numbered import unnumbered
from nemo_distill.support.threads import cores
from nemo_distill.support.warned import warn

OF_LABELS = "of labels"
_LINES_A_PROCESS = 5000


@dataclass(frozen=True)
class TextPair:
    """Two aligned text files of the training."""

    source: str
    target: str
    sha256: tuple[str, str]
    """Of both."""
    is_raw: bool
    """Whether the text is processed before BPE; else it is read as it is."""


def processing_of(config: TeacherConfig) -> Processing:
    """Return how a teacher's text is processed; not at all by one of several languages of which none is said.

    Raises:
        InputError: the archive cannot be read, or NeMo has no processor for a language.
    """
    return Processing.of_pair(read_archive_config(config.model_paths[0], languages=config.languages), config.languages)


def read_form(pairs: Sequence[tuple[str, str]], form: str | None, processing: Processing) -> list[TextPair]:
    """Note the files' hashes, and look whether the text has the form that it is said to have.

    Args:
        pairs: text files, source and target.
        form: `raw` or `processed`; `OF_LABELS`, see `labels_are_processed`; None: as training reads it.
        processing: of the teacher.

    Raises:
        InputError: a file cannot be read, or looks as if it had the other form.
    """
    for side, path in itertools.chain.from_iterable(zip(SIDES, pair, strict=True) for pair in pairs):
        if form not in (RAW, PROCESSED):
            break
        found = check_form(path, processing, side, form, f"--{side}")
        if getattr(processing, side) in (None, "ignore") and found == PROCESSED:
            warn(
                f"--{side} '{path}' looks tokenized, and the teacher's archive names no {side} language; give "
                f"--{side}-lang, and --processed, if the teacher was trained on such text"
            )

    def is_raw(text: list[tuple[str, str]]) -> bool:
        if form != OF_LABELS or not processing.changes_text:
            return form == RAW and processing.changes_text
        return not labels_are_processed(tuple(zip(*text, strict=True)))

    forms = [each for text in texts_of(pairs) for each in [is_raw(text)] * len(text)]
    return [TextPair(*pair, tuple(map(files.sha256, pair)), raw) for pair, raw in zip(pairs, forms, strict=True)]


def texts_of(pairs: Sequence[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Return pairs of files by the texts that they are of: numbered ones, which lie one behind the other, are one."""
    return [list(group) for _, group in itertools.groupby(pairs, key=lambda pair: tuple(map(unnumbered, pair)))]


def text_request(pairs: Sequence[TextPair], processing: Processing) -> dict:
    """Return what a request says of text and languages; nothing of languages where the teacher reads raw text."""
    request = {"text": [list(pair.sha256) for pair in pairs]}
    if processing.changes_text:
        request["languages"] = processing.languages()
    if any(pair.is_raw for pair in pairs):
        request["raw"] = [pair.is_raw for pair in pairs]
    return request


def processed_lines(pair: TextPair, side: int, processing: Processing, processes: int) -> Iterator[str]:
    """Yield the lines of one side of raw text as training reads them.

    Args:
        pair: files.
        side: 0 for the source, 1 for the target.
        processing: of the teacher.
        processes: that share this machine, each of which reads all text.

    Raises:
        InputError: as `text_files.iterate_lines`, or a line cannot be processed.
    """
    path = (pair.source, pair.target)[side]
    lines = text_files.iterate_lines(path, pair.sha256[side])
    count = text_files.count_lines(path)
    jobs = min(max(cores() // processes, 1), 1 + count // _LINES_A_PROCESS)
    return itertools.chain.from_iterable(process_lines(lines, processing, SIDES[side], path, jobs))
