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
"""The pairs of a cache and its index: what was made in memory from lists, from a store and by parts on disk."""

import os
import signal
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.data.positions import Positions
from nemo_distill.data.processors import Processing
from nemo_distill.data.tokens import store as token_store
from nemo_distill.data.tokens.text import TokenizedText
from nemo_distill.errors import InputError, StorageError, TeacherError
from nemo_distill.support.compressed import compress
from nemo_distill.support.files import sha256
from nemo_distill.support.incoming import read_json
from nemo_distill.teachers import cache_coverage, cache_index, cache_pairs
from nemo_distill.teachers.cache_arrays import ROW
from nemo_distill.teachers.cache_format import LogitCache, pair_keys
from nemo_distill.teachers.cache_index import NUMBERED, CacheIndex, in_order_of_keys, write_index
from nemo_distill.teachers.cache_pairs import CachePairs, Limits, read_pairs
from nemo_distill.teachers.cache_text import TextPair
from nemo_distill.teachers.cache_writer import CacheSettings, _samples, write_cache


@pytest.fixture
def odd_text(tiny_corpus, tmp_path) -> list[TextPair]:
    """Two pairs of files with copies, empty sides and a long line, within and across the files."""
    pairs, earlier = [], [[], []]
    for number, split in enumerate(("valid", "test")):
        sides = [(tiny_corpus / f"{split}.{side}").read_text().splitlines() for side in ("de", "en")]
        sides[number][1] = " "
        sides[1 - number][4] = " ".join(sides[1 - number][:9])
        for side, before in zip(sides, earlier, strict=True):
            side += [side[2], side[2], side[3], *before[8:10]]
        earlier = sides
        paths = [str(tmp_path / f"{split}.{side}") for side in ("de", "en")]
        for path, side in zip(paths, sides, strict=True):
            with open(path, "w") as stream:
                stream.writelines(f"{line}\n" for line in side)
        pairs.append(TextPair(*paths, tuple(map(sha256, paths)), is_raw=False))
    return pairs


def by_lists(pairs, tokenizers, prefixes, limit) -> tuple[list, dict]:
    """Return what is kept, and why the others are not, as the lines say it one by one."""
    kept, seen, dropped = [], set(), {"empty": 0, "too_long": 0, "copies": 0}
    for pair, prefix in zip(pairs, prefixes, strict=True):
        with open(pair.source) as sources, open(pair.target) as targets:
            for lines in zip(sources, targets, strict=True):
                ids = [
                    [tokenizer.bos_id, *tokenizer.text_to_ids(line.strip()), tokenizer.eos_id]
                    for tokenizer, line in zip(tokenizers, lines, strict=True)
                ]
                found = (prefix, *map(tuple, ids))
                if min(map(len, ids)) <= 2:
                    dropped["empty"] += 1
                elif max(map(len, ids)) > limit:
                    dropped["too_long"] += 1
                elif found in seen:
                    dropped["copies"] += 1
                else:
                    seen.add(found)
                    kept.append(([] if prefix is None else [prefix]) + ids[0] + [-1] + ids[1])
    return kept, dropped


def test_pairs_are_opened_without_a_copy_of_their_numbers():
    """Eight bytes a pair in every process that trains, however short a time."""
    count = 1 << 20
    text = TokenizedText(np.zeros(0, np.uint16), np.zeros(count, np.int64), np.zeros(count, np.int32))
    kept = np.arange(1, count, 2, dtype=np.uint32)
    tracemalloc.start()
    try:
        pairs = CachePairs([(text, text)] * 2, [(2, 3)] * 2, [None] * 2, kept, {})
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert pairs.parts == [slice(0, count // 2), slice(count // 2, count // 2)]
    assert most < 0.1 * count


def test_a_compressed_text_is_large_by_what_is_in_it(tiny_corpus, tiny_teacher_path, tmp_path, monkeypatch):
    for side in ("de", "en"):
        content = (tiny_corpus / f"valid.{side}").read_bytes()
        (tmp_path / f"valid.{side}.gz").write_bytes(compress(content, ".gz"))
    pair = tuple(str(tmp_path / f"valid.{side}.gz") for side in ("de", "en"))
    sizes = [
        sum((place / f"valid.{side}{end}").stat().st_size for side in ("de", "en"))
        for place, end in ((tmp_path, ".gz"), (tiny_corpus, ""))
    ]
    assert sizes[0] < 0.6 * sizes[1]
    for size, is_stored in ((sizes[1], True), (sizes[1] + 1, False)):
        monkeypatch.setattr(token_store, "LARGE_TEXT", size)
        write_cache([str(tiny_teacher_path)], [pair], tmp_path / str(size), CacheSettings(2))
        assert (tmp_path / str(size) / "tokens").exists() == is_stored


@pytest.mark.parametrize("prefixes", [[None, None], [7, None], [7, 8]])
@pytest.mark.parametrize("stored", [False, True])
def test_pairs_are_those_of_the_lines(odd_text, load_tiny_tokenizer, tmp_path, monkeypatch, prefixes, stored):
    monkeypatch.setattr(cache_pairs, "_BLOCK", 8)  # as of a large text
    monkeypatch.setattr(cache_index, "_IN_MEMORY", 5)
    tokenizers = load_tiny_tokenizer(), load_tiny_tokenizer()
    wanted, dropped = by_lists(odd_text, tokenizers, prefixes, 30)
    store = tmp_path / "store" if stored else None
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()  # nothing is written where the command runs
    for _ in range(2):  # made, then found
        found = read_pairs(odd_text, Processing(None, None), prefixes, tokenizers, Limits(30, Positions()), store)
        sources, targets = found.rows(slice(None))
        assert [[*s.tolist(), -1, *t.tolist()] for s, t in zip(sources, targets, strict=True)] == wanted
        assert found.dropped == dropped
        assert min(dropped.values()) >= 2
        assert found.lengths.tolist() == [len(target) - 1 for target in targets]
        assert found.parts[0].stop == found.parts[1].start
        assert found.parts[1].stop == len(found) == len(wanted)
        assert np.array_equal(found.keys([3, 1]), pair_keys([(sources[3], targets[3]), (sources[1], targets[1])]))
    with pytest.raises(InputError, match="no sentence pair is left of"):
        read_pairs(odd_text, Processing(None, None), prefixes, tokenizers, Limits(2, Positions()), store)


def test_lines_of_a_sample_are_those_of_the_text(odd_text, load_tiny_tokenizer):
    """They were counted among the pairs that are kept: where sides are a line apart, another line was named."""
    tokenizers = load_tiny_tokenizer(), load_tiny_tokenizer()
    found = read_pairs(odd_text, Processing(None, None), [None, None], tokenizers, Limits(30, Positions()))
    files = [(pair.source, pair.target) for pair in odd_text]
    numbered = [(f"labels/source-{number:05}.txt", f"labels/hypotheses-{number:05}.txt") for number in (1, 2)]
    texts = [Path(source).read_text().splitlines() for source, _ in files]
    for names, wanted in ((files, texts), (numbered, [texts[0] + texts[1]])):
        for sample, lines in zip(_samples(found, names), wanted, strict=True):
            assert sample.lines != list(range(len(sample.lines)))
            ids = [tokenizers[0].text_to_ids(lines[line]) for line in sample.lines]
            assert ids == [source[1:-1].tolist() for source, _ in sample.pairs]


def test_raw_text_is_processed_once_for_a_store(tmp_path, load_tiny_tokenizer):
    paths = [str(tmp_path / side) for side in ("de", "en")]
    for path in paths:
        with open(path, "w") as stream:
            stream.write("Die Lampe, die.\nDer Druck (neu)!\n\n")
    pair = TextPair(*paths, tuple(map(sha256, paths)), is_raw=True)
    tokenizers, languages = (load_tiny_tokenizer(), load_tiny_tokenizer()), Processing("de", "en")
    found = [
        read_pairs([pair], languages, [None], tokenizers, Limits(None, Positions()), store)
        for store in (None, tmp_path / "store", tmp_path / "store")
    ]
    as_it_is = read_pairs(
        [TextPair(*paths, pair.sha256, is_raw=False)], languages, [None], tokenizers, Limits(None, Positions())
    )
    assert len(as_it_is) == 2
    assert as_it_is.keys([0, 1]).tolist() != found[0].keys([0, 1]).tolist()
    for each in found:
        assert each.keys([0, 1]).tolist() == found[0].keys([0, 1]).tolist()
        assert each.dropped == {"empty": 1, "too_long": 0, "copies": 0}


def rows_of(count: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows = np.empty(count, ROW)
    rows["key"] = generator.integers(0, 1 << 64, (count, 2), dtype=np.uint64)
    rows["key"][1, 0] = rows["key"][0, 0]  # first halves of two keys may be equal
    rows["tokens"] = generator.integers(1, 1000, count)
    rows["start"] = np.cumsum(rows["tokens"]) - rows["tokens"]
    return rows


def test_an_index_finds_each_pair_and_no_other(tmp_path, monkeypatch):
    shards = [rows_of(700, 1), rows_of(300, 2)]
    write_index(tmp_path, iter(shards), 1000)
    contents = [(tmp_path / name).read_bytes() for name in cache_index.INDEX]
    assert sum(map(len, contents)) <= 16 * 1000 + 256
    monkeypatch.setattr(cache_index, "_IN_MEMORY", 100)
    write_index(tmp_path, iter(shards), 1000)
    assert [(tmp_path / name).read_bytes() for name in cache_index.INDEX] == contents
    index = CacheIndex(tmp_path, 1000)
    for rows, before in zip(shards, (0, shards[0]["tokens"].sum()), strict=True):
        places = index.find(rows["key"])
        assert (places >= 0).all()
        starts, tokens = index.spans(places)
        assert np.array_equal(starts, rows["start"] + before)
        assert np.array_equal(tokens, rows["tokens"])
        for half in (0, 1):
            others = rows["key"].copy()
            others[:, half] ^= np.uint64(0x11)
            assert (index.find(others) < 0).all()
    assert index.find(np.array([[0, 0], [(1 << 64) - 1, 5]], np.uint64)).tolist() == [-1, -1]


@pytest.mark.parametrize("in_memory", [1, 10, 1000])
def test_records_come_in_the_order_of_their_keys(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(cache_index, "_IN_MEMORY", in_memory)
    records = np.zeros(200, NUMBERED)
    records["key"] = np.random.default_rng(0).integers(0, 1 << 64, (200, 2), dtype=np.uint64)
    records["key"][100:] = records["key"][:100][::-1]
    records["number"] = np.arange(200)
    found = np.concatenate(list(in_order_of_keys(np.array_split(records, 7), 200, tmp_path)))
    wanted = sorted(records.tolist(), key=lambda each: (tuple(each[0]), each[1]))
    assert [(tuple(key), number) for key, number in found.tolist()] == [(tuple(k), n) for k, n in wanted]
    assert not list(tmp_path.iterdir())


def test_the_text_of_a_store_is_looked_up_once(tiny_corpus, tiny_teacher_path, student_config, tmp_path, monkeypatch):
    text = [(str(tiny_corpus / "train.de"), str(tiny_corpus / "train.en"))]
    write_cache([str(tiny_teacher_path)], text, tmp_path / "cache", token_store=tmp_path / "store")
    assert {path.name for path in (tmp_path / "store").iterdir()} == {"texts", "pairs"}
    config = student_config(**{"train_ds.token_store": str(tmp_path / "store")})
    config.distillation.teacher = {"cache": str(tmp_path / "cache")}
    DistilledMTEncDecModel(config)
    assert len(list((tmp_path / "store/texts").iterdir())) == 2  # of the cache, and of the student
    noted = list((tmp_path / "store/coverage").glob("*/found.json"))
    assert [read_json(path) for path in noted] == [{"pairs": 160, "missed": 0, "first": 0}]
    monkeypatch.setattr(LogitCache, "find", None)
    DistilledMTEncDecModel(config)  # looks nothing up
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file' "):
        write_cache([str(tiny_teacher_path)], text, tmp_path / "more", token_store=tmp_path / "file")
    assert not (tmp_path / "more").exists()
    other = [(str(tiny_corpus / "valid.de"), str(tiny_corpus / "valid.en"))]
    write_cache([str(tiny_teacher_path)], other, tmp_path / "other", CacheSettings(4))
    config.distillation.teacher.cache = str(tmp_path / "other")
    for _ in range(2):  # of another cache nothing is known; what is missed is remembered too
        with pytest.raises(TeacherError, match="160 of 160 sentence pairs are not in '.*other', such as 'D"):
            DistilledMTEncDecModel(config)
        monkeypatch.setattr(cache_coverage, "_look_up", None)


def test_a_killed_worker_of_a_look_up_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_coverage, "_missing", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    monkeypatch.setattr(cache_coverage, "_BLOCK", 8)
    text = SimpleNamespace(text=SimpleNamespace(sources=range(20)))
    with pytest.raises(StorageError, match="was killed, perhaps for want of memory; run the same command again"):
        cache_coverage._look_up(SimpleNamespace(directory=tmp_path), text, None, 2)
