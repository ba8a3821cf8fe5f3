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

import hashlib
import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nemo.collections.nlp.data import TranslationDataset

from nemo_distill.data.positions import Positions
from nemo_distill.data.tokens import pairs
from nemo_distill.data.tokens.cleaning import LIMITS, fits, limits_of
from nemo_distill.data.tokens.fraction import choose_fraction
from nemo_distill.data.tokens.pairs import Choice, read_batches
from nemo_distill.errors import InputError
from tests.damage import time_limit

LINES = [f"line {number}" for number in range(1000)]
COUNTED = "an empty side", "by fraction", "lengths that clean refuses", "more tokens than the models have positions"


@pytest.fixture(scope="module")
def tokenizers(load_tiny_tokenizer):
    return load_tiny_tokenizer(), load_tiny_tokenizer()


@pytest.fixture(params=["memory", "store"])
def store(request, tmp_path):
    """Where token ids are kept."""
    return tmp_path / "store" if request.param == "store" else None


@pytest.fixture
def odd_text(tiny_corpus, tmp_path):
    """Two pairs of files with sentences, empty sides and a long line."""
    paths = []
    for number, split in enumerate(("valid", "test")):
        sides = [(tiny_corpus / f"{split}.{side}").read_text().splitlines() for side in ("de", "en")]
        sides[number][1] = " "
        sides[1 - number][4] = " ".join(sides[1 - number][:9])
        names = [tmp_path / f"{split}.{side}" for side in ("de", "en")]
        for name, lines in zip(names, sides, strict=True):
            name.write_text("".join(f"{line}\n" for line in lines))
        paths.append(tuple(map(str, names)))
    return paths


def everything(batches) -> list:
    """Return all that a training sees of batches."""
    rows = [batches.rows(number) for number in range(len(batches))]
    plain = [([ids.tolist() for ids in side] for side in row[:2]) for row in rows]
    return [
        (list(sources), list(targets), numbers) for (sources, targets), (*_, numbers) in zip(plain, rows, strict=True)
    ]


@pytest.mark.parametrize("is_missed", [False, True])
def test_long_pairs_that_are_much_of_the_text_are_missed(tokenizers, tmp_path, is_missed, caplog):
    """One pair in a hundred, which has more than a twentieth of the tokens."""
    lines = ["Tag"] * 99 + [" ".join(["Tag"] * 25)]
    short, long = (2 + len(tokenizers[0].text_to_ids(line)) for line in (lines[0], lines[-1]))
    paths = (str(tmp_path / "a.de"), str(tmp_path / "a.en"))
    for path in paths:
        Path(path).write_text("".join(f"{line}\n" for line in lines))
    choice = Choice(600, limits_of({"clean": True, "max_seq_length": long - is_missed}))
    read_batches("the text", [paths], tokenizers, choice)
    share = 100 * long / (99 * short + long)
    told = f"the text: {share:.0f} % of the tokens are in the 1 of 100 pairs that are left out for their lengths"
    assert share > 5
    assert (told in caplog.text) == is_missed
    caplog.clear()
    read_batches("the text", [paths], tokenizers, replace(choice, keeps_all=True))
    assert "left out for their lengths" not in caplog.text  # a validation, which is scored as it is


def test_stored_batches_are_those_of_memory(odd_text, tokenizers, tmp_path):
    for choice in (
        Choice(60),
        Choice(60, limits_of({"clean": True, "max_seq_length": 24})),
        Choice(60, limits_of({"clean": True, "max_seq_length": None, "max_seq_length_ratio": None})),
        Choice(200, fraction=0.4, seed=3),
        Choice(60, positions=Positions(20, 19), has_prefix=True),
        Choice(60, marks=(False, True)),
    ):
        made = read_batches("text", odd_text, tokenizers, choice)
        for _ in range(2):  # written, then found
            stored = read_batches("text", odd_text, tokenizers, choice, tmp_path / "store")
            assert everything(stored) == everything(made)
            assert (stored.left_out, stored.longest, stored.pairs) == (made.left_out, made.longest, made.pairs)
            assert [stored.line(n) for n in range(len(stored.sources))] == [
                made.line(n) for n in range(len(made.sources))
            ]


def _write(path: Path, array) -> None:
    np.save(path, array, allow_pickle=True)


def _change(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _backwards(starts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], starts[-2:0:-1], starts[-1:]])


def _become_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = {
    "a pair beyond": lambda place, arrays: _write(place / "order.npy", arrays["order"] + np.uint32(1)),
    "another type": lambda place, arrays: _write(place / "order.npy", arrays["order"].astype(np.int64)),
    "a pickle": lambda place, arrays: _write(place / "order.npy", np.array([print] * len(arrays["order"]))),
    "batches backwards": lambda place, arrays: _write(
        place / "starts.npy", np.append(arrays["starts"][-2::-1], arrays["starts"][-1])
    ),
    "an end too far": lambda place, arrays: _write(place / "starts.npy", arrays["starts"] * 2),
    "a line beyond": lambda place, arrays: _write(place / "kept.npy", arrays["kept"] + np.uint32(3)),
    "lines backwards": lambda place, arrays: _write(place / "kept.npy", arrays["kept"][::-1]),
    "a FIFO": lambda place, _: _become_fifo(place / "starts.npy"),
    "an empty file": lambda place, _: (place / "starts.npy").write_bytes(b""),
    "no list of arrays": lambda place, _: _change(place / "layout.json", arrays=["order"]),
    "no array": lambda place, _: _change(place / "layout.json", arrays={}),
    "no counts": lambda place, _: _change(place / "layout.json", left_out=3),
    "other counts": lambda place, _: _change(place / "layout.json", left_out={}),
    "another request": lambda place, _: _change(place / "layout.json", request={}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_batches_are_not_read(odd_text, tokenizers, tmp_path, damage):
    """Else another text would be trained on, without a word."""
    arguments = "text", odd_text[:1], tokenizers, Choice(60), tmp_path / "store"
    read_batches(*arguments)
    [layout] = (tmp_path / "store").glob("batches/*/layout.json")
    arrays = {path.stem: np.load(path) for path in layout.parent.glob("*.npy")}
    assert arrays.keys() == {"order", "starts", "kept"}
    DAMAGES[damage](layout.parent, arrays)
    with time_limit(20), pytest.raises(InputError, match=r"batches/\w+' is damaged .*; remove it"):
        read_batches(*arguments)


def test_what_is_left_out_is_counted(odd_text, tokenizers, store):
    choice = Choice(60, limits_of({"clean": True, "max_seq_length": 24}), Positions(source=18), fraction=0.5)
    batches = read_batches("text", odd_text, tokenizers, choice, store)
    lengths = [[len(ids) for ids in side] for side in (batches.sources, batches.targets)]
    assert batches.left_out.keys() == set(COUNTED)
    assert sum(batches.left_out.values()) + len(batches.sources) == batches.pairs
    assert batches.left_out["an empty side"] == 2
    assert batches.left_out["by fraction"] == (batches.pairs - 2) // 2
    assert max(lengths[0]) <= 18
    assert max(lengths[1]) <= 24
    assert batches.longest == tuple(map(max, lengths))


def test_a_fraction_is_of_all_pairs_with_text(tokenizers, store, tmp_path):
    """Those of which the tokenizer makes nothing, as YouTokenToMe of a lone `▁`, are chosen from too."""
    for name in ("source", "target"):
        (tmp_path / name).write_text("".join("▁\n" if n % 5 == 0 else f"die Lampe {n}\n" for n in range(20)))
    batches = read_batches(
        "text", [(str(tmp_path / "source"), str(tmp_path / "target"))], tokenizers, Choice(60, fraction=0.5), store
    )
    assert batches.left_out["by fraction"] == 10


def test_lines_are_counted_through_all_files(odd_text, tokenizers, store):
    batches = read_batches("text", odd_text, tokenizers, Choice(60), store)
    texts = [line for source, _ in odd_text for line in Path(source).read_text().splitlines()]
    for number in (0, 1, 2, len(batches.sources) - 1):
        ids = batches.sources[number].tolist()
        assert tokenizers[0].ids_to_text(ids[1:-1]) == texts[batches.line(number) - 1]
    with pytest.raises(IndexError):
        batches.sources[len(batches.sources)]


def test_files_that_do_not_belong_together(tiny_corpus, tokenizers, store):
    paths = [(str(tiny_corpus / "train.de"), str(tiny_corpus / "test.en"))]
    with pytest.raises(InputError, match=r"train.de' has \d+ lines but '.*test.en' has \d+; line N of one"):
        read_batches("text", paths, tokenizers, Choice(60), store)


def test_no_pair_is_left(odd_text, tokenizers, store):
    with pytest.raises(InputError, match="the text: no sentence pair is left of"):
        read_batches("the text", odd_text, tokenizers, Choice(60, positions=Positions(2, 2)), store)


def test_a_file_that_has_changed(odd_text, tokenizers, store):
    with pytest.raises(InputError, match="has changed while it was in use"):
        read_batches("text", odd_text[:1], tokenizers, Choice(60), store, [("0" * 64, "0" * 64)])


@pytest.mark.parametrize("seed", range(8))
def test_lengths_are_cleaned_as_nemo_does(seed):
    generator = np.random.default_rng(seed)
    source, target = generator.integers(2, 40, (2, 300))
    limits = {
        **LIMITS,
        "max_seq_length": 30,
        "min_seq_length": 4,
        "max_seq_length_diff": 15,
        "max_seq_length_ratio": 3,
    }
    names = {"max_seq_length": "max_tokens", "min_seq_length": "min_tokens"}
    names |= {"max_seq_length_diff": "max_tokens_diff", "max_seq_length_ratio": "max_tokens_ratio"}
    for left_out in (None, *limits):  # a limit that is null
        given = {name: None if name == left_out else value for name, value in limits.items()}
        sides = [[np.full(length, place) for place, length in enumerate(side)] for side in (source, target)]
        kept, _ = TranslationDataset("", "").clean_src_and_target(
            *sides, **{names[name]: value for name, value in given.items()}
        )
        ours = fits(source, target, limits_of({"clean": True, **given}))
        assert np.flatnonzero(ours).tolist() == [int(ids[0]) for ids in kept]


def test_a_fraction_is_exact_seeded_and_in_order():
    chosen = choose_fraction(LINES, 0.05, seed=1).tolist()
    assert len(chosen) == 50
    assert chosen == sorted(chosen) == choose_fraction(LINES, 0.05, seed=1).tolist()
    assert chosen != choose_fraction(LINES, 0.05, seed=2).tolist()
    assert set(chosen) < set(choose_fraction(LINES, 0.1, seed=1))
    assert max(chosen) > 800  # from everywhere, not from the start
    assert min(chosen) < 200


def test_the_same_lines_in_another_order_give_the_same_choice():
    backwards = LINES[::-1]
    chosen = {LINES[place] for place in choose_fraction(LINES, 0.1, seed=5)}
    assert {backwards[place] for place in choose_fraction(backwards, 0.1, seed=5)} == chosen


def test_fractions_at_the_ends():
    assert choose_fraction(LINES, 1.0, seed=1).tolist() == list(range(1000))
    assert len(choose_fraction(LINES[:10], 0.01, seed=1)) == 1
    assert choose_fraction([], 0.5, seed=1).tolist() == []
    assert len(choose_fraction(["same"] * 100, 0.3, seed=1)) == 30


def test_all_targets_of_a_source_are_chosen_together():
    generator = np.random.default_rng(2)
    repeated = [line for line in LINES for _ in range(generator.integers(1, 5))]
    chosen = choose_fraction(repeated, 0.05, seed=1, together=True)
    sources = {repeated[place] for place in chosen}
    assert sources == {LINES[place] for place in choose_fraction(LINES, 0.05, seed=1)}
    assert chosen.tolist() == [place for place, line in enumerate(repeated) if line in sources]
    assert len({repeated[place] for place in choose_fraction(repeated, 0.05, seed=1)}) > 100  # what `together` changes


def test_the_targets_of_a_source_are_spread_over_batches(tokenizers, store, tmp_path):
    """They are as long as each other, mostly, and would be in one batch."""
    (tmp_path / "source").write_text("".join(f"die Lampe im Garten {number:02d}\n" * 4 for number in range(60)))
    (tmp_path / "target").write_text("the lamp in the garden\n" * 240)
    paths = [(str(tmp_path / "source"), str(tmp_path / "target"))]

    def shared(choice: Choice) -> float:
        """Return how many of a batch have a source that another of the batch has."""
        batches = read_batches("text", paths, tokenizers, choice, store)
        numbers = [batches.rows(each)[2] for each in range(len(batches))]
        sources = [[(batches.line(number) - 1) // 4 for number in batch] for batch in numbers]
        assert sorted(itertools.chain.from_iterable(sources)) == sorted(list(range(60)) * 4)
        return sum(sum(batch.count(one) > 1 for one in batch) for batch in sources) / 240

    together, apart = shared(Choice(400)), shared(Choice(400, several=True))
    assert together > 0.9
    assert apart < 0.6
    assert apart == shared(Choice(400, several=True))


def test_the_choice_is_what_it_was():
    """A run that was begun with an earlier version goes on with the same sentences."""
    keys = ["b", "a", "b", "c", "a", "b", "d", "e"]
    seen: dict[str, int] = {}
    ranks = []
    for place, key in enumerate(keys):
        seen[key] = seen.get(key, 0) + 1
        ranks.append((hashlib.blake2b(f"7 {seen[key]} {key}".encode(), digest_size=8).digest(), place))
    assert choose_fraction(keys, 0.5, seed=7).tolist() == sorted(place for _, place in sorted(ranks)[:4])


@pytest.mark.parametrize("length", range(14))
def test_ascending_across_the_parts_that_are_looked_at(length, monkeypatch):
    monkeypatch.setattr(pairs, "_CHUNK", 4)
    numbers = np.arange(length, dtype=np.uint32)
    assert pairs.is_ascending(numbers)
    for place in range(1, length):
        assert not pairs.is_ascending(np.where(numbers < place, numbers, numbers - 1))
