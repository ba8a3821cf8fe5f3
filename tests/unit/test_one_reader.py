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
"""One text, one reader: whatever reads a file, training or decoding, makes the same token ids of it."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.config.mixture import ComponentConfig
from nemo_distill.data import tokenizer
from nemo_distill.data.mixing.components import load_batches
from nemo_distill.data.positions import Positions
from nemo_distill.data.processors import Processing
from nemo_distill.data.text import TextPipeline
from nemo_distill.decoding import exported_program
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.exporting import export
from nemo_distill.decoding.nemo_engine import NeMoEngine
from nemo_distill.decoding.translation import translate
from nemo_distill.labels.leak_check import TestText
from nemo_distill.support.compressed import SUFFIXES, compress
from nemo_distill.support.files import sha256
from nemo_distill.support.text_files import read_lines
from nemo_distill.teachers.cache_pairs import Limits, read_pairs
from nemo_distill.teachers.cache_text import TextPair
from nemo_distill.training.multilingual import languages_of_sets

ODD = [
    "\r",
    "\x85",
    "\u2028",
    "\u2029",
    "\u00a0",
    "\u3000",
    "\0",
    "\f",
    "\v",
    "\t",
    " ",
    "\ufeff",
    "\x1c",
    "\u200b",
    "▁",
]
PIECES = [*ODD, "<s>", "</s>", "<pad>", "<unk>", "<UNK>", "Die Lampe", "ist", ".", "é", "中", "\U0001f600"]
LINES = st.lists(st.lists(st.sampled_from(PIECES), max_size=5).map("".join), min_size=1, max_size=6)
FILES = st.tuples(LINES, LINES, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
QUICK = settings(
    max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
RAW = {"src_language": "ignore", "tgt_language": "ignore"}
LANGUAGES = Processing("ignore", "ignore")


def written(lines: list[str], end: str, marked: bool, ended: bool) -> bytes:
    """Return the bytes of a file; its lines are `lines` by the rule of docs/corpora.md."""
    text = end.join(lines) + (end if ended else "")
    return (b"\xef\xbb\xbf" if marked else b"") + text.encode()


def lines_of(content: bytes) -> list[str]:
    """Return the lines of a file by that rule, written down once more."""
    text = content.decode().removeprefix("\ufeff")
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if not lines[-1] else lines)]


@pytest.fixture(scope="module", params=tokenizer.compat.TOKENIZER_LIBRARIES)
def models(request, tiny_corpus, tiny_model_config, tmp_path_factory):
    """A student and its plain twin of raw text, and what `export` makes of them."""
    directory = tmp_path_factory.mktemp("models")
    texts = [tiny_corpus / "train.de", tiny_corpus / "train.en"]
    tokenizer.train(texts, 90, directory / "tokenizer", library=request.param)
    section = {"library": request.param, "tokenizer_model": str(directory / "tokenizer" / tokenizer.MODEL)}
    sections = {f"{side}_tokenizer": section for side in ("encoder", "decoder")}
    config = tiny_model_config(hidden_size=16, num_layers=1, data=True, **RAW, **sections)
    with languages_of_sets():
        twin = MTEncDecModel(config).eval()
    twin.save_to(str(directory / "twin.nemo"))
    config.distillation = {"objective": {"nll": {"weight": 1}, "word_kd": {"weight": 0}}}
    student = DistilledMTEncDecModel(config).eval()
    export(directory / "twin.nemo", directory / "export")
    return student, twin, directory


def pairs_of(dataset) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the pairs of ids of a data set in the order of their lines, padding and marks left out."""
    found = []
    for number, places in enumerate(dataset.batch_indices):
        source, _, target, _, labels = dataset[number]
        for place, *row in zip(places, source, target, labels, strict=True):
            ids = [[int(each) for each in side if each > 3] for side in (row[0], row[2])]
            found.append((place, tuple(map(tuple, ids))))
    return [pair for _, pair in sorted(found)]


def marked_pairs(sources, targets) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return pairs of ids without the special tokens, as `pairs_of`."""
    return [
        tuple(tuple(int(each) for each in side if each > 3) for side in pair)
        for pair in zip(sources, targets, strict=True)
    ]


@QUICK
@given(text=FILES)
def test_every_path_makes_the_same_ids(models, text):
    student, twin, directory = models
    sources, targets, end, marked, ended = text
    count = min(len(sources), len(targets))
    lines = {"source": ["Die Lampe.", *sources[:count], "x"], "target": ["Ja.", *targets[:count], "y"]}
    paths = {side: directory / side for side in lines}
    for side, each in lines.items():
        paths[side].write_bytes(written(each, end, marked, ended))
    read = {side: lines_of(path.read_bytes()) for side, path in paths.items()}
    if len(read["source"]) != len(read["target"]):  # an item of these holds the end of a line
        return
    encode = student.encoder_tokenizer.text_to_ids
    wanted = marked_pairs(map(encode, read["source"]), map(encode, read["target"]))
    teaching = [
        pair
        for pair, *texts in zip(wanted, read["source"], read["target"], strict=True)
        if all(each.strip() for each in texts) and all(map(encode, texts))
    ]
    names = {"src_file_name": str(paths["source"]), "tgt_file_name": str(paths["target"])}
    config = student.cfg.train_ds.copy()
    config.update(names)
    student.setup_training_data(config)
    assert pairs_of(student._train_ds) == teaching
    student.setup_validation_data(config)
    assert pairs_of(student._validation_ds[0]) == wanted
    with languages_of_sets():
        twin.setup_training_data(config)
        twin.setup_validation_data(config)
    assert pairs_of(twin._train_ds) == teaching
    assert pairs_of(twin._validation_ds[0]) == wanted
    component = ComponentConfig(source=str(paths["source"]), target=str(paths["target"]))
    mixed = load_batches("text", component, config, student.encoder_tokenizer, student.decoder_tokenizer, seed=1)
    assert marked_pairs(mixed.sources, mixed.targets) == teaching
    pair = TextPair(str(paths["source"]), str(paths["target"]), tuple(map(sha256, paths.values())), is_raw=False)
    tokenizers = twin.encoder_tokenizer, twin.decoder_tokenizer
    cached = read_pairs([pair], LANGUAGES, [None], tokenizers, Limits(None, Positions()))
    assert set(teaching) <= set(marked_pairs(*cached.rows(slice(None))))
    encoded = TextPipeline.of_model(twin).encode(read_lines(paths["source"])).ids
    blank = [place for place, line in enumerate(read["source"]) if not (line.strip() and encode(line))]
    assert sorted(encoded) == [place for place in range(len(wanted)) if place not in blank]
    assert all(tuple(each for each in ids if each > 3) == wanted[place][0] for place, ids in encoded.items())
    learnt = tokenizer._read([paths["source"]], [sha256(paths["source"])])
    assert learnt == [line for line in read["source"] if line.strip()]
    leaks = TestText([paths["source"]])
    assert leaks.find("die lampe").line == 1


@pytest.fixture(scope="module")
def engines(models):
    """The two engines, and the exported program."""
    _, twin, directory = models
    program = exported_program.Model(str(directory / "export"))
    return CTranslate2Engine.from_model(twin), NeMoEngine(twin), program, directory


ALONE = [*ODD, "", "▁▁", "▁ ", "<s>", "a<s>b", "<pad>", "Die\x00Lampe", "\u00a0Die Lampe", "Die Lampe\r", "é中"]


def test_engines_and_exported_program_agree(engines, monkeypatch):
    fast, slow, program, directory = engines
    content = ("\ufeff" + "\r\n".join(each.replace("\n", "") for each in ALONE) + "\r\n").encode()
    path = directory / "odd"
    path.write_bytes(content)
    lines = read_lines(path)
    assert len(lines) == len(ALONE)
    output = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(exported_program, "Model", lambda device: program)
    exported_program.main([])
    monkeypatch.undo()
    found = output.buffer.getvalue().decode().split("\n")[:-1]
    assert translate(fast, lines, progress=False).hypotheses == found
    empty = [not line.strip() or not fast.text.source_tokenizer.text_to_ids(line) for line in lines]
    assert [not each for each in found] >= empty
    assert [places for places, is_empty in enumerate(empty) if is_empty] == sorted(fast.sources.empty)
    list(slow.translate(lines))
    assert slow.sources == fast.sources
    for line in lines:
        if line.strip():
            ids = fast.text.source_tokenizer.text_to_ids(line)
            assert program._encode(line) == [fast.text.source_pieces()[each] for each in ids]


def test_clean_text_gives_nemos_batches(models, tiny_corpus):
    """Order, batches and padding are those of the stock class."""
    student, *_ = models
    config = student.cfg.train_ds.copy()
    config.update({"clean": True, "max_seq_length": 20})
    stock = MTEncDecModel._setup_dataset_from_config(
        config, student.encoder_tokenizer, student.decoder_tokenizer, 0, 1, False, None
    )
    student.setup_training_data(config)
    ours = student._train_ds
    assert type(stock) is not type(ours)
    assert 0 < len(ours.text.sources) < 160
    assert len(stock) == len(ours)
    for number in range(len(stock)):
        for one, other in zip(stock[number], ours[number], strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_compressed_text(models, tiny_corpus, tmp_path, suffix):
    if suffix == ".zst":
        pytest.importorskip("backports.zstd")
    student, *_ = models
    config = student.cfg.train_ds.copy()
    student.setup_training_data(config)
    wanted = pairs_of(student._train_ds)
    for key in ("src_file_name", "tgt_file_name"):
        path = tmp_path / f"{key}{suffix}"
        path.write_bytes(compress(Path(config[key]).read_bytes(), suffix))
        config[key] = str(path)
    student.setup_training_data(config)
    assert pairs_of(student._train_ds) == wanted
