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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nemo_distill.errors import TeacherError
from nemo_distill.support.incoming import open_regular, state
from nemo_distill.support.quoting import error_line
from nemo_distill.teachers.cache_records import Records

ROW = np.dtype([("key", "<u8", (2,)), ("start", "<i8"), ("tokens", "<i4")])
"""Of a sentence pair: its key, the place of its first token in the shard, and its number of target tokens."""
_ANEW = "make the cache anew"
_BLOCK = 1 << 16  # records


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
    records: Records,
    size: int | None = None,
    sha256: str | None = None,
    verify: bool = True,
) -> TokenFile:
    """Return the records of a shard's tokens, to be read from the disk.

    Args:
        path: of the file.
        records: what they are.
        size: bytes that the file must have.
        sha256: what the file must have, where it is known.
        verify: read all records, and compare them and the checksum.

    Raises:
        TeacherError: the file is not what it must be.
    """
    shard = ShardFile(path, records.dtype, size)
    try:
        if verify:
            digest, fault = hashlib.sha256(), None
            for block in shard.blocks(digest):
                fault = fault or records.fault(block)
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
