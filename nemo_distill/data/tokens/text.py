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
"""The token ids of a text's lines."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from nemo_distill.errors import InputError
from nemo_distill.support import text_files
from nemo_distill.support.progress_bar import progress_bar

_BLOCK = 1 << 14


@dataclass(frozen=True)
class TokenizedText(Sequence):
    """Token ids of each line, without start and end; arrays in memory, or of files that are mapped into it."""

    ids: np.ndarray
    """Of all lines, one behind the other: uint16 or int32 [tokens]."""
    offsets: np.ndarray
    """Where each line begins in `ids`, in bytes: int64 [lines]."""
    lengths: np.ndarray
    """Tokens of each line: int32 [lines]."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, line: int) -> np.ndarray:
        """Return the ids of a line, from 0."""
        return self.rows(np.array([line]))[0]

    def rows(self, lines: np.ndarray, marks: tuple[int, int] | None = None) -> list[np.ndarray]:
        """Return the ids of some lines, from 0, int32, between the ids of start and end if these are given."""
        starts, lengths = self.offsets[lines] // self.ids.itemsize, self.lengths[lines]
        front, further = (0, 0) if marks is None else (1, 2)
        rows = []
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            row = np.empty(length + further, dtype=np.int32)
            row[front : front + length] = self.ids[start : start + length]
            if marks is not None:
                row[0], row[-1] = marks
            rows.append(row)
        return rows


def tokenize(path: str | os.PathLike, tokenizer, sha256: str | None = None, keep_blank: bool = False) -> TokenizedText:
    """Return a text as token ids, in memory.

    Args:
        path: of the text.
        tokenizer: any of NeMo's.
        sha256: what the file must have.
        keep_blank: a line of white space has the tokens that the tokenizer makes of it, if any; else it has none.

    Raises:
        InputError: as `text_files.iterate_lines`; or there is no text.
    """
    dtype, parts, lengths = token_dtype(tokenizer), [], []
    what, read = f"tokenizing {Path(path).name}", text_files.iterate_lines(path, sha256)
    lines = iter(progress_bar(what, text_files.count_lines(path), iterable=read, leave=False))
    has_text = False
    while block := list(islice(lines, _BLOCK)):
        has_text = has_text or any(line.strip() for line in block)
        ids, counts = encode(block, tokenizer, dtype, keep_blank)
        parts.append(ids)
        lengths.append(counts)
    counts = np.concatenate(lengths) if lengths else np.zeros(0, dtype=np.int32)
    if not has_text:
        raise text_files.no_text(path, len(counts))
    ends = np.cumsum(counts, dtype=np.int64)
    return TokenizedText(np.concatenate(parts), (ends - counts) * dtype.itemsize, counts)


def encode(
    lines: Iterable[str], tokenizer, dtype: np.dtype, keep_blank: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the token ids of lines, one behind the other, and the number of each line's; see `tokenize`."""
    ids: list[int] = []
    counts = []
    for line in lines:
        new = tokenizer.text_to_ids(line) if keep_blank or line.strip() else []
        ids.extend(new)
        counts.append(len(new))
    if ids and not 0 <= min(ids) <= max(ids) <= np.iinfo(dtype).max:
        raise InputError(
            f"the tokenizer gives the ids {min(ids)} to {max(ids)}, beyond its {tokenizer.vocab_size} tokens"
        )
    return np.array(ids, dtype=dtype), np.array(counts, dtype=np.int32)


def token_dtype(tokenizer) -> np.dtype:
    """Return the smallest type of the two that holds a tokenizer's ids."""
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32)
