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

NeMo's own reading keeps a carriage return and a byte-order mark as text, which evaluation and caches do not have.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from nemo.collections.nlp.data import TranslationDataset
from nemo.utils import logging
from torch import nn
from tqdm import tqdm

from nemo_distill.data.encoders import UNBOUNDED, longest_source, longest_target
from nemo_distill.errors import InputError
from nemo_distill.support.files import read_parallel

EMPTY, LENGTH, POSITIONS = "an empty side", "lengths that clean refuses", "more tokens than the models have positions"
"""Why a pair is left out."""
Ids = Sequence[int]


@dataclass(frozen=True)
class Positions:
    """Most tokens that models read of a pair, those of start, end and language included."""

    source: int = UNBOUNDED
    """Of the source."""
    target: int = UNBOUNDED
    """Of the target, which the decoder reads without its end."""

    @classmethod
    def of_model(cls, model: nn.Module, learned: bool = False) -> "Positions":
        """Return what a model has; with `learned` those of sine and cosine, which NeMo can extend, have no end."""
        sides = {"encoder": longest_source(model), "decoder": longest_target(model)}
        for name in sides if learned else ():
            embedding = getattr(getattr(model, name), "embedding", None)
            if not getattr(embedding, "learn_positional_encodings", True):
                sides[name] = UNBOUNDED
        return cls(*sides.values())

    def hold(self, source: Ids, target: Ids, prefix: int | None = None) -> bool:
        """Return whether a pair with start and end tokens fits, its source with `prefix` in front if that is given."""
        return len(source) + (prefix is not None) <= self.source and len(target) - 1 <= self.target

    def __and__(self, other: "Positions") -> "Positions":
        """Return the smaller ones."""
        return Positions(min(self.source, other.source), min(self.target, other.target))


def is_empty(pair: tuple[str, str]) -> bool:
    """Return whether a side of a pair of lines has nothing but white space: such a pair teaches nothing."""
    return not all(side.strip() for side in pair)


class LineDataset(TranslationDataset):
    """NeMo's `TranslationDataset` with batches as NeMo's for clean text, read by `read_parallel`.

    Args:
        dataset_src: file of sources.
        dataset_tgt: file of targets.
        training: pairs with an empty side, or that `positions` do not hold, are left out, counted and logged; else
            all lines stay, and are counted from 1 in `lines`.
        positions: of the models.
        settings: as NeMo's.

    Attributes:
        lines: for each sentence of `batch_indices` the line that it comes from, from 1.
    """

    def __init__(
        self,
        dataset_src: str,
        dataset_tgt: str,
        *,
        training: bool = True,
        positions: Positions | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(dataset_src, dataset_tgt, **settings)
        self.training, self.positions = training, positions or Positions()
        self.lines: list[int] = []

    def batchify(self, tokenizer_src, tokenizer_tgt) -> None:
        """Read both files, and cut them into batches.

        Raises:
            InputError: a file cannot be used, or no pair is left.
        """
        pairs = read_parallel(self.dataset_src, self.dataset_tgt)
        left_out: Counter = Counter()
        sources, targets, self.lines = [], [], []
        tokens = self._encoded(pairs, tokenizer_src, tokenizer_tgt)
        for number, (pair, (source, target)) in enumerate(zip(pairs, tokens, strict=True), start=1):
            reason = self._reason(pair, source, target)
            if reason is None:
                sources.append(source)
                targets.append(target)
                self.lines.append(number)
            else:
                left_out[reason] += 1
        if left_out:
            counts = ", ".join(f"{count} with {reason}" for reason, count in left_out.items())
            logging.info(f"'{self.dataset_src}' and '{self.dataset_tgt}': {len(pairs)} pairs; left out {counts}")
        if not sources:
            raise InputError(
                f"'{self.dataset_src}', '{self.dataset_tgt}': no sentence pair is left of {len(pairs)}; give more "
                "text, or look at max_seq_length of the data set and of the model"
            )
        self.src_pad_id, self.tgt_pad_id = tokenizer_src.pad_id, tokenizer_tgt.pad_id
        self.batch_indices = self.pack_data_into_batches(sources, targets)
        self.batches = self.pad_batches(sources, targets, self.batch_indices)

    def first_beyond(self, positions: Positions) -> tuple[str, int, int] | None:
        """Return file, line and tokens of the first line that has no room in so many positions; None: all have."""
        beyond, paths = [], (self.dataset_src, self.dataset_tgt)
        for number, places in enumerate(self.batch_indices):
            _, source_mask, _, _, labels = self[number]
            read = source_mask, labels != self.tgt_pad_id  # a token is read for each label
            sides = zip(paths[:: -1 if self.reverse_lang_direction else 1], read, astuple(positions), strict=True)
            for path, mask, longest in sides:
                lengths = mask.sum(axis=1).tolist()
                found = zip(places, lengths, strict=True)
                beyond += [(self.lines[place], path, tokens) for place, tokens in found if tokens > longest]
        if not beyond:
            return None
        line, path, tokens = min(beyond)
        return path, line, tokens

    def _encoded(self, pairs: Sequence[tuple[str, str]], source, target) -> Iterator[tuple[list[int], list[int]]]:
        shown = tqdm(pairs, desc="tokenizing", unit=" lines", leave=False)
        for source_line, target_line in shown:
            ids = source.text_to_ids(source_line)
            if self.add_bos_eos_to_encoder:
                ids = [source.bos_id, *ids, source.eos_id]
            yield ids, [target.bos_id, *target.text_to_ids(target_line), target.eos_id]

    def _reason(self, pair: tuple[str, str], source: list[int], target: list[int]) -> str | None:
        """Return why a pair is left out; None: it stays."""
        marks = 2 if self.add_bos_eos_to_encoder else 0
        if self.training and (is_empty(pair) or len(source) <= marks or len(target) <= 2):
            return EMPTY
        if self.clean and not fits(self, source, target, vars(self)):
            return LENGTH
        read = (target, source) if self.reverse_lang_direction else (source, target)
        if self.training and not self.positions.hold(*read, self.prepend_id or None):
            return POSITIONS
        return None


def fits(packer: TranslationDataset, source: Ids, target: Ids, limits: Mapping[str, Any]) -> bool:
    """Return whether NeMo's cleaning keeps a pair.

    Args:
        packer: any of NeMo's data sets.
        source: its ids, start and end included.
        target: the same of the target.
        limits: `max_seq_length` and the others of a data set's section, with NeMo's defaults.
    """
    kept, _ = packer.clean_src_and_target(
        [source],
        [target],
        max_tokens=limits.get("max_seq_length", 512),
        min_tokens=limits.get("min_seq_length", 1),
        max_tokens_diff=limits.get("max_seq_length_diff", 512),
        max_tokens_ratio=limits.get("max_seq_length_ratio", 512),
    )
    return bool(kept)
