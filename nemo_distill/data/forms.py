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
"""Which form text has: raw, as people write it, or processed, its punctuation standing apart from the words.

A model whose languages have processors is trained on processed text and translates raw text. The other form in the
place of either is no error that anybody sees, it only costs quality; so it is looked for.
"""

import itertools
import os
import re
from collections.abc import Collection, Iterable, Mapping

from nemo_distill.config.mixture import PROCESSED_SOURCE
from nemo_distill.data.processors import Processing
from nemo_distill.errors import InputError
from nemo_distill.support import text_files
from nemo_distill.support.numbered import base_name
from nemo_distill.support.texts import GivenText, Texts

RAW, PROCESSED = "raw", "processed"
_MOST_LINES, _CLEAR = 10_000, 0.8

# Of each mark, where it stands apart and where it is attached. ASCII periods count at the end of a line only, since
# abbreviations and ordinals keep theirs; `?`, `!`, `;` and `:` do not count: French has a space in front of them.
_MARKS = {
    ",": (r"(?:^|(?<=\s)),(?=\s|$)", r"(?<=[^\s.,]),(?=\s|$)"),
    ".": (r"(?:^|(?<=\s))\.\s*$", r"(?<=[^\s\d.,])\.\s*$"),
    **{mark: (rf"(?:^|(?<=\s)){mark}", rf"(?<=\S){mark}") for mark in "。，।"},
}
_MARKS = {mark: tuple(map(re.compile, patterns)) for mark, patterns in _MARKS.items()}
# What Moses writes for a mark, as a word of its own: raw text has entities at its words, and `&amp;` between them.
_ESCAPED = re.compile(r"(?:^|(?<=\s))&(?:quot|apos|#124|#91|#93);(?=\s|$)|(?:^|(?<=\s))@-@(?=\s)")
_PROBES = {",": "Wort, Wort", ".": "Wort.", "。": "字。", "，": "字，字", "।": "क।"}
"""Text from which a processor that splits a mark off makes one with a space in front of it."""


def form_of(lines: Iterable[str], marks: Collection[str] = tuple(_MARKS), fewest: int = 20) -> str | None:
    """Return which form lines have, `raw` or `processed`; None where they have too few marks, or some of each.

    Args:
        lines: text; 10,000 of them are looked at.
        marks: punctuation to look at, of `. , 。 ， ।`.
        fewest: marks that tell a form.

    Example:
        >>> form_of(["Ja, gut."] * 10), form_of(["Ja , gut ."] * 10), form_of(["Ja"] * 10)
        ('raw', 'processed', None)
    """
    apart = attached = 0
    for line in itertools.islice(lines, _MOST_LINES):
        apart += len(_ESCAPED.findall(line))
        for mark in marks:
            if mark in line:
                stands_apart, is_attached = _MARKS[mark]
                apart += len(stands_apart.findall(line))
                attached += len(is_attached.findall(line))
    if apart + attached < fewest:
        return None
    share = apart / (apart + attached)
    return PROCESSED if share >= _CLEAR else RAW if share <= 1 - _CLEAR else None


def marks_of(processing: Processing, side: str) -> list[str]:
    """Return the marks that a side's processor splits off; by them alone its forms can be told apart."""
    if processing.kind(side) is None:
        return []
    return [mark for mark, probe in _PROBES.items() if f" {mark}" in processing.process(side, probe)]


def check_raw(pairs: Iterable[Mapping[str, str]], processing: Processing, as_raw: bool = False) -> None:
    """Make sure that files are raw text that can be processed.

    Args:
        pairs: paths by side, `source` and `target` or one of them; line N of one side translates line N of the other.
        processing: languages.
        as_raw: text that looks tokenized is processed all the same.

    Raises:
        InputError: a file is empty, or looks tokenized already, or sides differ in their lines.
    """
    for pair in pairs:
        counts = {side: sum(1 for _ in text_files.iterate_lines(path)) for side, path in pair.items()}
        if len(pair) == 2:
            text_files.check_parallel(pair["source"], counts["source"], pair["target"], counts["target"])
        for side, path in pair.items():
            if not counts[side]:
                raise text_files.no_text(path, 0)
            if not as_raw and form_of_file(path, processing, side) == PROCESSED:
                raise InputError(
                    f"'{path}' looks tokenized already (its punctuation stands apart), and {processing.kind(side)} "
                    "would tokenize it again; leave it as it is, or give --as-raw if it is raw text"
                )


def form_of_file(path: GivenText, processing: Processing | None = None, side: str = "source") -> str | None:
    """Return which form a file has, see `form_of`.

    Args:
        path: text, one sentence a line; in several files that are one text.
        processing: languages, where they are known: only what their processor would change tells anything.
        side: of the languages.
    """
    marks = tuple(_MARKS) if processing is None else marks_of(processing, side)
    return form_of(Texts(path).lines(), marks) if marks else None


def form_read(path: GivenText, processing: Processing, side: str) -> str | None:
    """Return which form a file has: by what the side's processor would change, or by all marks where it is none."""
    return form_of_file(path, processing, side) if processing.kind(side) else form_of_file(path)


def labels_are_processed(pair: tuple[GivenText, GivenText], said: bool = False) -> bool:
    """Return whether pseudo-labels are processed text.

    Those of a teacher that processes text have it in files of their own. All others are as their teacher gave them:
    raw where it is no NeMo model, processed where a NeMo model of no language was given processed text.

    Args:
        pair: the files of source and target that training reads, one of each or several.
        said: what is taken for text with too few marks to tell.
    """
    if base_name(Texts(pair[0]).paths[0]) == PROCESSED_SOURCE:
        return True
    forms = {form_of_file(path) for path in pair}
    return RAW not in forms and (PROCESSED in forms or said)


def check_form(path: str | os.PathLike, processing: Processing, side: str, form: str, where: str) -> str | None:
    """Return which form a file has that a teacher reads, see `form_of_file`.

    Args:
        path: text, one sentence a line.
        processing: of the teacher.
        side: of the languages.
        form: which one it is said to have, `raw` or `processed`.
        where: option of the file, for messages.

    Raises:
        InputError: it looks as if it had the other one.
    """
    kind = processing.kind(side)
    found = form_read(path, processing, side)
    if kind and {form, found} == {RAW, PROCESSED}:
        raise InputError(
            f"{where} '{path}' looks tokenized already (its punctuation stands apart), and {kind} of the teacher "
            "would tokenize it again; give --processed, or text that `nemo-distill preprocess --as-raw` has made of it"
            if form == RAW
            else f"{where} '{path}' looks raw (its punctuation is attached to words), and --processed says that "
            f"it is tokenized as the teacher's text; leave it out, and {kind} does so"
        )
    return found
