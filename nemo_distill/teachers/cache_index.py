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
"""Where a cache has each sentence pair: 16 bytes a pair on disk, mapped into memory and searched there.

`index.keys.npy` has the first 8 bytes of all keys in their order, `index.places.npy` for each of them one number: the
pair's first token in the whole cache (40 bits), its tokens (16 bits), and 8 further bits of the key. Two different
pairs are taken for one with a probability of 2 ** -72. Keys are put in order in parts that fit into memory, on disk.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nemo_distill.errors import TeacherError
from nemo_distill.support import files
from nemo_distill.support.incoming import open_regular
from nemo_distill.teachers.cache_arrays import ShardFile
from nemo_distill.teachers.cache_manifest import INDEX

NUMBERED = np.dtype([("key", "<u8", (2,)), ("number", "<u8")])
"""A sentence pair's key, and a number for it."""
MOST_TOKENS, LONGEST = 1 << 40, (1 << 16) - 1
"""Of a cache, and of a target."""
_WORD = np.dtype("<u8")
_TAG = np.uint64(0xFF)
_IN_MEMORY = 1 << 21  # pairs
_ALIKE = 4  # keys of one first half, at most
_ANEW = "make the cache anew"


def in_order_of_keys(blocks: Iterable[np.ndarray], count: int, directory: Path | None) -> Iterator[np.ndarray]:
    """Yield records in the order of their keys, those of one key in the order in which they come.

    Args:
        blocks: of `NUMBERED`.
        count: of all records, about.
        directory: for temporary files, where there are too many for the memory; None: that of the system. They vanish
            with the process.
    """
    bits = max(count // _IN_MEMORY, 0).bit_length()
    if not bits:
        yield _in_order(np.concatenate([np.empty(0, NUMBERED), *blocks]))
        return
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(tempfile.TemporaryFile(dir=directory)) for _ in range(1 << bits)]
        for block in blocks:
            parts = (block["key"][:, 0] >> np.uint64(64 - bits)).astype(np.int64)
            order = np.argsort(parts, kind="stable")
            cuts = np.searchsorted(parts[order], np.arange(1, 1 << bits))
            for stream, part in zip(streams, np.split(block[order], cuts), strict=True):
                stream.write(part.tobytes())
        for stream in streams:
            stream.seek(0)
            yield _in_order(np.frombuffer(stream.read(), NUMBERED))


def _in_order(records: np.ndarray) -> np.ndarray:
    return records[np.lexsort((records["key"][:, 1], records["key"][:, 0]))]


def write_index(directory: Path, shards: Iterable[np.ndarray], count: int) -> None:
    """Write the index of a cache.

    Args:
        directory: of the cache.
        shards: the rows of each of its shards.
        count: of all pairs.
    """

    def placed() -> Iterator[np.ndarray]:
        end = 0
        for rows in shards:
            starts, tokens = (rows[name].astype(np.uint64) for name in ("start", "tokens"))
            records = np.empty(len(rows), NUMBERED)
            records["key"] = rows["key"]
            records["number"] = ((starts + np.uint64(end)) << np.uint64(24)) | (tokens << np.uint64(8))
            records["number"] |= rows["key"][:, 1] & _TAG
            end += int(tokens.sum())
            yield records

    header = {"descr": _WORD.str, "fortran_order": False, "shape": (count,)}
    with contextlib.ExitStack() as stack:
        paths = [stack.enter_context(files.atomic_path(directory / name)) for name in INDEX]
        keys, places = (stack.enter_context(open(path, "wb")) for path in paths)
        for stream in (keys, places):
            np.lib.format.write_array_header_1_0(stream, header)
        for records in in_order_of_keys(placed(), count, directory):
            keys.write(records["key"][:, 0].tobytes())
            places.write(records["number"].tobytes())


class CacheIndex:
    """The index of a cache, mapped into memory.

    Args:
        directory: of the cache.
        count: pairs that it must have.
        hashes: SHA-256 of its two files; None: they are not read as a whole.

    Raises:
        TeacherError: the files are not what they must be.
    """

    def __init__(self, directory: Path, count: int, hashes: tuple[str, str] | None = None) -> None:
        arrays = []
        for number, name in enumerate(INDEX):
            path = directory / name
            shard = ShardFile(path, _WORD)
            try:
                if shard.count != count:
                    raise TeacherError(f"'{path}' has {shard.count} pairs, and the manifest {count}; {_ANEW}")
                if hashes is not None:
                    _check(path, shard, hashes[number], is_sorted=number == 0)
            finally:
                shard.close()
            with open_regular(path, TeacherError, _ANEW):
                arrays.append(np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray))
        self._keys, self._places = arrays

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the places [N] of the pairs with these keys, [N, 2]; -1 for those that are not here."""
        first = np.searchsorted(self._keys, keys[:, 0])
        found = np.full(len(keys), -1, dtype=np.int64)
        for step in range(_ALIKE):
            places = first + step
            open_ones = np.flatnonzero((places < len(self)) & (found < 0))
            here = places[open_ones]
            is_it = (self._keys[here] == keys[open_ones, 0]) & (self._places[here] & _TAG == keys[open_ones, 1] & _TAG)
            found[open_ones[is_it]] = here[is_it]
        return found

    def spans(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the first token in the whole cache, and the number of tokens, of the pairs at some places."""
        packed = self._places[places]
        tokens = (packed >> np.uint64(8)) & np.uint64(LONGEST)
        return (packed >> np.uint64(24)).astype(np.int64), tokens.astype(np.int64)


def _check(path: Path, shard: ShardFile, sha256: str, is_sorted: bool) -> None:
    """Compare a file with its checksum, and make sure that keys are in order."""
    digest: Any = hashlib.sha256()
    last = np.zeros(1, _WORD)
    in_order = True
    for block in shard.blocks(digest):
        in_order = in_order and last[0] <= block[0] and bool((block[1:] >= block[:-1]).all())
        last = block[-1:]
    if digest.hexdigest() != sha256 or (is_sorted and not in_order):
        raise TeacherError(f"'{path}' is damaged: its checksum is another one, or its keys are in no order; {_ANEW}")
