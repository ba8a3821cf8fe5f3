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

import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from nemo.utils import logging

from nemo_distill.config.mixture import ComponentConfig
from nemo_distill.data.mixing.tarred import TarredBatches, index_shards
from nemo_distill.data.positions import Positions
from nemo_distill.data.tokens.cleaning import limits_of
from nemo_distill.data.tokens.fraction import choose_fraction
from nemo_distill.data.tokens.pairs import EMPTY, FRACTION, LENGTH, POSITIONS, Choice, read_batches
from nemo_distill.data.tokens.store import store_of
from nemo_distill.support.manifest import noted_hashes, noted_request

_LEFT_OUT = {EMPTY: f"with {EMPTY}", FRACTION: FRACTION, LENGTH: f"with {LENGTH}", POSITIONS: f"with {POSITIONS}"}


class Batches(Protocol):
    """A corpus cut into batches, which stay the same; the mixture decides on their order."""

    def __len__(self) -> int:
        """Return the number of batches."""
        ...

    def rows(self, index: int) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
        """Return source and target sentences of one batch, token ids with BOS and EOS, and a number for each."""
        ...


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
    pairs, hashes = component.text_files, None
    if component.directory:
        noted = noted_hashes(component.directory, [os.path.basename(path) for pair in pairs for path in pair])
        hashes = noted and list(zip(noted[::2], noted[1::2], strict=True))
    batches = read_batches(
        f"distillation.mixture.components.{name}",
        pairs,
        tokenizers,
        Choice(
            train_ds["tokens_in_batch"],
            limits_of(train_ds),
            positions or Positions(),
            prefix is not None,
            fraction=component.fraction,
            seed=seed,
            several=component.made_by is not None and noted_request(component.made_by).get("keep") is not None,
        ),
        store_of(train_ds),
        hashes,
    )
    counts = (f"{batches.left_out.get(reason, 0)} {said}" for reason, said in _LEFT_OUT.items())
    logging.info(
        f"mixture: {name} has {batches.pairs} pairs; left out {', '.join(counts)}; {len(batches.sources)} are used"
    )
    return batches
