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
from nemo_distill.data.mixing.components import choose_fraction, load_batches
from nemo_distill.support.files import read_lines

LINES = [f"line {number}" for number in range(1000)]


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


def test_a_fraction_is_exact_seeded_and_in_order():
    chosen = choose_fraction(LINES, 0.05, seed=1)
    assert len(chosen) == 50
    assert chosen == sorted(chosen) == choose_fraction(LINES, 0.05, seed=1)
    assert chosen != choose_fraction(LINES, 0.05, seed=2)
    assert set(chosen) < set(choose_fraction(LINES, 0.1, seed=1))
    assert max(chosen) > 800  # from everywhere, not from the start
    assert min(chosen) < 200


def test_the_same_lines_in_another_order_give_the_same_choice():
    backwards = LINES[::-1]
    chosen = {LINES[place] for place in choose_fraction(LINES, 0.1, seed=5)}
    assert {backwards[place] for place in choose_fraction(backwards, 0.1, seed=5)} == chosen


def test_fractions_at_the_ends():
    assert choose_fraction(LINES, 1.0, seed=1) == list(range(1000))
    assert len(choose_fraction(LINES[:10], 0.01, seed=1)) == 1
    assert choose_fraction([], 0.5, seed=1) == []
    assert len(choose_fraction(["same"] * 100, 0.3, seed=1)) == 30


def test_several_files_are_one_corpus(load, tiny_corpus):
    files = {side: [str(tiny_corpus / f"{split}.{side}") for split in ("valid", "test")] for side in ("de", "en")}
    pairs = load(source=files["de"], target=files["en"])
    text = {side: [line for name in names for line in read_lines(name)] for side, names in files.items()}
    assert sorted(pairs) == sorted(zip(text["de"], text["en"], strict=True))


def test_pairs_with_an_empty_side_are_left_out(load, tmp_path):
    (tmp_path / "source.txt").write_text("die Lampe\n\nder Motor\ndas Radio\n")
    (tmp_path / "hypotheses.txt").write_text("the lamp\nthe door\n \nthe radio\n")
    assert load(directory=str(tmp_path)) == [("die Lampe", "the lamp"), ("das Radio", "the radio")]
