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
"""The law of pseudo-labels, for teachers of each kind: what training reads has the score that nbest.jsonl gives it."""

import functools
import importlib.util
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import law
import pytest
from conftest import train_in_place
from slow_cases import quick

from nemo_distill import cli
from nemo_distill.archives.restore import restore_model
from nemo_distill.config.mixture import ComponentConfig, MixtureConfig
from nemo_distill.data.checks import check_model_files
from nemo_distill.decoding.engine import MARKS
from nemo_distill.errors import InputError
from nemo_distill.labels import checks
from nemo_distill.labels.nbest import read_nbest
from nemo_distill.support import compat, files, text_files
from nemo_distill.training.inputs import input_hashes

GERMAN = ["Die Lampe, die {0} war, ist {1}.", "Der Motor läuft ({0}): {1}!", "Wer hat „{0}“ gesagt, {1}?"]
ENGLISH = ["The lamp, which was {0}, is {1}.", "The motor runs ({0}): {1}!", 'Who said "{0}", {1}?']
CHINESE = ["这盏灯以前是{0}的，现在是{1}的。", "马达在运转（{0}）：{1}！", "谁说了“{0}”，{1}？"]
WORDS = {
    "de": ["offen", "kaputt", "neu", "alt", "schön", "heute nicht da", "im Keller", "Dr. Ühl's Hut"],
    "en": ["open", "broken", "new", "old", "fine", "not here today", "in the basement", "Dr. Uhl's hat"],
    "zh": ["打开", "损坏", "新", "旧", "漂亮", "今天不在", "地下室", "乌尔博士的帽子"],
}
TEMPLATES = {"de": GERMAN, "en": ENGLISH, "zh": CHINESE}
HAS_CHINESE = all(map(importlib.util.find_spec, ("jieba", "opencc", "pangu")))


def sentences(language: str) -> list[str]:
    """Return 168 sentences of punctuation, quotes and abbreviations, line n of one language for line n of another."""
    pairs = itertools.permutations(WORDS[language], 2)
    return [template.format(*pair) for pair in pairs for template in TEMPLATES[language]]


@pytest.fixture(scope="module")
def make_tokenizer(train_tokenizer, tmp_path_factory) -> Callable:
    """A function that trains one vocabulary for texts, without the letters ü and x: they are unknown."""
    from nemo_distill.data import tokenizer

    @functools.cache
    def make(texts: tuple[str, ...], library: str, pieces: int) -> Path:
        directory = tmp_path_factory.mktemp("tokenizer")
        files.write_lines_atomic(directory / "text", [text.replace("ü", "").replace("x", "") for text in texts])
        if library == compat.DEFAULT_TOKENIZER_LIBRARY:
            return train_tokenizer([directory / "text"], pieces)
        tokenizer.train([directory / "text"], pieces, directory / "out", library=library)
        return directory / "out" / tokenizer.MODEL

    return make


@pytest.fixture(scope="module")
def make_teacher(tiny_model_config, make_tokenizer, tmp_path_factory) -> Callable:
    """A function that trains a small teacher on processed text, and not for long: `make_teacher("de", "en")`."""
    import torch
    from nemo.collections.nlp.models import MTEncDecModel

    @functools.cache
    def make(*languages: str, named: bool = True, library: str = compat.DEFAULT_TOKENIZER_LIBRARY, seed: int = 0):
        directory = tmp_path_factory.mktemp("teacher")
        codes = [language if named else "ignore" for language in languages]
        processors = MTEncDecModel.setup_pre_and_post_processing_utils(*codes, library, library)
        paths, lines = [], []
        for side, (language, processor) in enumerate(zip(languages, processors, strict=True)):
            texts = sentences(language)
            if processor is not None:
                texts = [processor.tokenize(processor.normalize(text)) for text in texts]
            paths.append(str(directory / f"train.{side}"))
            files.write_lines_atomic(paths[-1], texts)
            lines += texts
        torch.manual_seed(seed)
        config = tiny_model_config(num_layers=1, data=True, src_language=codes[0], tgt_language=codes[1])
        for side in ("encoder", "decoder"):
            config[side].max_sequence_length = 64 if library != "byte-level" else 256
            model = (
                None
                if library == "byte-level"
                else str(make_tokenizer(tuple(lines), library, 100 if "zh" in languages else 260))
            )
            config[f"{side}_tokenizer"].update(library=library, tokenizer_model=model)
        for name in ("train_ds", "validation_ds"):
            config[name].update(src_file_name=paths[0], tgt_file_name=paths[1])
        teacher = MTEncDecModel(config)
        train_in_place(teacher, steps=40, learning_rate=5e-3)
        teacher.save_to(str(directory / "teacher.nemo"))
        return directory / "teacher.nemo"

    return make


def label(teachers: list[Path], language: str, directory: Path, *options: str) -> dict:
    """Label 120 sentences through the command line; return the manifest."""
    source = directory / "input.txt"
    files.write_lines_atomic(source, sentences(language)[:120])
    words = ["--teacher", *map(str, teachers), "--input", str(source), "--output-dir", str(directory / "labels")]
    filters = ("--max-length-ratio", "--max-repeats", "--max-repeated")
    words += [
        *itertools.chain.from_iterable((name, "off") for name in filters),
        "--device",
        "cpu",
        "--keep-cut",
        "--keep-unknown",
    ]
    assert cli.main(["pseudo-label", *words, "--shard-lines", "60", *options]) == 0
    return json.loads((directory / "labels/manifest.json").read_text("utf-8"))


def check_law(directory: Path, teachers: list[Path]) -> None:
    """Make sure that labels keep the law: those that were chosen through both readers, all others by their text."""
    models = [restore_model(path) for path in teachers]
    for values in law.differences(directory, models).values():
        assert len(values) > 60
        assert law.within(values) >= 0.99
    pairs = [(row, one) for row in read_nbest(directory / "nbest.jsonl") if not row.cut for one in row.hypotheses]
    ids = [
        [[tokenizer.bos_id, *tokenizer.text_to_ids(text), tokenizer.eos_id] for text in texts]
        for tokenizer, texts in (
            (
                models[0].encoder_tokenizer,
                [row.source if row.processed is None else row.processed for row, _ in pairs],
            ),
            (models[0].decoder_tokenizer, [one.trained_text for _, one in pairs]),
        )
    ]
    assert [one.length for _, one in pairs] == [len(row) - 1 for row in ids[1]]
    scores = law.forced_scores(models, *ids)
    assert [one.score for _, one in pairs] == pytest.approx(scores, abs=1e-3)


LIBRARIES = [library for library in ("yttm", "sentencepiece") if library in compat.TOKENIZER_LIBRARIES]
NBEST = ["--num-hypotheses", "3"]
SAMPLES = ["--search", "top_k", "--top-k", "60", "--temperature", "3", *NBEST]
HOT_SAMPLES = [*SAMPLES, "--temperature", "6"]


def check(teachers: list[Path], language: str, directory: Path, *several: list[str]) -> set[str]:
    """Label with each list of options, make sure of the law, return the marks that were found."""
    marks = set()
    for number, options in enumerate(several):
        (directory / str(number)).mkdir()
        marks |= label(teachers, language, directory / str(number), *options)["read_back"].keys()
        check_law(directory / str(number) / "labels", teachers)
    return marks


@pytest.mark.parametrize("library", quick(LIBRARIES, LIBRARIES[0]))
def test_moses_text(make_teacher, tmp_path, library):
    teacher = make_teacher("de", "en", library=library)
    marks = check([teacher], "de", tmp_path, ["--engine", "ctranslate2", *NBEST], ["--engine", "nemo", *SAMPLES])
    assert marks >= {"unknown pieces", "other segmentation"}


def test_raw_text(make_teacher, tmp_path):
    """Spelled otherwise, unknown, and cut."""
    teacher = make_teacher("de", "en", named=False)
    cut = ["--search", "greedy", "--max-length-delta", "0", "--engine", "nemo"]
    marks = check([teacher], "de", tmp_path, ["--engine", "ctranslate2", *SAMPLES], cut)
    assert marks >= {"unknown pieces", "other segmentation", "no end token"}
    assert not (tmp_path / "0/labels/source.tok.txt").exists()


@pytest.mark.skipif(not HAS_CHINESE, reason="needs jieba, opencc and pangu")
def test_chinese_text(make_teacher, tmp_path):
    """Jieba on both sides."""
    check([make_teacher("zh", "zh")], "zh", tmp_path, ["--keep-copies", *NBEST])
    processed, raw = (text_files.read_lines(tmp_path / "0/labels" / name) for name in ("source.tok.txt", "source.txt"))
    assert processed[0].split(" ")[:3] == ["这", "盏灯", "以前"]
    assert raw == sentences("zh")[:120]


@pytest.mark.skipif("yttm" not in LIBRARIES, reason="bytes have no start token in NeMo 2")
def test_bytes(make_teacher, tmp_path):
    """Decoded by NeMo's modules; what they write need not be UTF-8."""
    options = ["--search", "greedy", "--max-length-delta", "5"]
    assert check([make_teacher("de", "en", library="byte-level")], "de", tmp_path, options)


def test_an_ensemble(make_teacher, tmp_path):
    teachers = [make_teacher("de", "en"), make_teacher("de", "en", seed=1)]
    check(teachers, "de", tmp_path, NBEST)


def test_processed_input_and_choosing_again(make_teacher, tmp_path, capsys):
    """A corpus as NeMo trains on it is not processed twice; `--round-trip` drops what training reads as other text."""
    teacher, labels = make_teacher("de", "en"), tmp_path / "labels"
    manifest = label([teacher], "de", tmp_path, *HOT_SAMPLES, "--engine", "nemo")
    assert manifest["languages"] == {"source": "de", "target": "en"}
    text = {name: text_files.read_lines(labels / name) for name in checks.file_names(True)}
    assert text["source.txt"] == sentences("de")[:120]
    assert text["source.tok.txt"][0] == "Die Lampe , die offen war , ist kaputt ."
    assert all(one.mark is None or one.mark in MARKS for one in law.kept_hypotheses(labels))

    options = ["--processed", "--source-lang", "de", "--target-lang", "en", "--shard-lines", "60", "--keep-copies"]
    options += ["--max-length-ratio", "off", "--max-repeats", "off", "--max-repeated", "off", "--device", "cpu"]
    options += ["--keep-cut", "--keep-unknown"]
    words = ["--teacher", str(teacher), "--input", str(labels / "source.tok.txt"), *options, *HOT_SAMPLES]
    again = ["pseudo-label", *words, "--engine", "nemo", "--output-dir", str(tmp_path / "again")]
    assert cli.main(again) == 0
    assert cli.main(again) == 0
    assert "already there" in capsys.readouterr().out
    request = json.loads((tmp_path / "again/manifest.json").read_text("utf-8"))["request"]
    assert (request["processed"], request["languages"]) == (True, {"source": "de", "target": "en"})
    assert text_files.read_lines(tmp_path / "again/source.tok.txt") == text["source.tok.txt"]
    assert text_files.read_lines(tmp_path / "again/source.txt")[0] == text["source.txt"][0]

    rows = list(read_nbest(labels / "nbest.jsonl"))
    unmarked = [next((one for one in row.hypotheses if one.mark is None and one.text.strip()), None) for row in rows]
    hopeless, marked = unmarked.count(None), sum(one.mark is not None for one in law.kept_hypotheses(labels))
    words = ["--max-length-ratio", "off", "--max-repeats", "off", "--max-repeated", "off", "--round-trip"]
    words += ["--keep-cut", "--keep-unknown"]
    assert cli.main(["select", "--nbest", str(labels), "--output-dir", str(tmp_path / "chosen"), *words]) == 0
    chosen = json.loads((tmp_path / "chosen/manifest.json").read_text("utf-8"))
    assert 0 < chosen["counts"]["dropped"]["read as other tokens"] == hopeless < marked
    assert chosen["files"].keys() == set(checks.file_names(True, "dropped.tsv"))
    assert sum(chosen["read_back"].values()) == chosen["counts"]["dropped"]["read as other tokens"]
    assert chosen["languages"] == manifest["languages"]
    assert kept(tmp_path / "chosen", labels) == [one for one in unmarked if one is not None]


def kept(directory: Path, labels: Path) -> list:
    """Return the chosen hypotheses of a directory of `select`."""
    (directory / "nbest.jsonl").write_bytes((labels / "nbest.jsonl").read_bytes())
    return law.kept_hypotheses(directory)


def test_labels_of_earlier_releases(make_teacher, tmp_path, capsys, caplog):
    """Finished ones without processed text are refused where the teacher processes text; n-best lists still read."""
    teacher, path = make_teacher("de", "en"), tmp_path / "labels/manifest.json"
    label([teacher], "de", tmp_path)
    manifest = json.loads(path.read_text("utf-8"))
    for name in ("source.tok.txt", "hypotheses.tok.txt"):
        (path.parent / name).unlink()
        del manifest["files"][name]
    for key in ("languages", "read_back"):
        del manifest[key]
    rows = [json.loads(line) for line in text_files.read_lines(path.parent / "nbest.jsonl")]
    for row in rows:
        for record in (row, *row["hypotheses"]):
            record.pop("processed", None)
            record.pop("mark", None)
    files.write_lines_atomic(path.parent / "nbest.jsonl", map(json.dumps, rows))
    manifest["files"]["nbest.jsonl"]["sha256"] = files.sha256(path.parent / "nbest.jsonl")
    path.write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(AssertionError):
        label([teacher], "de", tmp_path)
    assert "of an earlier release: they lack the text as training reads it" in capsys.readouterr().err
    assert cli.main(["select", "--nbest", str(path.parent), "--output-dir", str(tmp_path / "chosen")]) == 0
    assert "of an earlier release" in caplog.text
    assert not (tmp_path / "chosen/source.tok.txt").exists()


def test_what_trains_on_labels_reads_the_processed_text(make_teacher, tmp_path):
    """Mixture, checks before training, the note of a run's inputs, and `cache --labels`."""
    label([make_teacher("de", "en")], "de", tmp_path)
    labels = tmp_path / "labels"
    component = ComponentConfig(directory=str(labels))
    assert component.text_files == [(str(labels / "source.tok.txt"), str(labels / "hypotheses.tok.txt"))]
    mixture = MixtureConfig(components={"pseudo": component}, probabilities={"pseudo": 1.0})
    check_model_files({}, mixture)
    section = {"distillation": {"mixture": {"components": {"pseudo": {"directory": str(labels)}}}}}
    hashes = [files.sha256(labels / name) for name in ("source.tok.txt", "hypotheses.tok.txt")]
    assert input_hashes(section)["distillation.mixture.components.pseudo.directory"] == hashes
    out = tmp_path / "cache"
    words = ["--labels", str(labels), "--output-dir", str(out), "--device", "cpu"]
    assert cli.main(["cache", "--teacher", str(make_teacher("de", "en")), *words]) == 0
    assert hashes[0] in (out / "manifest.json").read_text("utf-8")
    (labels / "source.tok.txt").unlink()  # the raw text does not take its place
    with pytest.raises(InputError, match="does not hold source.tok.txt and hypotheses.tok.txt"):
        check_model_files({}, mixture)
