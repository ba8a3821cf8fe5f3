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
"""One corpus of a mixture as token-sized batches of sentences, from text files or a tarred set."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from nemo.collections.nlp.data import TranslationDataset
from nemo.utils import logging
from tqdm import tqdm

from nemo_distill.config.mixture import ComponentConfig, label_names
from nemo_distill.data.line_dataset import EMPTY, LENGTH, POSITIONS, Positions, fits, is_empty
from nemo_distill.data.mixing.tarred import TarredBatches, index_shards
from nemo_distill.errors import InputError
from nemo_distill.support import files
from nemo_distill.support.manifest import noted_hashes


class Batches(Protocol):
    """A corpus cut into batches, which stay the same; the mixture decides on their order."""

    def __len__(self) -> int:
        """Return the number of batches."""
        ...

    def rows(self, index: int) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
        """Return source and target sentences of one batch, token ids with BOS and EOS, and a number for each."""
        ...


@dataclass
class TextBatches:
    """Sentence pairs in memory, and which of them make a batch."""

    sources: list[np.ndarray]
    """Token ids with BOS and EOS, one array a sentence."""
    targets: list[np.ndarray]
    """The same for the targets."""
    batches: list[list[int]]
    """Numbers of the pairs in each batch."""

    def __len__(self) -> int:
        return len(self.batches)

    def rows(self, index: int) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
        """Return source and target sentences of one batch, and their numbers."""
        chosen = self.batches[index]
        return [self.sources[item] for item in chosen], [self.targets[item] for item in chosen], chosen


def load_batches(
    name: str,
    component: ComponentConfig,
    train_ds: Mapping[str, Any],
    encoder_tokenizer,
    decoder_tokenizer,
    seed: int,
    positions: Positions | None = None,
    prefix: int | None = None,
) -> Batches:
    """Read one component.

    Text is cut into batches as NeMo does it for one corpus: pairs are sorted by length and packed until a batch has
    `tokens_in_batch` tokens of source and target, padding included. Pairs with an empty side teach nothing and are
    left out.

    Args:
        name: of the component, for messages.
        component: its files.
        train_ds: the `model.train_ds` section; read are `tokens_in_batch` and, with `clean`, the limits of lengths.
        encoder_tokenizer: NeMo tokenizer of the source.
        decoder_tokenizer: NeMo tokenizer of the target.
        seed: chooses the sentences where `fraction` is below 1.
        positions: of the models; pairs of text that need more are left out.
        prefix: token that will stand in front of each source.

    Raises:
        InputError: a file cannot be used, or no pair is left.
    """
    tokenizers = (encoder_tokenizer, decoder_tokenizer)
    if component.metadata_file:
        entries = index_shards(component)
        entries = [entries[i] for i in choose_fraction([entry.name for entry in entries], component.fraction, seed)]
        pads, sizes = ([getattr(tokenizer, key) for tokenizer in tokenizers] for key in ("pad_id", "vocab_size"))
        return TarredBatches(entries, tuple(pads), tuple(sizes))
    # of pseudo-labels: no other text than what was checked before training
    hashes = noted_hashes(component.directory, label_names(component.directory)) if component.directory else None
    pairs = [pair for source, target in component.text_files for pair in files.read_parallel(source, target, hashes)]
    whole = [pair for pair in pairs if not is_empty(pair)]
    chosen = choose_fraction([source for source, _ in whole], component.fraction, seed)
    sides = zip(*(whole[i] for i in chosen), strict=True) if chosen else ((), ())
    encoded = [
        [_encode(line, tokenizer) for line in tqdm(lines, desc=f"tokenizing {name}", unit=" lines", leave=False)]
        for lines, tokenizer in zip(sides, tokenizers, strict=True)
    ]
    packer = TranslationDataset("", "", tokens_in_batch=train_ds["tokens_in_batch"])
    said = [pair for pair in zip(*encoded, strict=True) if min(map(len, pair)) > 2]
    cleaned = [pair for pair in said if not train_ds.get("clean", False) or fits(packer, *pair, train_ds)]
    kept = [pair for pair in cleaned if (positions or Positions()).hold(*pair, prefix)]
    logging.info(
        f"mixture: {name} has {len(pairs)} pairs; left out {len(pairs) - len(whole) + len(chosen) - len(said)} with "
        f"{EMPTY}, {len(whole) - len(chosen)} by fraction, {len(said) - len(cleaned)} with {LENGTH}, "
        f"{len(cleaned) - len(kept)} with {POSITIONS}; {len(kept)} are used"
    )
    if not kept:
        raise InputError(
            f"distillation.mixture.components.{name}: no sentence pair is left of {len(pairs)}; give more text, or "
            "look at model.train_ds.max_seq_length"
        )
    sources, targets = map(list, zip(*kept, strict=True))
    return TextBatches(sources, targets, packer.pack_data_into_batches(sources, targets))


def choose_fraction(keys: Sequence[str], fraction: float, seed: int) -> list[int]:
    """Choose `round(fraction * len(keys))` places, at least one, in their order.

    The choice goes by a hash of seed and key: components with the same source lines get the same choice, and a
    smaller fraction is a part of a larger one.

    Example:
        >>> set(choose_fraction("abcdefgh", 0.25, seed=1)) < set(choose_fraction("abcdefgh", 0.5, seed=1))
        True
    """
    if fraction >= 1 or not keys:
        return list(range(len(keys)))
    seen: Counter = Counter()
    ranks = []
    for place, key in enumerate(keys):
        seen[key] += 1
        digest = hashlib.blake2b(f"{seed} {seen[key]} {key}".encode(), digest_size=8).digest()
        ranks.append((digest, place))
    return sorted(place for _, place in sorted(ranks)[: max(1, round(fraction * len(keys)))])


def _encode(line: str, tokenizer) -> np.ndarray:
    return np.array([tokenizer.bos_id, *tokenizer.text_to_ids(line), tokenizer.eos_id], dtype=np.int32)
