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
"""A teacher's outputs on disk: for each target token the k best logits, and the exact normaliser of all.

A cache is a directory: `manifest.json`, and in `shards` two NumPy files for each shard, `NNNNNN.tokens.npy` with one
record for each target token and `NNNNNN.rows.npy` with one for each sentence pair. A pair is found by a hash of its
token ids, whatever file, line or batch it comes from.
"""

import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from nemo_distill.errors import TeacherError
from nemo_distill.losses.signals import TopKTargets
from nemo_distill.teachers.cache_arrays import LARGEST_HALF, TokenFile, open_rows, open_tokens
from nemo_distill.teachers.cache_manifest import SHARDS, read_cache_manifest, shard_files


def token_dtype(top_k: int, temperatures: int, vocabulary_size: int) -> np.dtype:
    """Return the record of one target token.

    `ids` are the k best words, best first; `logits` theirs, less the best one's; `log_normaliser` is
    `log sum exp(logit / temperature)` over all words, of logits less the best one's, for each temperature.
    """
    ids = "<u2" if vocabulary_size <= 1 << 16 else "<u4"
    return np.dtype([("ids", ids, (top_k,)), ("logits", "<f2", (top_k,)), ("log_normaliser", "<f4", (temperatures,))])


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


def top_k_records(logits: torch.Tensor, temperatures: Sequence[float], dtype: np.dtype) -> np.ndarray:
    """Return the records of n tokens.

    Args:
        logits: [n, V].
        temperatures: of the normalisers.
        dtype: from `token_dtype`.

    Raises:
        TeacherError: a logit is NaN or infinite.
    """
    logits = logits.float()
    top = logits.topk(dtype["ids"].shape[0])
    best = top.values[:, :1]
    shifted = logits - best
    normalisers = torch.stack([(shifted / each).logsumexp(-1) for each in temperatures], dim=1)
    if not (normalisers.isfinite().all() and best.isfinite().all()):
        raise TeacherError("the teacher's logits are NaN or infinite; check it with `nemo-distill evaluate`")
    records = np.empty(len(logits), dtype)
    records["ids"] = top.indices.cpu().numpy()
    records["logits"] = (top.values - best).clamp(min=-LARGEST_HALF).half().cpu().numpy()
    records["log_normaliser"] = normalisers.cpu().numpy()
    return records


class LogitCache:
    """A finished cache, opened for reading. The tokens stay on disk.

    Args:
        directory: what `nemo-distill cache` wrote.
        verify: read every shard and compare it with its checksum, and each record with what a teacher can say; sizes
            and rows are always compared.

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
        self.dtype = token_dtype(request["top_k"], len(self.temperatures), self.manifest["vocabulary_size"])
        self._tokens: list[TokenFile] = []
        rows = []
        numbers = range(len(self.manifest["shards"]))
        for number in tqdm(numbers, desc="checking the cache", unit=" shards", leave=False, disable=not verify):
            tokens, row = self._open_shard(number, verify)
            self._tokens.append(tokens)
            rows.append(row)
        if sum(map(len, self._tokens)) != self.manifest["tokens"]:
            raise TeacherError(f"'{directory}': the shards have other tokens than the manifest; make the cache anew")
        all_rows = np.concatenate(rows)
        order = np.lexsort((all_rows["key"][:, 1], all_rows["key"][:, 0]))
        self._keys = all_rows["key"][order]
        if (self._keys[1:] == self._keys[:-1]).all(1).any():
            raise TeacherError(f"'{directory}': the cache holds a sentence pair twice; make the cache anew")
        self._starts, self._lengths = all_rows["start"][order], all_rows["tokens"][order]
        self._shards = np.repeat(np.arange(len(rows)), [len(row) for row in rows])[order]

    def __len__(self) -> int:
        """Return the number of sentence pairs."""
        return len(self._keys)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the places [N] of the pairs with these keys, [N, 2]; -1 for those that are not here."""
        places = np.searchsorted(self._keys[:, 0], keys[:, 0])
        found = places < len(self)
        found[found] = (self._keys[places[found]] == keys[found]).all(1)
        return np.where(found, places, -1)

    def read(self, places: np.ndarray) -> np.ndarray:
        """Return the records of the target tokens of the pairs at these places, [N], pair after pair.

        Raises:
            TeacherError: a shard has changed since it was opened.
        """
        shards, starts, lengths = self._shards[places], self._starts[places], self._lengths[places]
        firsts = np.cumsum(lengths) - lengths  # of each pair in the result
        records = np.empty(int(lengths.sum()), self.dtype)
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            spans = zip(starts[here].tolist(), lengths[here].tolist(), strict=True)
            for first, found in zip(firsts[here].tolist(), self._tokens[shard].read(spans), strict=True):
                records[first : first + len(found)] = found
        if len(records) and records["ids"].max() >= self.manifest["vocabulary_size"]:
            raise TeacherError(f"the shards of the cache in '{self.directory}' have changed; make the cache anew")
        return records

    def targets(self, records: np.ndarray, temperature: float, device: torch.device) -> TopKTargets:
        """Return what the loss reads, from records of N tokens.

        Raises:
            TeacherError: the cache does not hold that temperature.
        """
        column = self.temperature_column(temperature)
        return TopKTargets(
            torch.from_numpy(records["ids"].astype(np.int64)).to(device),
            torch.from_numpy(np.ascontiguousarray(records["logits"])).to(device),
            torch.from_numpy(np.ascontiguousarray(records["log_normaliser"][:, column])).to(device),
        )

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

    def _open_shard(self, number: int, verify: bool) -> tuple[TokenFile, np.ndarray]:
        paths, sizes, hashes = shard_files(self.directory, number), self.manifest["bytes"], self.manifest["files"]
        names = [f"{SHARDS}/{path.name}" for path in paths]
        for path in paths:
            if not path.is_file():
                raise TeacherError(f"'{path}' of the cache is missing; make the cache anew")
        known = [(sizes[name], hashes[name]["sha256"] if verify else None) for name in names]
        tokens = open_tokens(
            paths[0], self.dtype, self.temperatures, self.manifest["vocabulary_size"], *known[0], verify=verify
        )
        rows = open_rows(paths[1], len(tokens), *known[1])
        if len(rows) != self.manifest["shards"][number]:
            raise TeacherError(f"shard '{paths[1]}' of the cache does not fit the manifest; make the cache anew")
        return tokens, rows
