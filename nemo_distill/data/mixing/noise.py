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
"""Noisy student: words of a source sentence are moved, left out or masked (Edunov et al. 2018, He et al. 2020)."""

from collections.abc import Sequence

import numpy as np

from nemo_distill.config.mixture import NoiseConfig
from nemo_distill.data.words import is_unspaced
from nemo_distill.errors import InputError

_WORD_START = "▁"  # in YouTokenToMe and SentencePiece


class SourceNoise:
    """Disturbs the words of source sentences; the same key gives the same noise.

    In scripts that put no space between words (Han, kana, Thai ...) each piece of the tokenizer is taken for a word.

    Args:
        config: probabilities and distance.
        tokenizer: NeMo tokenizer of the source, whose pieces mark where words start.

    Raises:
        InputError: the pieces do not mark where words start.

    Example:
        >>> noise = SourceNoise(NoiseConfig(word_swap=3), tokenizer)  # doctest: +SKIP
        >>> noise(np.array([2, 17, 9, 3]), key=(1, 0, 0))  # BOS and EOS stay where they are  # doctest: +SKIP
        array([ 2,  9, 17,  3])
    """

    def __init__(self, config: NoiseConfig, tokenizer) -> None:
        self.config = config
        self.mask_id = tokenizer.unk_id
        pieces = tokenizer.ids_to_tokens(list(range(tokenizer.vocab_size)))
        self._starts_word = np.array([str(piece).startswith(_WORD_START) for piece in pieces])
        texts = [str(piece).removeprefix(_WORD_START) for piece in pieces]
        self._is_empty = np.array([not text for text in texts])
        self._begins_unspaced = np.array([is_unspaced(text[:1]) for text in texts])
        self._ends_unspaced = np.array([is_unspaced(text[-1:]) for text in texts])
        if not self._starts_word.any():
            raise InputError(
                "distillation.mixture.noise: the pieces of this tokenizer do not mark where words start; noise needs "
                "YouTokenToMe or SentencePiece"
            )

    def __call__(self, ids: np.ndarray, key: Sequence[int]) -> np.ndarray:
        """Return the disturbed sentence.

        Args:
            ids: [S], with BOS and EOS at the ends, which stay.
            key: integers that name sentence and pass.
        """
        inner = ids[1:-1]
        if len(inner) == 0:
            return ids
        words = np.split(inner, self._inner_starts(inner))
        random = np.random.default_rng(list(key))
        order = np.argsort(np.arange(len(words)) + random.uniform(0, self.config.word_swap + 1, len(words)))
        stays = random.random(len(words)) >= self.config.word_dropout
        stays[random.integers(len(words))] |= not stays.any()
        masked = random.random(len(words)) < self.config.word_mask
        chosen = [np.array([self.mask_id]) if masked[place] else words[place] for place in order if stays[place]]
        return np.concatenate([ids[:1], *chosen, ids[-1:]]).astype(ids.dtype)

    def _inner_starts(self, ids: np.ndarray) -> np.ndarray:
        """Return the places but the first at which words start, where ids [S] are those of a sentence alone."""
        is_alone = self._starts_word[ids[:-1]] & self._is_empty[ids[:-1]]  # the mark of a word in a piece of its own
        unspaced = (self._begins_unspaced[ids[1:]] | self._ends_unspaced[ids[:-1]]) & ~is_alone
        return 1 + np.flatnonzero(self._starts_word[ids[1:]] | unspaced)
