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
"""The arrays of a cache as they are read: the header, every size and every value checked against what they must be."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nemo_distill.errors import TeacherError
from nemo_distill.support.incoming import open_regular, state
from nemo_distill.support.quoting import error_line

ROW = np.dtype([("key", "<u8", (2,)), ("start", "<i8"), ("tokens", "<i4")])
"""Of a sentence pair: its key, the place of its first token in the shard, and its number of target tokens."""
LARGEST_HALF = 65504.0
"""What lower logits are stored as, negative."""
_ANEW = "make the cache anew"
_BLOCK = 1 << 16  # records
_TOLERANCE = 0.02  # of a normaliser, whose logits are rounded to half precision


def write_array(stream: BinaryIO, array: np.ndarray) -> None:
    """Write an array as `numpy.save` does; a full disk gives the system's own error."""
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
    stream.write(np.ascontiguousarray(array).view(np.uint8))


class ShardFile:
    """One array of a shard, open for reading.

    Args:
        path: of the file.
        dtype: of its records.
        size: bytes that the file must have; None: as many as its header says.

    Raises:
        TeacherError: it is no regular file, or not such an array, whole.
    """

    def __init__(self, path: Path, dtype: np.dtype, size: int | None = None) -> None:
        self.path, self._dtype = path, dtype
        with open_regular(path, TeacherError, _ANEW) as stream:
            self._stream = os.fdopen(os.dup(stream.fileno()), "rb")
        try:
            self.state = state(self._stream.fileno())
            found = self.state[0]
            if size not in (None, found):
                raise TeacherError(f"'{path}' is damaged: {found} bytes in place of {size}; {_ANEW}")
            self.count = self._read_header(found)
        except BaseException:
            self.close()
            raise

    def _read_header(self, size: int) -> int:
        """Return the number of records."""
        try:
            version = np.lib.format.read_magic(self._stream)
            if version != (1, 0):  # of longer headers than ours
                raise ValueError(f"it is of format {version}")
            shape, in_columns, dtype = np.lib.format.read_array_header_1_0(self._stream)
        except Exception as error:  # of NumPy and Python's parser, whatever the bytes
            raise TeacherError(
                f"'{self.path}' of the cache cannot be read: {error_line(error, 200)}; {_ANEW}"
            ) from error
        self._start = self._stream.tell()
        fits = dtype == self._dtype and not in_columns and len(shape) == 1
        if not fits or not 0 < shape[0] == (size - self._start) / self._dtype.itemsize:
            raise TeacherError(f"shard '{self.path}' of the cache does not fit the manifest; {_ANEW}")
        return shape[0]

    def tokens(self) -> "TokenFile":
        """Return the records, to be read from the file as it is now."""
        return TokenFile(self.path, self._dtype, self._start, self.count, self.state)

    def blocks(self, digest: Any) -> Iterator[np.ndarray]:
        """Yield the records, some at a time, from one reading of the file, whose bytes all go into the digest."""
        self._stream.seek(0)
        digest.update(self._stream.read(self._start))
        for start in range(0, self.count, _BLOCK):
            count = min(_BLOCK, self.count - start)
            content = self._stream.read(count * self._dtype.itemsize)
            if len(content) != count * self._dtype.itemsize:
                raise TeacherError(f"'{self.path}' of the cache has changed while it was read; {_ANEW}")
            digest.update(content)
            yield np.frombuffer(content, self._dtype)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class TokenFile:
    """The records of a shard's tokens, read from the disk: mapped into memory, a file cut short would end the process.

    Args:
        path: of the file.
        dtype: of a record.
        start: of the first one in the file.
        count: of them.
        state: that the file must keep, see `support.incoming.state`.
    """

    def __init__(self, path: Path, dtype: np.dtype, start: int, count: int, state: tuple[int, ...]) -> None:
        self._path, self._dtype, self._start, self._count, self._state = path, dtype, start, count, state

    def __len__(self) -> int:
        return self._count

    def read(self, spans: Iterable[tuple[int, int]]) -> Iterator[np.ndarray]:
        """Yield the records of each span: the first one, and how many.

        Raises:
            TeacherError: the file has changed since it was opened, or cannot be read.
        """
        size = self._dtype.itemsize
        with open_regular(self._path, TeacherError, _ANEW) as stream:
            descriptor = stream.fileno()
            if state(descriptor) != self._state:
                raise TeacherError(f"'{self._path}' of the cache has changed since it was opened; {_ANEW}")
            for first, count in spans:
                try:
                    content = os.pread(descriptor, count * size, self._start + first * size)
                except OSError as error:
                    raise TeacherError(f"'{self._path}' of the cache cannot be read ({error.strerror})") from error
                if len(content) != count * size:
                    raise TeacherError(f"'{self._path}' of the cache has changed since it was opened; {_ANEW}")
                yield np.frombuffer(content, self._dtype)


def open_tokens(
    path: Path,
    dtype: np.dtype,
    temperatures: Sequence[float],
    vocabulary_size: int,
    size: int | None = None,
    sha256: str | None = None,
    verify: bool = True,
) -> TokenFile:
    """Return the records of a shard's tokens, to be read from the disk.

    Args:
        path: of the file.
        dtype: of the records.
        temperatures: of the normalisers.
        vocabulary_size: ids are below it.
        size: bytes that the file must have.
        sha256: what the file must have, where it is known.
        verify: read all records, and compare them and the checksum.

    Raises:
        TeacherError: the file is not what it must be.
    """
    shard = ShardFile(path, dtype, size)
    try:
        if verify:
            digest, fault = hashlib.sha256(), None
            for records in shard.blocks(digest):
                fault = fault or record_fault(records, temperatures, vocabulary_size)
            _compare(path, digest, sha256)
            if fault:
                raise TeacherError(f"'{path}' of the cache is damaged: {fault}; {_ANEW}")
        return shard.tokens()
    finally:
        shard.close()


def open_rows(path: Path, tokens: int, size: int | None = None, sha256: str | None = None) -> np.ndarray:
    """Return the rows of a shard, which are read and checked as a whole.

    Args:
        path: of the file.
        tokens: records of the shard.
        size: bytes that the file must have.
        sha256: what the file must have, where it is known.

    Raises:
        TeacherError: the file is not what it must be, or its pairs do not lie one behind the other in the tokens.
    """
    shard = ShardFile(path, ROW, size)
    try:
        digest = hashlib.sha256()
        rows = np.concatenate(list(shard.blocks(digest)))
    finally:
        shard.close()
    _compare(path, digest, sha256)
    ends = np.cumsum(rows["tokens"], dtype=np.int64)
    if rows["tokens"].min() < 1 or ends[-1] != tokens or not np.array_equal(rows["start"], ends - rows["tokens"]):
        raise TeacherError(f"'{path}' of the cache is damaged: its pairs do not share out its shard; {_ANEW}")
    return rows


def _compare(path: Path, digest: Any, sha256: str | None) -> None:
    if sha256 is not None and digest.hexdigest() != sha256:
        raise TeacherError(f"'{path}' is damaged: its checksum is another one; {_ANEW}")


def record_fault(records: np.ndarray, temperatures: Sequence[float], vocabulary_size: int) -> str | None:
    """Return what is wrong with records of tokens: no teacher says so; None if nothing is."""
    ids, logits = records["ids"], records["logits"].astype(np.float32)
    if ids.max() >= vocabulary_size:
        return f"a word beyond the vocabulary of {vocabulary_size}"
    ordered = np.sort(ids, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        return "a word twice for one token"
    if not np.isfinite(logits).all() or (logits[:, 0] != 0).any() or (logits[:, 1:] > logits[:, :-1]).any():
        return "logits that are not in their order below 0"
    others = vocabulary_size - ids.shape[1]
    for temperature, normaliser in zip(temperatures, records["log_normaliser"].T, strict=True):
        shares = np.exp(logits / np.float32(temperature))
        lowest = np.log((shares * (logits > -LARGEST_HALF)).sum(axis=1))  # what is stored as that may be lower
        highest = np.log(shares.sum(axis=1) + others * shares[:, -1])  # no other word is above the last
        allowed = _TOLERANCE + 6e-8 / temperature
        if not ((normaliser >= lowest - allowed) & (normaliser <= highest + allowed)).all():
            return f"a normaliser that its logits cannot have at temperature {temperature:g}"
    return None
