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

import itertools

import numpy as np
import pytest

from nemo_distill.config.mixture import NoiseConfig
from nemo_distill.data.mixing.noise import SourceNoise
from nemo_distill.errors import InputError

SENTENCE = "Die alte Heizung im Keller neben dem Turm läuft seit gestern."


@pytest.fixture(scope="module")
def tokenizer(load_tiny_tokenizer):
    return load_tiny_tokenizer()


@pytest.fixture(scope="module")
def ids(tokenizer):
    return np.array([tokenizer.bos_id, *tokenizer.text_to_ids(SENTENCE), tokenizer.eos_id])


@pytest.fixture
def disturb(tokenizer, ids):
    """A function that returns the words of the sentence after noise, many times over, `None` for a masked word."""

    def words(times: int = 300, **settings) -> list[list[str | None]]:
        noise = SourceNoise(NoiseConfig(**settings), tokenizer)
        results = []
        for number in range(times):
            noisy = noise(ids, (1, 2, number))
            assert (noisy[0], noisy[-1], noisy.dtype) == (ids[0], ids[-1], ids.dtype)
            text = "".join(
                " ? " if token == tokenizer.unk_id else tokenizer.ids_to_tokens([token])[0].replace("▁", " ")
                for token in noisy[1:-1].tolist()
            )
            results.append([None if word == "?" else word for word in text.split()])
        return results

    return words


def test_without_noise_nothing_changes(disturb):
    assert all(words == SENTENCE.split() for words in disturb(times=5))


def test_dropout_leaves_whole_words_out_in_their_order(disturb):
    results = disturb(word_dropout=0.3)
    original = SENTENCE.split()
    for words in results:
        places = [original.index(word) for word in words]  # whole words, since each is found
        assert places == sorted(places)
    share = 1 - np.mean([len(words) for words in results]) / len(original)
    assert share == pytest.approx(0.3, abs=0.03)


def test_dropout_leaves_one_word(disturb):
    assert all(len(words) >= 1 for words in disturb(word_dropout=0.999))


def test_swap_moves_no_word_farther_than_asked(disturb):
    original = SENTENCE.split()
    farthest = 0
    for words in disturb(word_swap=2):
        assert sorted(words) == sorted(original)
        farthest = max(farthest, *(abs(place - original.index(word)) for place, word in enumerate(words)))
    assert farthest == 2


def test_mask_takes_whole_words(disturb):
    original = SENTENCE.split()
    results = disturb(word_mask=0.2)
    for words in results:
        assert len(words) == len(original)
        assert all(word in (None, expected) for word, expected in zip(words, original, strict=True))
    assert np.mean([words.count(None) / len(words) for words in results]) == pytest.approx(0.2, abs=0.03)


def test_the_same_key_gives_the_same_noise(tokenizer, ids):
    noise = SourceNoise(NoiseConfig(word_dropout=0.2, word_swap=3, word_mask=0.2), tokenizer)
    before = ids.copy()
    assert noise(ids, (1, 5)).tolist() == noise(ids, (1, 5)).tolist()
    assert len({tuple(noise(ids, (1, number))) for number in range(20)}) > 10
    assert ids.tolist() == before.tolist()


def test_an_empty_sentence_stays(tokenizer):
    ends = np.array([tokenizer.bos_id, tokenizer.eos_id])
    assert SourceNoise(NoiseConfig(word_dropout=0.5), tokenizer)(ends, (0,)).tolist() == ends.tolist()


def test_pieces_without_word_starts_are_refused():
    class Characters:
        vocab_size, unk_id = 3, 0

        def ids_to_tokens(self, ids):
            return ["a", "b", "c"]

    with pytest.raises(InputError, match="the pieces of this tokenizer do not mark where words start; noise needs"):
        SourceNoise(NoiseConfig(word_swap=1), Characters())


class Pieces:
    """Pieces of three languages, as SentencePiece cuts them: a space is seen only where the text has one."""

    texts = (
        "<unk>",
        "<s>",
        "</s>",
        "▁",
        "この",
        "デバイス",
        "は",
        "動",
        "か",
        "ない",
        "。",
        "▁Tür",
        "en",
        "อุปกรณ์",
        "▁นี้",
    )
    vocab_size, unk_id, bos_id, eos_id = len(texts), 0, 1, 2

    def ids_to_tokens(self, ids):
        return [self.texts[id_] for id_ in ids]


@pytest.mark.parametrize(
    "words",
    [
        [[3, 4], [5], [6], [7], [8], [9], [10]],  # Japanese, in words of a piece each
        [[3, 13], [14], [13]],  # Thai
        [[11, 12], [4], [11, 12], [13]],  # both kinds in one sentence
    ],
)
def test_pieces_are_words_where_no_space_stands_between_them(words):
    ids = np.array([1, *itertools.chain(*words), 2])
    dropped, masked = set(), set()
    for number in range(200):
        left = SourceNoise(NoiseConfig(word_dropout=0.8), Pieces())(ids, (number,))[1:-1].tolist()
        dropped.add(tuple(left))
        seen = SourceNoise(NoiseConfig(word_mask=0.5), Pieces())(ids, (number,))[1:-1].tolist()
        masked.add(seen.count(0))
        assert len(seen) - seen.count(0) <= sum(map(len, words))
    assert {tuple(word) for word in words} <= dropped  # each may be the only one that is left
    assert masked == set(range(len(words) + 1))
