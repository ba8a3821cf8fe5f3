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
"""The program that lies in every export: plain Python, the same for all models."""

import ast
import importlib.resources
import io
import os
import sys
from pathlib import Path

import pytest
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill.archives.values import is_language
from nemo_distill.data.processing import Processing
from nemo_distill.data.text import CONTROL, TextPipeline
from nemo_distill.decoding import exported_program
from nemo_distill.decoding.convertible import TOKENIZERS
from nemo_distill.decoding.exporting import export
from nemo_distill.support import threads


def test_it_is_plain_python():
    text = Path(exported_program.__file__).read_text("utf-8")
    tree = ast.parse(text, feature_version=(3, 8))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    known = {
        "argparse",
        "hashlib",
        "json",
        "os",
        "re",
        "stat",
        "sys",
        "tempfile",
        "ctranslate2",
        "youtokentome",
        "sentencepiece",
        "sacremoses",
        "jieba",
        "opencc",
        "pangu",
        "ipadic",
        "MeCab",
    }
    assert imported == known
    packed = importlib.resources.files("nemo_distill.decoding").joinpath("exported_program.py")
    assert packed.read_text("utf-8") == text


def test_it_agrees_with_the_library():
    assert exported_program.LIBRARIES == TOKENIZERS
    assert exported_program.CONTROL == CONTROL
    for value in ("de", "ja-mecab", "zh_TW", "", "a" * 17, "d\n", 'de"', None, 5, "ä"):
        assert exported_program.is_language(value) == is_language(value), value
    names = {"model.bin": True, "../x": False, "a/b": False, "..": False, "": False, "a\n": False, "C:x": False}
    assert {name: exported_program.is_file_name(name) for name in names} == names


@pytest.mark.parametrize(
    "pair",
    [("de", "fr"), ("fr", "de"), ("zh", "en"), ("en", "zh"), ("en", "ja"), ("ja", "en"), ("en", "hi"), ("hi", "en")],
)
def test_text_is_processed_as_by_the_library(pair):
    processors = [Processing(*pair).processor(side) for side in ("source", "target")]
    text = TextPipeline(None, None, *processors, 9)
    process = exported_program.processing(type(processors[0]).__name__, pair[0])
    detokenize = exported_program.detokenization(type(processors[1]).__name__, pair[1])
    for raw in (
        "Ja, „gut“ – 3,5 % (e.g. Mr. X's); l'ami d'Élodie !",
        "那個男人買了 iPhone 15，“好的”。ABC是吗？",
        "犬がいる。テスト，one。",
        "a &amp; b\u2028c\td @-@ well-known …",
        "\x01",
    ):
        processed = exported_program.LINE_BREAKS.sub(" ", process(raw))
        assert processed == text.process_source(raw)
        for words in (processed, Processing(*pair).process("target", raw)):
            assert detokenize(words.split(" ")) == processors[1].detokenize(words.split(" "))


def test_a_source_without_words(exported):
    assert exported_program.Model(str(exported)).translate("\x01") == ""


def test_from_python(exported):
    model = exported_program.Model(str(exported))
    assert model.translate("Die Lampe ist rot.").endswith(".")
    assert model.translate(" \n") == ""


def test_a_line_of_a_file_with_its_end_is_the_same_text(multilingual_config, tmp_path):
    """Which a SentencePiece model of raw text would read as one unknown token more."""
    raw = {"src_language": None, "tgt_language": None}
    MTEncDecModel(multilingual_config("en-de", **raw)).save_to(str(tmp_path / "raw.nemo"))
    export(tmp_path / "raw.nemo", tmp_path / "export")
    model = exported_program.Model(str(tmp_path / "export"))
    assert model.hypotheses(["a lamp\n"]) == model.hypotheses(["a lamp"])
    assert model._source_pieces("a\nlamp", model.pair()) != model._source_pieces("a lamp", model.pair())


def test_lines_end_at_a_line_feed_alone(exported, monkeypatch):
    written = io.BytesIO()
    text = "\ufeffDie Lampe\u2028ist rot.\r\n\nDie Pumpe\x0bist rot."
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written))
    monkeypatch.setattr(exported_program, "__file__", str(exported / "translate.py"))
    exported_program.main([])
    lines = written.getvalue().decode().split("\n")
    assert len(lines) == 4
    assert [bool(line) for line in lines] == [True, False, True, False]


@pytest.mark.parametrize("number", [0, -1, 121, 100_000])
def test_a_beam_that_cannot_be(exported, number):
    """A beam of more hypotheses than there are tokens took minutes a line."""
    model = exported_program.Model(exported)
    with pytest.raises(exported_program.ExportError, match=f"the beam is {number}; give one from 1 to .* 120 tokens"):
        model.hypotheses(["Die Lampe."], beam_size=number)
    with pytest.raises(exported_program.ExportError, match="batch_tokens is 0; give at least 1"):
        model.hypotheses(["Die Lampe."], batch_tokens=0)
    assert len(model.hypotheses(["Die Lampe."], beam_size=120, n_best=100)[0]) == 100


def test_a_package_that_is_missing(exported, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    monkeypatch.setattr(exported_program, "__file__", str(exported / "translate.py"))
    with pytest.raises(SystemExit, match="translate.py: import of ctranslate2 .*; README.md says what to install"):
        exported_program.main([])


@pytest.mark.parametrize(
    ("given", "small", "expected"),
    [
        *[("", 1 << 30, 1), ("", 0, 3), ("2", 1 << 30, 2), (" +02 ,4", 1 << 30, 2), ("3000", 1 << 30, 3), ("4", 0, 3)],
        *[("abc", 1 << 30, 1), ("abc", 0, 3), ("0", 1 << 30, 1), ("-1", 0, 3)],
    ],
)
def test_a_small_model_gets_one_thread_unless_the_user_says_more(exported, monkeypatch, given, small, expected):
    """Several made each sentence 6 times slower, 3,000 hung; what is no number ended the program."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(exported_program, "SMALL_BYTES", small)
    assert exported_program.Model(exported)._threads() == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 3),
        ({"cpu.max": "max 100000\n"}, 3),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "900000 100000\n"}, 3),
        ({"cpu.max": "what"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    ],
)
def test_a_container_has_the_cores_of_its_quota(monkeypatch, tmp_path, files, expected):
    """With two of 64 cores, 64 batches were decoded side by side."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(exported_program, "CONTROL_GROUP", str(tmp_path))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert exported_program.given_threads() == (None, expected)


def test_small_is_the_same_as_in_the_library():
    assert exported_program.SMALL_BYTES == threads.SMALL_BYTES
