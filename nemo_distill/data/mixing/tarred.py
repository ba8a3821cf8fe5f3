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

import itertools
import os
import pickle
import pickletools
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import braceexpand
import numpy as np

from nemo_distill.config.mixture import ComponentConfig
from nemo_distill.errors import InputError
from nemo_distill.support import incoming
from nemo_distill.support.quoting import error_line, plain_text
from nemo_distill.support.warned import warn

_MOST_SHARDS, _MOST_BRACES = 100_000, 8
_BATCH_BYTES = 64 << 20
_HEADER_BYTES = 1 << 20
_MOST_OPERATIONS, _MOST_CALLS = 10_000, 32
"""Of the pickle of a batch: two arrays take some 50 operations, of which 8 call or fill something."""
_CALLS = {"REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ"}
# What a pickled NumPy array is made of.
_ARRAY_PARTS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
}
_UNPICKLING_ERRORS = (pickle.UnpicklingError, EOFError, KeyError, TypeError, IndexError, ValueError, AttributeError)
_UNPICKLING_ERRORS += (ArithmeticError, MemoryError, SystemError)  # of damaged bytes
_OPEN, _CLOSE = r"\(|\[|<|_OP_", r"\)|\]|>|_CL_"
_BRACES = re.compile(rf"(?:{_OPEN})((?:(?!{_OPEN}|{_CLOSE}).)*)(?:{_CLOSE})")
"""NeMo's other spellings of a pair of braces."""


class Entry(NamedTuple):
    """Where a batch lies."""

    path: str
    name: str
    offset: int
    size: int
    of: tuple[int, ...]
    """State of the shard when it was indexed, see `support.incoming.state`."""


def is_tarred(dataset: Mapping[str, Any]) -> bool:
    """Return whether a data section, such as `train_ds`, names a tarred set."""
    return bool(dataset.get("use_tarred_dataset") or dataset.get("dataset_type") == "tarred")


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
        if not (
            named and isinstance(named, list) and all(isinstance(name, str) and len(name) < 4096 for name in named)
        ):
            raise InputError(f"{metadata_file} names no tar_files; give tar_files beside metadata_file")
        paths = [Path(name) if os.path.isfile(name) else metadata_file.parent / Path(name).name for name in named]
    missing = [str(path) for path in paths if not os.path.isfile(path)]  # Path.is_file raises for a name too long
    if missing:
        raise InputError(
            f"no file {plain_text(missing[0])} ({len(missing)} of {len(paths)} shards of {metadata_file} are missing)"
        )
    return sorted(paths)


def index_shards(component: ComponentConfig) -> list[Entry]:
    """Return where every batch of the set lies, in the order of the shards' names.

    Raises:
        InputError: a shard is no plain tar, or the shards hold another number of batches than the metadata says.
    """
    wanted = _read_metadata(component.metadata_file).get("num_batches")
    if wanted is not None and (isinstance(wanted, bool) or not isinstance(wanted, int) or not 0 < wanted < 1 << 40):
        raise InputError(f"{component.metadata_file}: num_batches is no number of batches; make the set again")
    entries = []
    for path in shard_paths(component):
        with incoming.open_regular(path) as stream:
            try:
                entries += _entries(path, stream)
            except Exception as error:  # of tarfile, whatever the bytes
                raise InputError(
                    f"{path} is not a whole, uncompressed tar file ({error_line(error, 200)}); make it again"
                ) from error
    wanted = len(entries) if wanted is None else wanted
    if not entries or (len(entries) != wanted and not component.tar_files):
        raise InputError(
            f"{component.metadata_file} says {wanted} batches, its shards hold {len(entries)}; make the set again, or "
            "name the shards you want in tar_files"
        )
    return entries


class _Headers:
    """A file of which only headers are read: what claims to have a larger one would fill the memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.seek, self.tell = stream, stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER_BYTES:
            raise tarfile.ReadError("it has a header without end")
        return self._stream.read(size)


def _entries(path: Path, stream: BinaryIO) -> Iterator[Entry]:
    state = incoming.state(stream.fileno())
    with tarfile.open(fileobj=_Headers(stream), mode="r:") as shard:
        while (member := shard.next()) is not None:
            if member.size < 0 or member.offset_data + member.size > state[0]:
                raise tarfile.ReadError("it ends inside a member")
            if member.isreg() and member.name.endswith(".pkl"):
                yield Entry(str(path), member.name, member.offset_data, member.size, state)
            shard.members.clear()  # which would hold every header of the set in memory


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
        self._holds: Callable[[np.ndarray, np.ndarray], bool] | None = None
        self._told = False

    def keep_to(self, holds: Callable[[np.ndarray, np.ndarray], bool]) -> None:
        """Leave out what has no room in the models, where it is read: how long it is, nobody knows before.

        Args:
            holds: says whether a source and a target have room.
        """
        self._holds = holds

    def __len__(self) -> int:
        return len(self.entries)

    def rows(self, index: int) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
        """Return the sentences of one batch without padding, and a number for each.

        In the place of a batch that is left out as a whole comes the next one.

        Raises:
            InputError: the batch holds something else than arrays of token ids, or its shard has changed since it was
                indexed; or no batch of the set is left.
        """
        for step in range(len(self.entries)):
            number = (index + step) % len(self.entries)
            sources, targets = self._read(self.entries[number])
            pairs = enumerate(zip(sources, targets, strict=True))
            kept = [row for row, pair in pairs if self._holds is None or self._holds(*pair)]
            if len(kept) < len(sources):
                self._tell(self.entries[number], len(sources) - len(kept), len(sources))
            if kept:
                sides = ([side[row] for row in kept] for side in (sources, targets))
                return *sides, [(number << 20) + row for row in kept]
        raise InputError(
            f"{self.entries[index].path}: no sentence pair of this tarred set has room in the models' positions; make "
            "it again of shorter ones, or give the model more"
        )

    def _tell(self, entry: Entry, left_out: int, of: int) -> None:
        """Say once that pairs are left out."""
        if not self._told:
            self._told = True
            warn(
                f"{entry.path}, {plain_text(entry.name)}: {left_out} of {of} pairs have more tokens than the models "
                "have positions and are left out, as all such pairs of this set are, wherever they are read"
            )

    def _read(self, entry: Entry) -> list[list[np.ndarray]]:
        """Return the sources and the targets of a batch."""
        where = f"{entry.path}, {plain_text(entry.name)}"
        content = _read_entry(entry, where)
        batch = _read_arrays(content, where)
        for side, size in zip(("src", "tgt"), self._vocabulary_sizes, strict=True):
            if batch[side].min() < 0 or batch[side].max() >= size:
                raise InputError(
                    f"{where}: token id {batch[side].max()} in {side} is beyond the vocabulary of {size}; the set was "
                    "made with another tokenizer"
                )
        sides = [_without_padding(batch[side], pad) for side, pad in zip(("src", "tgt"), self._pads, strict=True)]
        if min(len(row) for side in sides for row in side) < 2:
            raise InputError(f"{where}: a sentence has no BOS and EOS; make the set again")
        return sides


class _ArrayUnpickler(pickle.Unpickler):
    """Opens arrays; anything else in the pickle is refused."""

    def find_class(self, module: str, name: str):
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        if (module, name) in _ARRAY_PARTS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}, no array")


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Do what pickles of protocol 2 have done for bytes; other encodings may take for ever."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it has bytes as {str(encoding)[:40]!r}")
    return text.encode("latin1")


def _read_entry(entry: Entry, where: str) -> bytes:
    if entry.size > _BATCH_BYTES:
        raise InputError(f"{where}: {entry.size} bytes are no batch, which has {_BATCH_BYTES} at most")
    with incoming.open_regular(entry.path) as shard:
        before = incoming.state(shard.fileno())
        try:
            shard.seek(entry.offset)
            content = shard.read(entry.size)
        except OSError as error:
            raise InputError(f"{where} cannot be read ({error.strerror}); check the disk") from error
        if not before == incoming.state(shard.fileno()) == entry.of or len(content) != entry.size:
            raise InputError(f"{entry.path} has changed while it was in use; run the command again")
    return content


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
    """Refuse a pickle that the unpickler would take gigabytes of memory, or hours, for.

    Raises:
        ValueError: an operation is cut, or its argument is beyond what the content can hold; or there are more of them
            than two arrays take.
    """
    calls = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        calls += opcode.name in _CALLS
        if count > _MOST_OPERATIONS or calls > _MOST_CALLS:
            raise ValueError("it has more operations than two arrays take")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > len(content):
            raise ValueError(f"{opcode.name} {argument}")


def _without_padding(rows: np.ndarray, pad: int) -> list[np.ndarray]:
    is_text = rows[:, ::-1] != pad
    lengths = (rows.shape[1] - np.argmax(is_text, axis=1)) * is_text.any(axis=1)
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def _expand(pattern: str) -> list[str]:
    """Expand `name.{0..3}.tar`, in NeMo's spellings of the braces too; a file that is called so is that file.

    Raises:
        InputError: the braces do not pair, or give more names than a set has shards.
    """
    if os.path.isfile(pattern):
        return [pattern]
    while (spelt := _BRACES.sub(_as_braces, pattern)) != pattern:
        pattern = spelt
    ends = re.findall(r"(-?\d+)\.\.(-?\d+)", pattern)
    try:
        if any(len(max(pair, key=len)) > 9 or abs(int(pair[0]) - int(pair[1])) >= _MOST_SHARDS for pair in ends):
            raise ValueError("too large a range")
        if pattern.count("{") > _MOST_BRACES:
            raise ValueError(f"more than {_MOST_BRACES} braces")
        names = list(itertools.islice(braceexpand.braceexpand(pattern), _MOST_SHARDS + 1))
        if len(names) > _MOST_SHARDS:
            raise ValueError(f"more than {_MOST_SHARDS} names")
    except (ValueError, RecursionError) as error:
        raise InputError(f"tar_files: '{plain_text(pattern)}' cannot be expanded: {plain_text(error)}") from error
    return names


def _as_braces(pair: re.Match) -> str:
    """Return braces in place of another pair, where a range or a list is in it: names have parentheses, too."""
    return f"{{{pair[1]}}}" if ".." in pair[1] or "," in pair[1] else pair[0]
