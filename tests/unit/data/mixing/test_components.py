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

import pytest

from nemo_distill.config.mixture import ComponentConfig
from nemo_distill.data.mixing.components import load_batches
from nemo_distill.support.text_files import read_lines


@pytest.fixture(scope="module")
def tokenizer(load_tiny_tokenizer):
    return load_tiny_tokenizer()


@pytest.fixture
def load(tokenizer):
    """A function that reads a component and returns its pairs as text."""

    def pairs(tokens_in_batch: int = 300, **component) -> list[tuple[str, str]]:
        batches = load_batches(
            "gold", ComponentConfig(**component), {"tokens_in_batch": tokens_in_batch}, tokenizer, tokenizer, seed=1
        )
        assert sorted(item for batch in batches.batches for item in batch) == list(range(len(batches.sources)))
        sides = (
            [tokenizer.ids_to_text(row[1:-1].tolist()) for row in side] for side in (batches.sources, batches.targets)
        )
        return list(zip(*sides, strict=True))

    return pairs


def test_several_files_are_one_corpus(load, tiny_corpus):
    files = {side: [str(tiny_corpus / f"{split}.{side}") for split in ("valid", "test")] for side in ("de", "en")}
    pairs = load(source=files["de"], target=files["en"])
    text = {side: [line for name in names for line in read_lines(name)] for side, names in files.items()}
    assert sorted(pairs) == sorted(zip(text["de"], text["en"], strict=True))


def test_pairs_with_an_empty_side_are_left_out(load, tmp_path):
    (tmp_path / "source.txt").write_text("die Lampe\n\nder Motor\ndas Radio\n")
    (tmp_path / "hypotheses.txt").write_text("the lamp\nthe door\n \nthe radio\n")
    assert load(directory=str(tmp_path)) == [("die Lampe", "the lamp"), ("das Radio", "the radio")]
