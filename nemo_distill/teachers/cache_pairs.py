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
"""The sentence pairs of a cache: token ids from a store, each pair once, in a memory of a few bytes a pair."""

import functools
import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nemo_distill.data.line_dataset import with_prefix
from nemo_distill.data.positions import Positions
from nemo_distill.data.processing import RawFile, process_files
from nemo_distill.data.processors import Processing
from nemo_distill.data.text import no_bpe_dropout
from nemo_distill.data.tokens.pairs import Sentences, is_ascending
from nemo_distill.data.tokens.store import key_of, made_once, stored_text
from nemo_distill.data.tokens.text import TokenizedText, encode, token_dtype, tokenize
from nemo_distill.errors import InputError
from nemo_distill.support import files, incoming, text_files
from nemo_distill.support.progress_bar import progress_bar
from nemo_distill.support.temporary import temporary_place
from nemo_distill.support.threads import available_cores, cores
from nemo_distill.support.workers import run_in_order
from nemo_distill.teachers.cache_format import pair_keys
from nemo_distill.teachers.cache_index import LONGEST, NUMBERED, in_order_of_keys
from nemo_distill.teachers.cache_manifest import LEFT_OUT
from nemo_distill.teachers.cache_text import TextPair, processed_lines

_BLOCK = 1 << 15  # pairs
_FACTS, _KEPT = "facts.json", "kept.npy"


@dataclass(frozen=True)
class Limits:
    """What decides which pairs a teacher can read."""

    max_seq_length: int | None
    """Of source and target, start and end included, the token of a language not; None: there is no limit."""
    positions: Positions
    """Of the teachers."""


class CachePairs:
    """The pairs to cache, each once.

    Args:
        texts: the ids of each pair of files.
        marks: ids of start and end, of sources and of targets.
        prefixes: what stands in front of the sources of each pair of files, of a one-to-many teacher.
        kept: which pairs of lines of all files, ascending.
        dropped: how many are not, by reason.
    """

    def __init__(
        self,
        texts: Sequence[tuple[TokenizedText, TokenizedText]],
        marks: Sequence[tuple[int, int]],
        prefixes: Sequence[int | None],
        kept: np.ndarray | None,
        dropped: dict[str, int],
    ) -> None:
        self.dropped, self._prefixes, self._kept = dropped, prefixes, kept
        self._sides = [Sentences([text[side] for text in texts], mark, kept) for side, mark in enumerate(marks)]
        edges = np.cumsum([0, *(len(text[0]) for text in texts)])
        self.firsts = edges[:-1].tolist()
        """The first line of each pair of files among those of all, from 0."""
        if kept is not None:
            edges = np.searchsorted(kept, edges.astype(kept.dtype))  # of another type it would copy all
        self.parts = [slice(*each) for each in itertools.pairwise(edges.tolist())]
        """The rows of each pair of files."""

    def __len__(self) -> int:
        return len(self._sides[0])

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Records of each pair: its target tokens without BOS; int32."""
        lengths = self._sides[1].lengths()
        lengths -= 1
        return lengths

    def rows(self, rows: slice | Sequence[int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return sources and targets of some pairs."""
        numbers = range(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        sources, targets = (side.rows(numbers) for side in self._sides)
        if any(prefix is not None for prefix in self._prefixes):
            ends = [part.stop for part in self.parts]
            places = np.searchsorted(ends, numbers, side="right")
            sources = [
                with_prefix([source], self._prefixes[place])[0] for source, place in zip(sources, places, strict=True)
            ]
        return sources, targets

    def line(self, number: int) -> int:
        """Return the line of a pair among those of all files, from 0."""
        return number if self._kept is None else int(self._kept[number])

    def keys(self, rows: slice | Sequence[int]) -> np.ndarray:
        """Return the keys of some pairs, [N, 2]."""
        return pair_keys(zip(*self.rows(rows), strict=True))


def read_pairs(
    pairs: Sequence[TextPair],
    processing: Processing,
    prefixes: Sequence[int | None],
    tokenizers: tuple[Any, Any],
    limits: Limits,
    store: str | os.PathLike | None = None,
    processes: int = 1,
) -> CachePairs:
    """Return the pairs as NeMo's training data set gives them, each once, without those that are empty or too long.

    Args:
        pairs: files.
        processing: of the teacher.
        prefixes: what stands in front of the sources of each, of a one-to-many teacher.
        tokenizers: of the teacher, source and target.
        limits: of lengths.
        store: a directory where ids, processed text and the choice of pairs are found, or are put; None: all are made
            in memory.
        processes: that share this machine.

    Raises:
        InputError: a file cannot be used, or no pair is left.
    """
    keys, texts = [], []
    for pair in pairs:
        found = [_read(pair, side, processing, tokenizers[side], store, processes) for side in (0, 1)]
        text_files.check_parallel(pair.source, len(found[0][1]), pair.target, len(found[1][1]))
        keys += [key for key, _ in found]
        texts.append(tuple(text for _, text in found))
    marks = [(tokenizer.bos_id, tokenizer.eos_id) for tokenizer in tokenizers]
    everything = CachePairs(texts, marks, prefixes, None, {})
    if store is None:
        return CachePairs(texts, marks, prefixes, *_choose(everything, prefixes, limits, None, 1))
    request = {
        "texts": keys,
        "prefixes": list(prefixes),
        "limits": [limits.max_seq_length, *astuple(limits.positions)],
    }
    directory = Path(store, "pairs", key_of(request))
    chosen = made_once(
        directory,
        lambda: _read_choice(directory, len(everything)),
        lambda: _write_choice(directory, *_choose(everything, prefixes, limits, directory, processes)),
        "the choice of a cache's sentence pairs",
    )
    return CachePairs(texts, marks, prefixes, *chosen)


def _read(
    pair: TextPair, side: int, processing: Processing, tokenizer: Any, store: str | os.PathLike | None, processes: int
) -> tuple[str | None, TokenizedText]:
    """Return the ids of one side of a pair of files, and the key that a store has for them."""
    path, sha256 = (pair.source, pair.target)[side], pair.sha256[side]
    with no_bpe_dropout(tokenizer):
        if store is None and not pair.is_raw:
            return None, tokenize(path, tokenizer, sha256)
        if store is None:
            lines = processed_lines(pair, side, processing, processes)
            ids, counts = encode(lines, tokenizer, token_dtype(tokenizer))
            ends = np.cumsum(counts, dtype=np.int64)
            if not len(ids):
                raise text_files.no_text(path, len(counts))
            return None, TokenizedText(ids, (ends - counts) * ids.itemsize, counts)
    if pair.is_raw:
        path, sha256 = _processed(Path(store), path, sha256, ("source", "target")[side], processing, processes)
    return stored_text(store, path, tokenizer, sha256)


def _processed(
    store: Path, path: str, sha256: str, side: str, processing: Processing, processes: int
) -> tuple[Path, str]:
    """Return the processed form of a file of raw text in a store, and its hash, after making it if it is not there."""
    directory = store / "processed" / key_of([sha256, side, processing.languages()])
    result = directory / "text" / side

    def make() -> None:
        raw = RawFile(path, side, side)
        manifest, _ = process_files([raw], processing, directory / "text", jobs=max(cores() // processes, 1))
        files.write_json_atomic(directory / _FACTS, {"sha256": manifest["files"][side]["sha256"]})

    def find() -> str | None:
        return incoming.read_json(directory / _FACTS)["sha256"] if (directory / _FACTS).exists() else None

    return result, made_once(directory, find, make, f"the processed text of '{path}'")


def _choose(
    everything: CachePairs, prefixes: Sequence[int | None], limits: Limits, directory: Path | None, processes: int
) -> tuple[np.ndarray, dict[str, int]]:
    """Return which pairs are kept, uint32, and how many are not, by reason.

    Args:
        everything: all pairs of lines.
        prefixes: as in `read_pairs`.
        limits: of lengths.
        directory: for temporary files; None: there are few pairs, and the system's directory will do.
        processes: that share this machine.
    """
    empty, too_long, copies = range(1, 4)
    reasons = np.zeros(len(everything), dtype=np.uint8)
    sources, targets = (side.lengths() for side in everything._sides)
    longest = min(limits.max_seq_length or sys.maxsize, LONGEST)
    for rows, prefix in zip(everything.parts, prefixes, strict=True):
        source, target = sources[rows], targets[rows]
        has_room = limits.positions.hold(source, target, prefix is not None)
        reasons[rows][~has_room | (np.maximum(source, target) > longest)] = too_long
        reasons[rows][(source <= 2) | (target <= 2)] = empty
    del sources, targets

    def keys_of(first: int) -> np.ndarray:
        numbers = first + np.flatnonzero(reasons[first : first + _BLOCK] == 0)
        found = np.empty(len(numbers), NUMBERED)
        found["key"], found["number"] = everything.keys(numbers), numbers
        return found

    starts = [(first,) for first in range(0, len(everything), _BLOCK)]
    workers = min(max(available_cores() // processes, 1), len(starts)) if directory is not None else 1
    blocks = run_in_order(keys_of, starts, workers, directory or temporary_place())
    shown = progress_bar("looking for copies", len(starts), "blocks", iterable=blocks, leave=False)
    for some in in_order_of_keys(shown, len(everything), directory):
        is_copy = (some["key"][1:] == some["key"][:-1]).all(1)
        reasons[some["number"][1:][is_copy]] = copies
    counts = np.bincount(reasons, minlength=4).tolist()
    if not counts[0]:
        raise InputError(
            f"no sentence pair is left of {len(everything)}; give more text, or a larger --max-seq-length"
        )
    return np.flatnonzero(reasons == 0).astype(np.uint32), dict(zip(LEFT_OUT, counts[1:], strict=True))


def _write_choice(directory: Path, kept: np.ndarray, dropped: dict[str, int]) -> None:
    with files.atomic_path(directory / _KEPT) as temporary, open(temporary, "wb") as stream:
        np.save(stream, kept, allow_pickle=False)
    files.write_json_atomic(directory / _FACTS, dropped)


def _read_choice(directory: Path, lines: int) -> tuple[np.ndarray, dict[str, int]] | None:
    if not (directory / _FACTS).exists():
        return None
    try:
        dropped = incoming.read_json(directory / _FACTS)
        with incoming.open_regular(directory / _KEPT):
            kept = np.load(directory / _KEPT, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        if kept.dtype != np.uint32 or len(kept) + sum(dropped[reason] for reason in LEFT_OUT) != lines:
            raise ValueError("pairs of something else")
        if int(kept[-1]) >= lines or not is_ascending(kept):
            raise ValueError("numbers beyond its pairs")
    except (OSError, EOFError, LookupError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"'{directory}' is damaged ({error}); remove it, and it is made anew") from error
    return kept, {reason: dropped[reason] for reason in LEFT_OUT}
