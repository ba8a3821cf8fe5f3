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
"""A teacher's outputs on disk: for each target token its best words, perhaps some of the others, and what is left.

A cache is a directory: `manifest.json`; in `shards` two NumPy files for each shard, `NNNNNN.tokens.npy` with one
record for each target token (`cache_records`) and `NNNNNN.rows.npy` with one for each sentence pair; and the index of
all pairs (`cache_index`). A pair is found by a hash of its token ids, whatever file, line or batch it comes from.
"""

import contextlib
import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from nemo_distill.errors import InputError, TeacherError
from nemo_distill.losses.signals import KeptTargets
from nemo_distill.support import files, incoming
from nemo_distill.support.manifest import MANIFEST
from nemo_distill.support.progress_bar import progress_bar
from nemo_distill.support.remembered import state_of
from nemo_distill.teachers.cache_arrays import TokenFile, open_rows, open_tokens
from nemo_distill.teachers.cache_index import CacheIndex
from nemo_distill.teachers.cache_manifest import INDEX, SHARDS, read_cache_manifest, shard_files
from nemo_distill.teachers.cache_records import Records

LARGEST_NOISE = 1.0
"""Of the draws, in the gradient by a token's logits, where the labels' is about 1: `LogitCache.gradient_noise`."""
_CHECKED = ".checked.json"
_PAIRS_OF_NOISE = 1000


def pair_keys(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return the keys, [N, 2], of sentence pairs: token ids with BOS and EOS, source and target.

    A key is a hash of 128 bits, so that two pairs of any corpus have different ones.
    """
    digests = []
    for source, target in pairs:
        digest = hashlib.blake2b(len(source).to_bytes(4, "little"), digest_size=16)
        for ids in (source, target):
            digest.update(np.ascontiguousarray(ids, "<i4"))
        digests.append(digest.digest())
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)


def batch_pairs(batch: Sequence[torch.Tensor], target_pad: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the sentence pairs of a training batch, without padding, see `pair_keys`.

    Args:
        batch: source ids [B, S], source mask [B, S], target ids [B, T], target mask [B, T], labels [B, T].
        target_pad: padding id of the target.
    """
    source, source_mask, target, _, labels = (torch.as_tensor(item).int().cpu().numpy() for item in batch)
    lengths = (source_mask != 0).sum(1).tolist(), (labels != target_pad).sum(1).tolist()
    whole = np.concatenate([target[:, :1], labels], axis=1)
    return [
        (source[row, :source_length], whole[row, : target_length + 1])
        for row, (source_length, target_length) in enumerate(zip(*lengths, strict=True))
    ]


class LogitCache:
    """A finished cache, opened for reading. The tokens stay on disk.

    Args:
        directory: what `nemo-distill cache` wrote.
        verify: read every shard and compare it with its checksum, and each record with what a teacher can say, unless
            that was done with the files as they are; sizes are always compared.

    Raises:
        TeacherError: there is no finished cache, or a shard is missing or damaged.

    Example:
        >>> cache = LogitCache("runs/cache")  # doctest: +SKIP
        >>> cache.find(pair_keys(batch_pairs(batch, pad)))  # places, -1 for a miss  # doctest: +SKIP
    """

    def __init__(self, directory: str | os.PathLike, verify: bool = True) -> None:
        self.directory, self.manifest = Path(directory), read_cache_manifest(directory)
        request = self.manifest["request"]
        self.temperatures: list[float] = request["temperatures"]
        self.records = Records(
            request["top_k"], request.get("sampled", 0), self.temperatures, self.manifest["vocabulary_size"]
        )
        paths = [self.directory / name for name in (MANIFEST, *self.manifest["files"])]
        state = state_of(paths) if verify else None
        is_known = state is not None and self._noted() == state
        verify = verify and not is_known
        self._tokens: list[TokenFile] = []
        hashes = [self.manifest["files"][name]["sha256"] for name in INDEX] if verify else None
        self._index = CacheIndex(self.directory, self.manifest["pairs"], hashes)
        numbers = range(len(self.manifest["shards"]))
        bar = progress_bar("checking the cache", len(numbers), "shards", verify, iterable=numbers, leave=False)
        for number in bar:
            self._tokens.append(self._open_tokens(number, verify))
            if verify:
                self._check_rows(number)
        self._ends = np.cumsum([len(tokens) for tokens in self._tokens])
        if self._ends[-1] != self.manifest["tokens"]:
            raise TeacherError(f"'{directory}': the shards have other tokens than the manifest; make the cache anew")
        if state is not None and not is_known and state_of(paths) == state:
            with contextlib.suppress(OSError):  # a directory that is only read
                files.write_json_atomic(self.directory / _CHECKED, {"state": state})

    def _noted(self) -> str | None:
        """Return the state of the files in which they were read as a whole, and found right."""
        with contextlib.suppress(InputError):
            noted = incoming.read_json(self.directory / _CHECKED)
            return noted.get("state") if isinstance(noted, dict) else None
        return None

    def __len__(self) -> int:
        """Return the number of sentence pairs."""
        return len(self._index)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the places [N] of the pairs with these keys, [N, 2]; -1 for those that are not here."""
        return self._index.find(keys)

    def read(self, places: np.ndarray) -> np.ndarray:
        """Return the records of the target tokens of the pairs at these places, [N], pair after pair.

        Raises:
            TeacherError: a shard has changed since it was opened.
        """
        starts, lengths = self._index.spans(places)
        shards = np.searchsorted(self._ends, starts, side="right")
        if (shards == len(self._ends)).any():
            raise TeacherError(f"the index of the cache in '{self.directory}' is damaged; make the cache anew")
        starts = starts - np.concatenate([[0], self._ends])[shards]
        firsts = np.cumsum(lengths) - lengths  # of each pair in the result
        records = np.empty(int(lengths.sum()), self.records.dtype)
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            spans = zip(starts[here].tolist(), lengths[here].tolist(), strict=True)
            for first, found in zip(firsts[here].tolist(), self._tokens[shard].read(spans), strict=True):
                records[first : first + len(found)] = found
        return records

    def targets(self, records: np.ndarray, temperature: float, device: torch.device | str) -> KeptTargets:
        """Return what the loss reads, from records of N tokens.

        Raises:
            TeacherError: the cache does not hold that temperature, or a shard has changed behind the check.
        """
        targets = self.records.targets(records, self.temperature_column(temperature), device)
        if len(records) and int(targets.ids.max()) >= self.manifest["vocabulary_size"]:
            raise TeacherError(f"the shards of the cache in '{self.directory}' have changed; make the cache anew")
        return targets

    def gradient_noise(self, temperature: float) -> float:
        """Return what the draw of words adds to the gradient of the word-level term, of weight 1, by a token's logits.

        The root mean square of its norm, with the loss's factor `temperature ** 2`, over the first thousand pairs; 0
        where no words are drawn. The gradient of the labels by a token's logits has a norm of about 1, at most 1.41.
        """
        if not self.records.sampled:
            return 0.0
        records = self.read(np.arange(min(len(self), _PAIRS_OF_NOISE)))
        return temperature * self.targets(records, temperature, "cpu").noise().mean().sqrt().item()

    def temperature_column(self, temperature: float) -> int:
        """Return the place of a temperature in the list; see `targets`."""
        for column, each in enumerate(self.temperatures):
            if math.isclose(each, temperature, rel_tol=1e-6):
                return column
        held = " ".join(f"{each:g}" for each in self.temperatures)
        raise TeacherError(
            f"the cache in '{self.directory}' does not hold the temperature {temperature:g}, but {held}; train with "
            f"one of these, or make it anew with --temperatures {held} {temperature:g}"
        )

    def _open_tokens(self, number: int, verify: bool) -> TokenFile:
        paths = shard_files(self.directory, number)
        for path in paths:
            if not path.is_file():
                raise TeacherError(f"'{path}' of the cache is missing; make the cache anew")
            found, size = path.stat().st_size, self._known(path)[0]
            if found != size:
                raise TeacherError(f"'{path}' is damaged: {found} bytes in place of {size}; make the cache anew")
        size, sha256 = self._known(paths[0])
        return open_tokens(paths[0], self.records, size, sha256, verify=verify)

    def _check_rows(self, number: int) -> None:
        """Make sure that the index has the pairs of a shard where its rows have them."""
        path, before = shard_files(self.directory, number)[1], sum(map(len, self._tokens[:-1]))
        rows = open_rows(path, len(self._tokens[-1]), *self._known(path))
        if len(rows) != self.manifest["shards"][number]:
            raise TeacherError(f"shard '{path}' of the cache does not fit the manifest; make the cache anew")
        places = self._index.find(rows["key"])
        starts, lengths = self._index.spans(places)
        if (places < 0).any() or (starts - before != rows["start"]).any() or (lengths != rows["tokens"]).any():
            raise TeacherError(f"'{path}' of the cache and its index do not fit each other; make the cache anew")

    def _known(self, path: Path) -> tuple[int, str]:
        """Return the size and the SHA-256 that a file of a shard must have."""
        name = f"{SHARDS}/{path.name}"
        return self.manifest["bytes"][name], self.manifest["files"][name]["sha256"]
