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
"""Which sentence pairs of a corpus are read, and the batches that they make."""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from nemo_distill.data.positions import Positions
from nemo_distill.data.tokens.cleaning import fits
from nemo_distill.data.tokens.fraction import choose_fraction
from nemo_distill.data.tokens.packing import Packing, pack
from nemo_distill.data.tokens.store import key_of, made_once, stored_text
from nemo_distill.data.tokens.text import TokenizedText, tokenize
from nemo_distill.errors import InputError
from nemo_distill.support import files, incoming, text_files
from nemo_distill.support.warned import warn

EMPTY, FRACTION = "an empty side", "by fraction"
LENGTH, POSITIONS = "lengths that clean refuses", "more tokens than the models have positions"
"""Why a pair is left out."""
_REASONS = (None, EMPTY, FRACTION, LENGTH, POSITIONS)
_MUCH = 0.05
"""Share of the tokens in pairs left out for their lengths, from which on a model's translations are told to suffer."""
_CHUNK = 1 << 20
_LAYOUT, _ARRAYS = "layout.json", ("order", "starts", "kept")


@dataclass(frozen=True)
class Choice:
    """Which pairs are read, and what is counted of their lengths."""

    tokens_in_batch: int
    """Of source and target, padding included."""
    clean: Mapping[str, float] | None = None
    """Limits of lengths, see `cleaning.LIMITS`; None: there are none."""
    positions: Positions = field(default_factory=Positions)
    """Of the models."""
    has_prefix: bool = False
    """A token stands in front of each source."""
    marks: tuple[bool, bool] = (True, True)
    """Sources, and targets, have start and end."""
    is_reversed: bool = False
    """Models read the targets as sources."""
    fraction: float = 1.0
    """Of the pairs that have text on both sides, be it without tokens."""
    seed: int = 0
    """Of this fraction."""
    keeps_all: bool = False
    """Pairs with an empty side, or beyond the positions, stay: a validation has all lines."""
    several: bool = False
    """A source has several targets, which stand together in the files: a fraction takes all of a source or none, and
    batches take them from all over the text."""


class Sentences(Sequence):
    """One side of the pairs that are read, int32 arrays with start and end.

    Args:
        texts: of one or more files, read as one.
        marks: ids of start and end; None: there are none.
        kept: which lines, ascending; None: all.
    """

    def __init__(
        self, texts: Sequence[TokenizedText], marks: tuple[int, int] | None, kept: np.ndarray | None = None
    ) -> None:
        self._texts, self._marks, self._kept = list(texts), marks, kept
        self._ends = np.cumsum([len(text) for text in texts])

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._kept is None else len(self._kept)

    def __getitem__(self, number: int) -> np.ndarray:
        """Return a sentence, from 0."""
        return self.rows([number])[0]

    def rows(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """Return some sentences, in the order of their numbers."""
        lines = np.asarray(numbers, dtype=np.int64) if self._kept is None else self._kept[numbers].astype(np.int64)
        places = np.searchsorted(self._ends, lines, side="right")
        if (lines < 0).any() or (places == len(self._texts)).any():
            raise IndexError(f"{list(numbers)} of {len(self)} sentences")
        found: list[np.ndarray] = [np.empty(0)] * len(lines)
        for place in np.unique(places).tolist():
            text, mine = self._texts[place], np.flatnonzero(places == place)
            within = lines[mine] - (int(self._ends[place]) - len(text))
            for number, ids in zip(mine.tolist(), text.rows(within, self._marks), strict=True):
                found[number] = ids
        return found

    def lengths(self) -> np.ndarray:
        """Return the tokens of each sentence, start and end included, int32."""
        lengths = np.concatenate([text.lengths for text in self._texts])
        lengths = lengths if self._kept is None else lengths[self._kept]
        lengths += 0 if self._marks is None else 2
        return lengths


@dataclass(frozen=True)
class TextBatches:
    """Sentence pairs, and which of them make a batch."""

    sources: Sentences
    """Token ids with start and end."""
    targets: Sentences
    """The same for the targets."""
    batches: Packing
    """Numbers of the pairs in each batch, among those that are read."""
    kept: np.ndarray | None
    """The line of each pair among those of all files, from 0; None: all are read."""
    pairs: int
    """In the files."""
    left_out: Mapping[str, int]
    """How many of them are not read, by reason."""
    longest: tuple[int, int]
    """Tokens of the longest source and target that are read, start and end included."""
    stored: Path | None = None
    """The directory of a store that holds the choice of pairs; None: it was made in memory."""

    def __len__(self) -> int:
        return len(self.batches)

    def line(self, number: int) -> int:
        """Return the line of a pair that is read, from 1."""
        return 1 + (number if self.kept is None else int(self.kept[number]))

    def rows(self, index: int) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
        """Return source and target sentences of one batch, and their numbers."""
        chosen = self.batches[index]
        return self.sources.rows(chosen), self.targets.rows(chosen), chosen


def is_empty(pair: tuple[str, str]) -> bool:
    """Return whether a side of a pair of lines has nothing but white space: such a pair teaches nothing."""
    return not all(side.strip() for side in pair)


def read_batches(
    name: str,
    paths: Sequence[tuple[str, str]],
    tokenizers: tuple[Any, Any],
    choice: Choice,
    store: str | os.PathLike | None = None,
    hashes: Sequence[tuple[str, str] | None] | None = None,
) -> TextBatches:
    """Read the pairs of some files, and cut them into batches as NeMo does it for one corpus.

    Args:
        name: of the text, for messages.
        paths: sources and targets.
        tokenizers: NeMo's, of sources and of targets.
        choice: which pairs, and how many tokens a batch has.
        store: a directory where ids and batches are found, or are put; None: they are made in memory.
        hashes: the SHA-256 of each file, where they are known.

    Raises:
        InputError: as `text_files.read_parallel`; or no pair is left.
    """
    if any(getattr(tokenizer, "bpe_dropout", None) for tokenizer in tokenizers):
        warn(
            f"{name}: BPE dropout is drawn once, as the text is read: its tokens are the same in every epoch, and for "
            "every seed. dropout of the model is drawn anew at each step"
        )
        store = None
    texts, keys = [], []
    for pair, known in zip(paths, hashes or [None] * len(paths), strict=True):
        work = list(zip(pair, tokenizers, known or (None, None), strict=True))
        if store is None:
            texts.append([tokenize(*each, choice.keeps_all) for each in work])
        else:
            found = [stored_text(store, *each) for each in work]
            keys += [key for key, _ in found]
            texts.append([text for _, text in found])
    for (source, target), sides in zip(paths, texts, strict=True):
        text_files.check_parallel(source, len(sides[0]), target, len(sides[1]))
    sides = [[pair[side] for pair in texts] for side in (0, 1)]
    marks = [
        (tokenizer.bos_id, tokenizer.eos_id) if has else None
        for tokenizer, has in zip(tokenizers, choice.marks, strict=True)
    ]
    whole = [Sentences(texts, mark) for texts, mark in zip(sides, marks, strict=True)]

    def make() -> _Layout:
        return _lay_out(name, paths, *whole, choice)

    request = {"texts": keys, **_request(choice)}
    stored = None if store is None else Path(store, "batches", key_of(request))
    layout = make() if stored is None else _stored_layout(stored, request, len(whole[0]), make)
    sources, targets = (Sentences(texts, mark, layout.kept) for texts, mark in zip(sides, marks, strict=True))
    return TextBatches(
        sources, targets, layout.packing, layout.kept, len(whole[0]), layout.left_out, layout.longest, stored
    )


@dataclass(frozen=True)
class _Layout:
    """What `Choice` makes of texts; see `TextBatches`."""

    packing: Packing
    kept: np.ndarray | None
    left_out: Mapping[str, int]
    longest: tuple[int, int]


def _lay_out(
    name: str, paths: Sequence[tuple[str, str]], sources: Sentences, targets: Sentences, choice: Choice
) -> _Layout:
    lengths = [sources.lengths(), targets.lengths()]
    reasons = np.concatenate([
        _reasons(*(side[first : first + _CHUNK] for side in lengths), choice)
        for first in range(0, len(sources), _CHUNK)
    ])  # fmt: skip
    if choice.fraction < 1:
        is_whole = np.fromiter((not is_empty(pair) for pair in _pairs(paths)), bool, len(reasons))
        lines = _Lines([path for path, _ in paths], is_whole)
        chosen = choose_fraction(lines, choice.fraction, choice.seed, choice.several)
        is_whole[np.flatnonzero(is_whole)[chosen]] = False
        reasons[is_whole] = _REASONS.index(FRACTION)  # those that are not chosen
    counts = np.bincount(reasons, minlength=len(_REASONS)).tolist()
    if not choice.keeps_all:
        _warn_of_lengths(name, lengths, reasons)
    kept = None if counts[0] == len(reasons) else np.flatnonzero(reasons == 0).astype(np.uint32)
    if kept is not None:
        lengths = [side[kept] for side in lengths]
    if not counts[0]:
        raise InputError(
            f"{name}: no sentence pair is left of {len(reasons)}; give more text, or look at max_seq_length of the "
            "data set and of the model"
        )
    left_out = {reason: count for reason, count in zip(_REASONS, counts, strict=True) if reason and count}
    packing = pack(*lengths, choice.tokens_in_batch) if not choice.several else _pack_mixed(*lengths, choice)
    return _Layout(packing, kept, left_out, tuple(int(side.max()) for side in lengths))


def _warn_of_lengths(name: str, lengths: Sequence[np.ndarray], reasons: np.ndarray) -> None:
    """Warn where pairs that are left out for their lengths have much of the text: few pairs may."""
    too_long = np.isin(reasons, [_REASONS.index(LENGTH), _REASONS.index(POSITIONS)])
    tokens, missed = (
        sum(int(side.sum(where=which, dtype=np.int64)) for side in lengths) for which in (True, too_long)
    )
    if missed > _MUCH * tokens:
        warn(
            f"{name}: {100 * missed / tokens:.0f} % of the tokens are in the {int(too_long.sum())} of {len(reasons)} "
            "pairs that are left out for their lengths: a model that never sees long sentences ends them early. Give "
            "a larger max_seq_length (of the data, or of the model), or cut long lines into sentences"
        )


def _pack_mixed(source: np.ndarray, target: np.ndarray, choice: Choice) -> Packing:
    """Return batches of pairs whose order among those of equal lengths is random, the same each time."""
    mixed = np.random.default_rng(0).permutation(len(source)).astype(np.uint32)
    packing = pack(source[mixed], target[mixed], choice.tokens_in_batch)
    return Packing(mixed[packing.order], packing.starts)


def _reasons(source: np.ndarray, target: np.ndarray, choice: Choice) -> np.ndarray:
    """Return for pairs with these lengths why they are left out, as a place in `_REASONS`."""
    reasons = np.zeros(len(source), dtype=np.uint8)
    read = (target, source) if choice.is_reversed else (source, target)
    if not choice.keeps_all:
        reasons[~choice.positions.hold(read[0], read[1], choice.has_prefix)] = _REASONS.index(POSITIONS)
    if choice.clean is not None:
        reasons[~fits(source, target, choice.clean)] = _REASONS.index(LENGTH)
    if not choice.keeps_all:
        empty = [side <= 2 * has for side, has in zip((source, target), choice.marks, strict=True)]
        reasons[empty[0] | empty[1]] = _REASONS.index(EMPTY)
    return reasons


def _pairs(paths: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the line pairs of some files."""
    for pair in paths:
        yield from zip(*map(text_files.iterate_lines, pair), strict=True)


class _Lines(Iterable[str]):
    """Some lines of files, read anew for each walk.

    Args:
        paths: of the files, read as one.
        wanted: whether each line is one of them.
    """

    def __init__(self, paths: Sequence[str], wanted: np.ndarray) -> None:
        self._paths, self._wanted = paths, wanted

    def __len__(self) -> int:
        return int(np.count_nonzero(self._wanted))

    def __iter__(self) -> Iterator[str]:
        lines = (line for path in self._paths for line in text_files.iterate_lines(path))
        return compress(lines, self._wanted.tobytes())


def is_ascending(numbers: np.ndarray) -> bool:
    """Return whether each number is larger than the one before; a part at a time, in little memory."""
    parts = (numbers[first : first + _CHUNK + 1] for first in range(0, len(numbers), _CHUNK))
    return all((part[1:] > part[:-1]).all() for part in parts)


def _request(choice: Choice) -> dict[str, Any]:
    settings = {**vars(choice), "positions": astuple(choice.positions)}
    settings["seed"] = choice.seed if choice.fraction < 1 else None
    if not choice.several:  # requests of earlier releases have no such key
        del settings["several"]
    if choice.clean is not None:  # strict JSON has no infinity
        settings["clean"] = {name: None if math.isinf(value) else value for name, value in choice.clean.items()}
    return settings


def _read_layout(directory: Path, request: dict[str, Any], pairs: int) -> _Layout:
    """Return what a finished directory holds; any of many errors where it is not what `_lay_out` makes."""
    facts = incoming.read_json(directory / _LAYOUT)
    if facts["request"] != json.loads(json.dumps(request)):
        raise ValueError("batches of something else")
    arrays = []
    for name, dtype in zip(_ARRAYS, (np.uint32, np.int64, np.uint32), strict=True):
        if name in facts["arrays"]:
            with incoming.open_regular(path := directory / f"{name}.npy"):
                arrays.append(np.load(path, mmap_mode="r").view(np.ndarray))
            if arrays[-1].dtype != dtype or arrays[-1].shape != (facts["arrays"][name],):
                raise ValueError(f"{name}.npy is another array")
    order, starts, kept = (*arrays, None)[:3]
    left_out = {reason: facts["left_out"][reason] for reason in _REASONS if reason in facts["left_out"]}
    read = pairs - sum(left_out.values())
    is_whole = len(order) == read > int(order.max()) and int(starts[0]) == 0 and int(starts[-1]) == read
    if kept is not None:
        is_whole = is_whole and len(kept) == read and int(kept[-1]) < pairs and is_ascending(kept)
    if not is_whole or (kept is None and read != pairs) or not is_ascending(starts):
        raise ValueError("numbers beyond its pairs")
    source, target = map(int, facts["longest"])
    return _Layout(Packing(order, starts), kept, left_out, (source, target))


def _stored_layout(directory: Path, request: dict[str, Any], pairs: int, make: Callable[[], _Layout]) -> _Layout:
    """Return the batches that a store holds of texts with so many pairs, after making them if they are not there."""

    def find() -> _Layout | None:
        if not (directory / _LAYOUT).exists():
            return None
        try:
            return _read_layout(directory, request, pairs)
        except (OSError, EOFError, LookupError, AttributeError, TypeError, ValueError) as error:
            raise InputError(f"'{directory}' is damaged ({error}); remove it, and it is made anew") from error

    def write() -> None:
        layout = make()
        made = zip(_ARRAYS, (layout.packing.order, layout.packing.starts, layout.kept), strict=True)
        arrays = {name: array for name, array in made if array is not None}
        for name, array in arrays.items():
            with files.atomic_path(directory / f"{name}.npy") as temporary, open(temporary, "wb") as stream:
                np.save(stream, array, allow_pickle=False)
        facts = {"request": request, "left_out": layout.left_out, "longest": layout.longest}
        sizes = {name: len(array) for name, array in arrays.items()}
        files.write_json_atomic(directory / _LAYOUT, {**facts, "arrays": sizes})

    return made_once(directory, find, write, "the batches of a training text")
