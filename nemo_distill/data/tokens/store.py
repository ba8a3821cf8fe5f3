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
"""Token ids on disk: made once for a text and a tokenizer, by all cores, and shared by all processes that read them.

A store is a directory with, for each text, `texts/KEY/`: `tokens.bin` and `tokens.idx`, a data set in the format of
Megatron-core (a sequence for each line), and `manifest.json`. KEY is of the hashes of text and tokenizer, so what is
found is never of another text; and whoever comes second waits for who came first. The files are mapped into memory,
where the page cache keeps one copy for all processes of a machine.

They are read and written here, not by Megatron-core itself: its builder needs 48 bytes of lists for each line, and an
array that outlives its reader ends the process (docs/scale.md). A test has it read and write the same bytes.
"""

import contextlib
import functools
import hashlib
import json
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from nemo.utils import logging

from nemo_distill.data.text import no_bpe_dropout
from nemo_distill.data.tokens.text import TokenizedText, encode, token_dtype
from nemo_distill.data.vocabulary import vocabulary_hash
from nemo_distill.errors import ConfigurationError, InputError, InUseError
from nemo_distill.support import files, incoming, text_files
from nemo_distill.support.lock import locked
from nemo_distill.support.progress_bar import progress_bar
from nemo_distill.support.threads import available_cores
from nemo_distill.support.workers import run_in_order

TOKEN_STORE = "tokens"
"""Name of a store in the directory of a run, or of a cache."""
LARGE_TEXT = 8 << 20
"""Bytes of text that take some seconds to tokenize: from there on, the ids are kept."""
MANIFEST = "manifest.json"
FORMAT = 1
_BIN, _IDX = "tokens.bin", "tokens.idx"
_PART, _LENGTHS, _SUMS = ".tokens.bin.part", ".lengths.part", ".sums.part"
_SUM_BYTES = 16
_HEADER = struct.Struct("<9sQBQQ")
_MAGIC, _VERSION = b"MMIDIDX\x00\x00", 1
_CODES = {np.dtype(np.int32): 4, np.dtype(np.uint16): 8}
_BLOCK = 1 << 14
"""Lines that a process tokenizes at a time, and after which an interrupted work goes on."""
_CHUNK = 1 << 17
"""Lines whose places are looked at together."""
_PROBE = 1000
"""Lines of the text whose ids tell a tokenizer from others of the same vocabulary."""
_WAIT = 0.5
Found = TypeVar("Found")


def store_of(train_ds: Mapping[str, Any]) -> Path | None:
    """Return the store that a `train_ds` section names under `token_store`; None: ids are made in memory.

    Raises:
        ConfigurationError: the value is no directory.
    """
    store = train_ds.get("token_store")
    if store is None or store is False:
        return None
    if not isinstance(store, str | os.PathLike) or not str(store):
        raise ConfigurationError(
            f"model.train_ds.token_store is {store!r}; give a directory, null (one of the run's own where the text is "
            "large) or false (in memory)"
        )
    files.check_no_file(Path(store))
    return Path(store)


def is_large(paths: Iterable[str | os.PathLike]) -> bool:
    """Return whether the text of some files, uncompressed, has so many bytes that its ids are kept."""
    return text_files.text_bytes(paths, LARGE_TEXT) == LARGE_TEXT


def stored_text(
    store: str | os.PathLike, path: str | os.PathLike, tokenizer, sha256: str | None = None
) -> tuple[str, TokenizedText]:
    """Return the token ids of a text from a store, after making them if they are not there.

    A line of white space has none. An interrupted work goes on where it stopped.

    Args:
        store: its directory.
        path: of the text.
        tokenizer: any of NeMo's, without BPE dropout.
        sha256: what the file must have.

    Returns:
        The key of text and tokenizer, and the ids.

    Raises:
        InputError: as `text_files.iterate_lines`; there is no text; or what lies there is damaged.
        StorageError: the store cannot be written.
    """
    found = files.known_sha256(path)
    if sha256 not in (None, found):
        raise InputError(
            f"'{path}' has changed while it was in use; run the command again with the text that you mean"
        )
    request = {"format": FORMAT, "text": found, "tokenizer": _tokenizer_hash(tokenizer, path)}
    key = key_of(request)
    directory = Path(store, "texts", key)
    dtype = token_dtype(tokenizer)
    text = made_once(
        directory,
        lambda: _open(directory, request, dtype),
        lambda: _write(directory, request, Path(path), tokenizer, dtype),
        f"the tokens of '{path}'",
    )
    return key, text


def key_of(request: Any) -> str:
    """Return a name for plain values: equal for equal ones."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:32]


def made_once(directory: Path, find: Callable[[], Found | None], make: Callable[[], None], what: str) -> Found:
    """Return what a directory of a store holds, which one of several processes makes while the others wait.

    Args:
        directory: to be locked while it is made.
        find: returns what it holds, None while it is not whole.
        make: makes it, or goes on with it.
        what: for messages.

    Raises:
        StorageError: it cannot be written.
    """
    waited = False
    while (found := find()) is None:
        try:
            with files.reported_storage(directory), locked(directory):
                if find() is None:
                    make()
        except InUseError as error:
            if not waited:
                logging.info(f"waiting for {what}: {error}")
            waited = True
            time.sleep(_WAIT)
    if os.path.lexists(directory / files.LOCK):  # of a process that was killed behind it, or that is about to end
        with contextlib.suppress(InputError, OSError), locked(directory):
            pass
    return found


def _tokenizer_hash(tokenizer, path: str | os.PathLike) -> str:
    """Return a hash of all that is known of a tokenizer.

    That is its vocabulary, its special ids, what it makes of the first lines of a text, and its model where its
    library gives that, as YouTokenToMe does not: a vocabulary does not say how text is normalized before.
    """
    with no_bpe_dropout(tokenizer):
        probe = [
            list(map(int, tokenizer.text_to_ids(line))) for line in islice(text_files.iterate_lines(path), _PROBE)
        ]
    kind = type(tokenizer).__name__, getattr(tokenizer, "legacy", None)
    return key_of([*kind, vocabulary_hash(tokenizer), probe, hashlib.sha256(_model_of(tokenizer)).hexdigest()])


def _model_of(tokenizer) -> bytes:
    """Return the model inside of a tokenizer of SentencePiece or Hugging Face; of others nothing."""
    inner = getattr(tokenizer, "tokenizer", None)
    if hasattr(inner, "serialized_model_proto"):
        return inner.serialized_model_proto()
    if hasattr(inner, "backend_tokenizer"):  # a fast one
        return inner.backend_tokenizer.to_str().encode()
    return b""


def _open(directory: Path, request: dict[str, Any], dtype: np.dtype) -> TokenizedText | None:
    """Return what a finished directory holds; None: it is not finished."""
    if not (directory / MANIFEST).exists():
        return None
    for name in (_LENGTHS, _SUMS):  # of a process that was killed right behind the manifest
        with contextlib.suppress(OSError):
            (directory / name).unlink()
    try:
        manifest = incoming.read_json(directory / MANIFEST)
        lines, tokens = manifest["lines"], manifest["tokens"]
        header = _HEADER.pack(_MAGIC, _VERSION, _CODES[dtype], lines, 2)
        with incoming.open_regular(directory / _IDX) as stream:
            whole = manifest["request"] == request and stream.read(len(header)) == header
        sizes = [(directory / name).stat().st_size for name in (_BIN, _IDX)]
        if not whole or sizes != [tokens * dtype.itemsize, len(header) + 12 * lines + 16]:
            raise ValueError("other sizes than its manifest says")
        index = np.memmap(directory / _IDX, mode="r").view(np.ndarray)[_HEADER.size :]
        lengths, offsets = index[: 4 * lines].view(np.int32), index[4 * lines : 12 * lines].view(np.int64)
        if _end(lengths, offsets, dtype.itemsize) != tokens * dtype.itemsize:
            raise ValueError("lines that do not lie one behind the other")
        ids = np.memmap(directory / _BIN, dtype, mode="r").view(np.ndarray)  # whose slices cost less
    except (OSError, KeyError, TypeError, ValueError, struct.error) as error:
        raise InputError(f"'{directory}' is damaged ({error}); remove it, and it is made anew") from error
    return TokenizedText(ids, offsets, lengths)


def _end(lengths: np.ndarray, offsets: np.ndarray, itemsize: int) -> int | None:
    """Return where lines end that lie one behind the other, in bytes; None where they do not."""
    end = 0
    for first in range(0, len(lengths), _CHUNK):
        some = lengths[first : first + _CHUNK]
        ends = end + np.cumsum(some, dtype=np.int64) * itemsize
        if some.min() < 0 or not np.array_equal(offsets[first : first + _CHUNK], ends - some * np.int64(itemsize)):
            return None
        end = int(ends[-1])
    return end


def _write(directory: Path, request: dict[str, Any], path: Path, tokenizer, dtype: np.dtype) -> None:
    """Make a directory, or go on where an interrupted process stopped."""
    part, lengths_file, sums_file = (directory / name for name in (_PART, _LENGTHS, _SUMS))
    if (directory / _BIN).exists():  # it was interrupted right before the end
        os.replace(directory / _BIN, part)
    with open(part, "ab") as ids, open(lengths_file, "ab") as lengths, open(sums_file, "ab") as sums:
        done = _whole_lines(part, lengths_file, sums_file, path, dtype)
        tokens = int(np.fromfile(lengths_file, np.int32, done).sum(dtype=np.int64))
        ids.truncate(tokens * dtype.itemsize)
        lengths.truncate(4 * done)
        sums.truncate(_SUM_BYTES * (done // _BLOCK))
        lines = done
        for found, counts, text_sum in _encoded(path, request["text"], tokenizer, dtype, done):
            for stream, content in ((ids, found.tobytes()), (sums, text_sum), (lengths, counts.tobytes())):
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            lines += len(counts)
            tokens += len(found)
    if not tokens:
        raise text_files.no_text(path, lines)
    with files.atomic_path(directory / _IDX) as temporary, open(temporary, "wb") as index:
        _write_index(index, lengths_file, lines, dtype)
    os.replace(part, directory / _BIN)
    files.write_json_atomic(directory / MANIFEST, {"request": request, "lines": lines, "tokens": tokens})
    for file in (lengths_file, sums_file):
        file.unlink(missing_ok=True)


def _whole_lines(part: Path, lengths_file: Path, sums_file: Path, path: Path, dtype: np.dtype) -> int:
    """Return how many lines an interrupted process has written whole, in whole blocks, of the text as it is now."""
    available = part.stat().st_size // dtype.itemsize
    done = tokens = 0
    if not available:
        return 0
    with open(lengths_file, "rb") as lengths, open(sums_file, "rb") as sums:
        for _, block in _blocks(path):
            counts = np.fromfile(lengths, np.int32, _BLOCK)
            tokens += int(counts.sum(dtype=np.int64))
            if len(counts) < _BLOCK or tokens > available or sums.read(_SUM_BYTES) != _sum(block):
                break
            done += _BLOCK
    return done


def _sum(block: bytes) -> bytes:
    return hashlib.blake2b(block, digest_size=_SUM_BYTES).digest()


def _write_index(index, lengths_file: Path, lines: int, dtype: np.dtype) -> None:
    """Write an index of one document: header, lengths, offsets in bytes, first and last sequence of the document."""
    index.write(_HEADER.pack(_MAGIC, _VERSION, _CODES[dtype], lines, 2))
    for offsets in (False, True):
        end = 0
        with open(lengths_file, "rb") as stream:
            while len(counts := np.fromfile(stream, np.int32, _CHUNK)):
                ends = end + np.cumsum(counts, dtype=np.int64) * dtype.itemsize
                index.write(((ends - counts * np.int64(dtype.itemsize)) if offsets else counts).tobytes())
                end = int(ends[-1])
    index.write(np.array([0, lines], dtype=np.int64).tobytes())


def _encoded(
    path: Path, sha256: str, tokenizer, dtype: np.dtype, done: int
) -> Iterator[tuple[np.ndarray, np.ndarray, bytes]]:
    """Yield ids, lengths and hash of the blocks of a text behind the first `done` lines, in order."""
    blocks = _blocks(path, sha256, done)
    processes = text_files.parts([path], _BLOCK * 64, available_cores())  # blocks, about
    with (
        no_bpe_dropout(tokenizer),
        progress_bar(f"tokenizing {path.name}", text_files.count_lines(path), initial=done, leave=False) as shown,
    ):
        work = functools.partial(_encode_block, path, tokenizer, dtype)
        if processes > 1:
            logging.info(f"tokenizing '{path}' with {processes} processes")
        for result in run_in_order(work, blocks, processes, path):
            yield result
            shown.update(len(result[1]))


def _blocks(path: Path, sha256: str | None = None, done: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the number of a block's first line, from 1, and its lines, the first `done` left out."""
    lines, first = text_files.iterate_byte_lines(path, sha256), 1
    while block := list(islice(lines, _BLOCK)):
        if first > done:
            yield first, b"\n".join(block)
        first += len(block)


def _encode_block(
    path: Path, tokenizer, dtype: np.dtype, first: int, block: bytes
) -> tuple[np.ndarray, np.ndarray, bytes]:
    numbered = enumerate(block.split(b"\n"), start=first)
    lines = (text_files.decode_line(path, number, line) for number, line in numbered)
    return *encode(lines, tokenizer, dtype), _sum(block)
