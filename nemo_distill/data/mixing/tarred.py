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
"""NeMo's tarred data sets, read in any order.

A shard is a plain tar of pickled batches, `{"src": [B, S], "tgt": [B, T]}`. The shards are indexed once and their
batches then read where they lie, so any process can take any batch: no shard belongs to one process, none is left
over. Pickles are opened only as far as they hold arrays, and shards only as local files.
"""

import os
import pickle
import pickletools
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import braceexpand
import numpy as np

from nemo_distill.config.mixture import ComponentConfig
from nemo_distill.errors import InputError
from nemo_distill.support import incoming

# What a pickled NumPy array is made of.
_ARRAY_PARTS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}
_UNPICKLING_ERRORS = (pickle.UnpicklingError, EOFError, KeyError, TypeError, IndexError, ValueError, AttributeError)
_UNPICKLING_ERRORS += (ArithmeticError, MemoryError, SystemError)  # of damaged bytes
_BRACES = {"{": ("(", "[", "<", "_OP_"), "}": (")", "]", ">", "_CL_")}


class Entry(NamedTuple):
    """Where a batch lies."""

    path: str
    name: str
    offset: int
    size: int


def shard_paths(component: ComponentConfig) -> list[Path]:
    """Return the shards of a tarred set: those of `tar_files`, else those that its metadata names.

    A shard that is not where the metadata says is looked for beside the metadata, as NeMo does.

    Raises:
        InputError: the metadata is missing or names no shards, or a shard is missing.
    """
    metadata_file = Path(component.metadata_file)
    metadata = _read_metadata(metadata_file)
    if component.tar_files:
        named = component.tar_files
        paths = [Path(name) for name in (_expand(named) if isinstance(named, str) else named)]
    else:
        named = metadata.get("tar_files")
        if not (named and isinstance(named, list) and all(isinstance(name, str) for name in named)):
            raise InputError(f"{metadata_file} names no tar_files; give tar_files beside metadata_file")
        paths = [Path(name) if os.path.isfile(name) else metadata_file.parent / Path(name).name for name in named]
    missing = [str(path) for path in paths if not os.path.isfile(path)]  # Path.is_file raises for a name too long
    if missing:
        raise InputError(
            f"no file {missing[0]} ({len(missing)} of {len(paths)} shards of {metadata_file} are missing)"
        )
    return sorted(paths)


def index_shards(component: ComponentConfig) -> list[Entry]:
    """Return where every batch of the set lies, in the order of the shards' names.

    Raises:
        InputError: a shard is no plain tar, or the shards hold another number of batches than the metadata says.
    """
    entries = []
    for path in shard_paths(component):
        try:
            with tarfile.open(path, "r:") as shard:
                entries += [
                    Entry(str(path), member.name, member.offset_data, member.size)
                    for member in shard
                    if member.isreg() and member.name.endswith(".pkl")
                ]
        except tarfile.TarError as error:
            raise InputError(f"{path} is not a whole, uncompressed tar file ({error}); make it again") from error
    wanted = _read_metadata(component.metadata_file).get("num_batches", len(entries))
    if not entries or (len(entries) != wanted and not component.tar_files):
        raise InputError(
            f"{component.metadata_file} says {wanted} batches, its shards hold {len(entries)}; make the set again, or "
            "name the shards you want in tar_files"
        )
    return entries


class TarredBatches:
    """The batches of a tarred set, or those of them that `entries` names.

    Args:
        entries: where they lie.
        pads: padding ids of source and target.
        vocabulary_sizes: of source and target; an id beyond them shows that the set was made with another tokenizer.
    """

    def __init__(self, entries: Sequence[Entry], pads: tuple[int, int], vocabulary_sizes: tuple[int, int]) -> None:
        self.entries = list(entries)
        self._pads = pads
        self._vocabulary_sizes = vocabulary_sizes

    def __len__(self) -> int:
        return len(self.entries)

    def rows(self, index: int) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
        """Return the sentences of one batch without padding, and a number for each.

        Raises:
            InputError: the batch holds something else than arrays of token ids.
        """
        entry = self.entries[index]
        with open(entry.path, "rb") as shard:
            shard.seek(entry.offset)
            content = shard.read(entry.size)
        where = f"{entry.path}, {entry.name}"
        batch = _read_arrays(content, where)
        for side, size in zip(("src", "tgt"), self._vocabulary_sizes, strict=True):
            if batch[side].min() < 0 or batch[side].max() >= size:
                raise InputError(
                    f"{where}: token id {batch[side].max()} in {side} is beyond the vocabulary of {size}; the set was "
                    "made with another tokenizer"
                )
        sides = [_without_padding(batch[side], pad) for side, pad in zip(("src", "tgt"), self._pads, strict=True)]
        return *sides, [(index << 20) + row for row in range(len(sides[0]))]


class _ArrayUnpickler(pickle.Unpickler):
    """Opens arrays; anything else in the pickle is refused."""

    def find_class(self, module: str, name: str):
        if (module, name) in _ARRAY_PARTS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}, no array")


def _read_metadata(path: str | Path) -> dict:
    metadata = incoming.read_json(path)
    if not isinstance(metadata, dict):
        raise InputError(f"{path} is no metadata of a NeMo tarred data set, which has num_batches and tar_files")
    return metadata


def _read_arrays(content: bytes, where: str) -> dict[str, np.ndarray]:
    try:
        _check_opcodes(content)
        batch = _ArrayUnpickler(BytesIO(content)).load()
        sides = {side: np.asarray(batch[side]) for side in ("src", "tgt")}
    except _UNPICKLING_ERRORS as error:
        raise InputError(f"{where} is no batch of a NeMo tarred data set: {error}") from error
    shapes = {side: array.shape for side, array in sides.items()}
    whole = all(
        np.issubdtype(array.dtype, np.integer) and array.ndim == 2 and 0 < array.nbytes <= len(content)
        for array in sides.values()
    )
    if not whole or shapes["src"][0] != shapes["tgt"][0]:
        raise InputError(f"{where} is no batch of a NeMo tarred data set: src and tgt have the shapes {shapes}")
    return sides


def _check_opcodes(content: bytes) -> None:
    """Refuse a damaged pickle that the unpickler would take gigabytes of memory for.

    Raises:
        ValueError: an operation is cut, or its argument is beyond what the content can hold.
    """
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > len(content):
            raise ValueError(f"{opcode.name} {argument}")


def _without_padding(rows: np.ndarray, pad: int) -> list[np.ndarray]:
    lengths = rows.shape[1] - np.argmax(rows[:, ::-1] != pad, axis=1)
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def _expand(pattern: str) -> list[str]:
    """Expand `name.{0..3}.tar`, in NeMo's spellings of the braces too."""
    for brace, others in _BRACES.items():
        for other in others:
            pattern = pattern.replace(other, brace)
    return list(braceexpand.braceexpand(pattern))
