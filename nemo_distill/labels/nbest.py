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
"""`nbest.jsonl`: every input line with its hypotheses, one JSON object a line, to choose from again."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from nemo_distill.decoding.engine import MARKS, Hypothesis
from nemo_distill.errors import InputError
from nemo_distill.support import text_files
from nemo_distill.support.incoming import parse_json
from nemo_distill.support.quoting import LINE_BREAKS, one_line

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_OPTIONAL = ("processed", "mark", "cut", "unknown")
"""Keys that a hypothesis has only where they say something."""
_ROUNDING = 0.01  # nats by which the sum of some log-probabilities may seem to be above 0


@dataclass(frozen=True)
class NBest:
    """An input line and what an engine made of it."""

    line: int
    """Its number in the input, from 1."""
    source: str
    hypotheses: tuple[Hypothesis, ...]
    """Best first; one empty hypothesis for an empty line."""
    cut: bool = False
    """The source is longer than the teacher takes; the hypotheses translate its beginning."""
    processed: str | None = None
    """The source as training reads it, where it is another text."""
    unknown: bool = False
    """The teacher knows no piece of the source."""


def table_cell(text: str) -> str:
    """Return a text for a table that people read: line breaks, tabs and all other control characters as spaces.

    Example:
        >>> table_cell("ein\\tSatz\\x1b[2J")
        'ein Satz [2J'
    """
    return _CONTROL.sub(" ", one_line(text))


def nbest_line(row: NBest) -> str:
    """Return a row as a line of the file, without its end."""
    record = {"line": row.line, "source": row.source, "hypotheses": [*map(_hypothesis_record, row.hypotheses)]}
    if row.cut:
        record["cut"] = True
    if row.processed is not None:
        record["processed"] = row.processed
    if row.unknown:
        record["unknown"] = True
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


def _hypothesis_record(one: Hypothesis) -> dict[str, Any]:
    optional = {name: getattr(one, name) for name in _OPTIONAL if getattr(one, name) not in (None, False, 0)}
    return {"text": one.text, "score": one.score, "length": one.length, **optional}


def read_nbest(path: str | os.PathLike, sha256: str | None = None) -> Iterator[NBest]:
    """Yield the rows of a file of `nbest_line`.

    Args:
        path: of the file.
        sha256: what the file must have, compared at its end with what was read.

    Raises:
        InputError: the file is missing, has changed or is not of this form; or a line lacks or comes twice.

    Example:
        >>> for row in read_nbest("labels/nbest.jsonl"):  # doctest: +SKIP
        ...     print(row.source, row.hypotheses[0].text)
    """
    yield from parse_nbest(text_files.iterate_lines(path, sha256), path)


def parse_nbest(lines: Iterable[str], path: str | os.PathLike, first: int = 1, number: int = 1) -> Iterator[NBest]:
    """Yield the rows of lines of a file; see `read_nbest`.

    Args:
        lines: of the file.
        path: of the file, for messages.
        first: the input line that the first of them is of.
        number: of the first of them in the file.
    """
    for wanted, text in enumerate(lines, start=first):
        try:
            row = _row(parse_json(text))
        except ValueError as error:
            raise InputError(f"'{path}', line {number}: not an n-best record ({error}); make it again") from error
        if row.line != wanted:
            raise InputError(
                f"'{path}', line {number}: holds input line {row.line} where {wanted} belongs; make it again"
            )
        yield row
        number += 1


def _row(record: Any) -> NBest:
    """Build a row from plain data; by hand, since there are millions.

    Raises:
        ValueError: it has other keys, or values that no engine gives.
    """
    if not isinstance(record, dict) or not {"line", "source", "hypotheses"} <= record.keys():
        raise ValueError("it needs the keys line, source and hypotheses")
    if unknown := record.keys() - {"line", "source", "hypotheses", "cut", "processed", "unknown"}:
        raise ValueError(f"the key {min(unknown)[:40]!a} is unknown")
    line, found = record["line"], record["hypotheses"]
    flags = cut, unknown = record.get("cut", False), record.get("unknown", False)
    if type(line) is not int or not isinstance(found, list) or not all(type(flag) is bool for flag in flags):
        raise ValueError("line must be a whole number, hypotheses a list, cut and unknown true or false")
    source, processed = _text(record["source"], "source"), _optional_text(record)
    return NBest(line, source, tuple(map(read_hypothesis, found)), cut, processed, unknown)


def read_hypothesis(record: Any) -> Hypothesis:
    """Build a hypothesis from plain data.

    Raises:
        ValueError: as `_row`.
    """
    if not isinstance(record, dict) or record.keys() - {*_OPTIONAL} != {"text", "score", "length"}:
        raise ValueError(
            f"a hypothesis needs the keys text, score and length, and no other than {', '.join(_OPTIONAL)}"
        )
    score, length, mark = record["score"], record["length"], record.get("mark")
    if length is None:  # of hypotheses that no engine made
        if score is not None and (type(score) not in (int, float) or not -1e30 < score < 1e30):
            raise ValueError("a score must be a finite number, or null")
    elif type(score) not in (int, float) or not -1e30 < score <= _ROUNDING:
        raise ValueError("with a length, a score must be a log-probability, a finite number of at most 0")
    elif type(length) is not int or not 0 <= length < 1 << 31:
        raise ValueError("a length must be a number of tokens, 0 or more")
    if not (mark is None and "mark" not in record) and mark not in MARKS:
        raise ValueError(f"a mark must be one of {', '.join(MARKS)}")
    cut, unknown = record.get("cut", False), record.get("unknown", 0)
    most = 1 << 31 if length is None else length
    if type(cut) is not bool or type(unknown) is not int or not 0 <= unknown <= most:
        raise ValueError("cut must be true or false, unknown a number of tokens, at most the length")
    return Hypothesis(_text(record["text"], "text"), score, length, _optional_text(record), mark, cut, unknown)


def _optional_text(record: dict[str, Any]) -> str | None:
    return _text(record["processed"], "processed") if "processed" in record else None


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or LINE_BREAKS.search(value):
        raise ValueError(f"{name} must be text on one line")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} has a lone surrogate") from error
    return value
