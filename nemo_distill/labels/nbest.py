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
from dataclasses import asdict, dataclass

from nemo_distill.decoding.engine import Hypothesis
from nemo_distill.errors import InputError
from nemo_distill.support import files

# What str.splitlines() and other programs take for the end of a line.
_LINE_BREAKS = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


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


def one_line(text: str) -> str:
    """Return a text with every line break that Unicode knows as a space, so that no reader can lose the alignment.

    Example:
        >>> one_line("ein\\u2028Satz")
        'ein Satz'
    """
    return _LINE_BREAKS.sub(" ", text)


def write_nbest(path: str | os.PathLike, rows: Iterable[NBest]) -> None:
    """Write rows so that the file is there whole or not at all."""
    lines = []
    for row in rows:
        record = {"line": row.line, "source": row.source, "hypotheses": [asdict(one) for one in row.hypotheses]}
        if row.cut:
            record["cut"] = True
        lines.append(json.dumps(record, ensure_ascii=False, allow_nan=False))
    files.write_lines_atomic(path, lines)


def read_nbest(path: str | os.PathLike) -> Iterator[NBest]:
    """Yield the rows of a file that `write_nbest` wrote.

    Raises:
        InputError: the file is missing or not of this form, or a line lacks or comes twice.

    Example:
        >>> for row in read_nbest("labels/nbest.jsonl"):  # doctest: +SKIP
        ...     print(row.source, row.hypotheses[0].text)
    """
    for number, text in enumerate(files.iterate_lines(path), start=1):
        try:
            record = json.loads(text)
            hypotheses = tuple(Hypothesis(**one) for one in record["hypotheses"])
            row = NBest(record["line"], record["source"], hypotheses, record.get("cut", False))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"'{path}', line {number}: not an n-best record ({error})") from error
        if row.line != number:
            raise InputError(f"'{path}' holds input line {row.line!r} where {number} belongs; write it again")
        yield row
