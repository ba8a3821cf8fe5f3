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

import numpy as np
import pytest
from nemo.collections.nlp.data import TranslationDataset

from nemo_distill.data.tokens import packing
from nemo_distill.data.tokens.packing import pack


def nemos(source, target, tokens_in_batch: int) -> list[list[int]]:
    """Return the batches that NeMo makes of sentences with these lengths."""
    sides = [[range(length) for length in side] for side in (source, target)]
    return TranslationDataset("", "", tokens_in_batch=tokens_in_batch).pack_data_into_batches(*sides)


@pytest.mark.parametrize("seed", range(60))
def test_the_batches_are_nemos(seed):
    generator = np.random.default_rng(seed)
    count, longest, tokens = (int(generator.integers(*span)) for span in ((1, 500), (3, 80), (4, 900)))
    source = generator.integers(2, longest, count)
    target = np.clip(source + generator.integers(-9, 9, count), 2, None) if seed % 2 else generator.permutation(source)
    assert list(pack(source, target, tokens)) == nemos(source, target, tokens)


def test_pieces_of_the_work_make_no_difference(monkeypatch):
    generator = np.random.default_rng(1)
    source, target = generator.integers(2, 400, (2, 700))  # more pairs of lengths than 16 bits number
    whole = list(pack(source, target, 300))
    monkeypatch.setattr(packing, "_CHUNK", 64)
    assert list(pack(source, target, 300)) == whole == nemos(source, target, 300)


def test_a_pair_longer_than_a_batch_and_no_pair():
    assert list(pack(np.array([900]), np.array([3]), 10)) == [[0]]
    assert list(pack(np.array([], dtype=np.int32), np.array([], dtype=np.int32), 10)) == []


def test_batches_are_asked_for_by_number():
    batches = pack(np.array([5, 3, 5]), np.array([4, 4, 4]), 8)
    assert [batches[number] for number in range(len(batches))] == [[1, 0], [2]]
    with pytest.raises(IndexError):
        batches[2]
