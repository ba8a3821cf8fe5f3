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

import json

import pytest

from nemo_distill.config.mixture import ComponentConfig
from nemo_distill.data.mixing.components import load_batches
from nemo_distill.labels.filtering import FilterSettings
from nemo_distill.labels.given import label_given
from nemo_distill.labels.selection import select
from nemo_distill.labels.settings import SelectionSettings
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


def test_a_fraction_of_several_hypotheses_is_of_the_sentences_of_gold(load, tiny_corpus, tmp_path):
    sources = list(dict.fromkeys(read_lines(tiny_corpus / "train.de")))
    texts = [{"hypotheses": [{"text": f"the {word}"} for word in ("lamp", "door", "lamp", "radio")]}] * len(sources)
    (tmp_path / "input.de").write_text("".join(f"{line}\n" for line in sources))
    (tmp_path / "given.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in texts))
    settings = SelectionSettings(keep=3, filters=FilterSettings(max_length_ratio=None))
    label_given(tmp_path / "given.jsonl", tmp_path / "input.de", tmp_path / "labels", settings, progress=False)
    (tmp_path / "gold.en").write_text("the lamp\n" * len(sources))
    gold = load(source=str(tmp_path / "input.de"), target=str(tmp_path / "gold.en"), fraction=0.2)
    assert 10 < len(gold) < len(sources) / 4
    for directory in (tmp_path / "labels", tmp_path / "chosen"):
        if not directory.exists():
            select(tmp_path / "labels", directory, settings, progress=False)
        pairs = load(directory=str(directory), fraction=0.2)
        wanted = [(source, f"the {word}") for source, _ in gold for word in ("lamp", "door", "radio")]
        assert sorted(pairs) == sorted(wanted)
        # As a run has them that processes raw labels: text of its own, and whose labels it is.
        sides = {
            side: str(directory / f"{name}.txt") for side, name in (("source", "source"), ("target", "hypotheses"))
        }
        assert sorted(load(**sides, labels=str(directory), fraction=0.2)) == sorted(wanted)
        assert sorted(load(**sides, fraction=0.2)) != sorted(wanted)
