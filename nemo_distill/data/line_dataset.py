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
"""Text files as training data: NeMo's data set, over lines that are read as everything else here reads them.

NeMo's own reading keeps a carriage return and a byte-order mark as text, which evaluation and caches do not have; and
it holds all batches, padded, in memory.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from nemo.collections.nlp.data import TranslationDataset
from nemo.utils import logging

from nemo_distill.data.positions import Positions
from nemo_distill.data.text import no_bpe_dropout
from nemo_distill.data.tokens.cleaning import limits_of
from nemo_distill.data.tokens.pairs import Choice, TextBatches, read_batches


class LineDataset(TranslationDataset):
    """NeMo's `TranslationDataset` with batches as NeMo's for clean text, padded when they are asked for.

    Args:
        dataset_src: file of sources.
        dataset_tgt: file of targets.
        training: pairs with an empty side, or that `positions` do not hold, are left out, counted and logged; else
            all lines stay.
        positions: of the models.
        store: a directory of token ids, see `nemo_distill.data.tokens`, for training; None: they are in memory.
        settings: as NeMo's.

    Attributes:
        text: the pairs that are read, once `batchify` has been called.
    """

    text: TextBatches

    def __init__(
        self,
        dataset_src: str,
        dataset_tgt: str,
        *,
        training: bool = True,
        positions: Positions | None = None,
        store: str | os.PathLike | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(dataset_src, dataset_tgt, **settings)
        self.training, self.positions, self.store = training, positions or Positions(), store

    def batchify(self, tokenizer_src, tokenizer_tgt) -> None:
        """Read both files, and cut them into batches.

        Raises:
            InputError: a file cannot be used, or no pair is left.
        """
        choice = Choice(
            self.tokens_in_batch,
            limits_of(vars(self)),
            self.positions,
            bool(self.prepend_id),
            (self.add_bos_eos_to_encoder, True),
            self.reverse_lang_direction,
            keeps_all=not self.training,
        )
        paths = (self.dataset_src, self.dataset_tgt)
        name = "', '".join(map(str, paths))
        with ExitStack() as stack:
            if not self.training:  # it is scored as `evaluate` reads it
                for tokenizer in (tokenizer_src, tokenizer_tgt):
                    stack.enter_context(no_bpe_dropout(tokenizer))
            self.text = read_batches(f"'{name}'", [paths], (tokenizer_src, tokenizer_tgt), choice, self.store)
        if self.text.left_out:
            counts = ", ".join(f"{count} with {reason}" for reason, count in self.text.left_out.items())
            logging.info(f"'{name}': {self.text.pairs} pairs; left out {counts}")
        self.src_pad_id, self.tgt_pad_id = tokenizer_src.pad_id, tokenizer_tgt.pad_id
        self.batch_indices = self.text.batches
        self.batches = _Padded(self.text, self.src_pad_id, self.tgt_pad_id)

    def first_beyond(self, positions: Positions) -> tuple[str, int, int] | None:
        """Return file, line and tokens of the first line that has no room in so many positions; None: all have."""
        paths, sentences = (self.dataset_src, self.dataset_tgt), (self.text.sources, self.text.targets)
        sides = list(zip(paths, sentences, self.text.longest, strict=True))[
            :: -1 if self.reverse_lang_direction else 1
        ]
        added, beyond = (bool(self.prepend_id), -1), []  # of a target, a token is read for each label
        for (path, side, longest), more, room in zip(sides, added, astuple(positions), strict=True):
            if longest + more > room:
                lengths = side.lengths() + more
                number = int(np.argmax(lengths > room))
                beyond.append((self.text.line(number), path, int(lengths[number])))
        if not beyond:
            return None
        line, path, tokens = min(beyond)
        return path, line, tokens


@dataclass(frozen=True)
class _Padded(Sequence):
    """The batches that NeMo's data set keeps, each made when it is asked for."""

    text: TextBatches
    source_pad: int
    target_pad: int

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        """Return source and target ids of a batch, int64 [B, S] and [B, T]."""
        sources, targets, _ = self.text.rows(number)
        return {"src": padded(sources, self.source_pad), "tgt": padded(targets, self.target_pad)}


def padded(rows: Sequence[np.ndarray], pad: int) -> np.ndarray:
    """Return sentences as one array, [B, longest], int64."""
    array = np.full((len(rows), max(map(len, rows))), pad, dtype=np.int64)
    for place, row in enumerate(rows):
        array[place, : len(row)] = row
    return array


def batch_arrays(
    sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], pads: tuple[int, int]
) -> tuple[np.ndarray, ...]:
    """Return sentences as an item of NeMo's data sets.

    Args:
        sources: ids with start and end.
        targets: the same.
        pads: padding ids of source and target.

    Returns:
        Source ids [B, S], source mask [B, S], target ids [B, T], target mask [B, T] and labels [B, T].
    """
    source, target = (padded(rows, pad) for rows, pad in zip((sources, targets), pads, strict=True))
    target, labels = target[:, :-1], target[:, 1:]
    source_mask, target_mask = ((ids != pad).astype(np.int32) for ids, pad in zip((source, target), pads, strict=True))
    return source, source_mask, target, target_mask, labels


def with_prefix(sources: Sequence[np.ndarray], token: int | None) -> Sequence[np.ndarray]:
    """Return source sentences with a token in front of the start token; None: as they are."""
    return sources if token is None else [np.insert(ids, 0, token) for ids in sources]
