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
"""Raw text processed as NeMo does it: the same bytes from one process and from several, over and over."""

import importlib.util
import os
import re

import pytest
from nemo.collections.common.tokenizers.chinese_tokenizers import ChineseProcessor
from nemo.collections.common.tokenizers.moses_tokenizers import MosesProcessor

from nemo_distill import cli
from nemo_distill.data import processing as module
from nemo_distill.data.processing import RawFile, process_files, process_lines
from nemo_distill.data.processors import Processing
from nemo_distill.errors import InputError, StorageError
from nemo_distill.support.incoming import read_json

GERMAN = ['Er sagte: "Ja, z.B. am 3. Mai, für 1,50 €."', "", " Zwei  Leerzeichen ", "a\u2028b\u0085c", "don't & <b>"]


@pytest.fixture
def raw(tmp_path):
    """Two aligned files, 24 of one chunk of lines and one more, with a byte-order mark and carriage returns."""
    german, chinese = tmp_path / "train.de", tmp_path / "train.zh"
    german.write_bytes(b"\xef\xbb\xbf" + "".join(f"{line}\r\n" for line in GERMAN * 101).encode())
    chinese.write_text("我来到北京，清华大學。Hello, world.\n" * 505, "utf-8")
    return [RawFile(str(german), "train.de", "source"), RawFile(str(chinese), "train.zh", "target")]


def test_files_are_what_nemo_makes_of_their_lines_whatever_the_processes(raw, tmp_path, monkeypatch):
    """And the answer is there the second time; another request is refused."""
    languages = Processing("de", "zh")
    monkeypatch.setattr(module, "_BYTES_A_PROCESS", 5000)
    manifest, was_there = process_files(raw, languages, tmp_path / "three", jobs=3)
    assert not was_there
    process_files(raw, languages, tmp_path / "one", jobs=1)
    moses, chinese = MosesProcessor("de"), ChineseProcessor()
    wanted = [moses.tokenize(moses.normalize(line)) for line in GERMAN] * 101
    assert (tmp_path / "one/train.de").read_text("utf-8").split("\n") == [*wanted, ""]
    assert wanted[0] == 'Er sagte : " Ja , z.B. am 3. Mai , für 1,50 € . "'
    line = chinese.tokenize(chinese.normalize("我来到北京，清华大學。Hello, world."))
    assert (tmp_path / "one/train.zh").read_text("utf-8") == f"{line}\n" * 505
    for name in ("train.de", "train.zh"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()
    assert manifest["processors"] == {"source": "MosesProcessor de", "target": "ChineseProcessor zh"}
    assert set(manifest["releases"]) == {"sacremoses", "jieba", "opencc"}
    assert manifest["lines"] == {"train.de": 505, "train.zh": 505}
    assert process_files(raw, languages, tmp_path / "one") == (read_json(tmp_path / "one/manifest.json"), True)
    with pytest.raises(InputError, match=r"made with languages.source 'de' \(now 'fr'\)"):
        process_files(raw, Processing("fr", "zh"), tmp_path / "one")
    with pytest.raises(InputError, match="is an input, and would be replaced"):
        process_files(raw, languages, tmp_path)


@pytest.mark.parametrize(
    ("languages", "kinds"),
    [
        (("de", "en"), ("MosesProcessor de", "MosesProcessor en")),
        (("en", "ja"), ("EnJaProcessor en", "EnJaProcessor ja")),
        (("hi", "ignore"), (None, None)),
        ((None, None), (None, None)),
        (("ja", "de"), (None, "MosesProcessor de")),
    ],
)
def test_processors_are_those_that_nemo_chooses(languages, kinds):
    assert tuple(Processing(*languages).kinds.values()) == kinds
    assert Processing(*languages, ("byte-level", "byte-level")).changes_text is False


@pytest.mark.skipif(importlib.util.find_spec("MeCab") is not None, reason="MeCab is installed")
def test_a_processor_that_cannot_be_had():
    with pytest.raises(InputError, match="NeMo cannot process text for the languages ja-mecab and en: .*MeCab"):
        Processing("ja-mecab", "en").process("source", "x")


class _Odd(Processing):
    """Ends its process, or fails, at some lines."""

    def process(self, side, line):
        if line == "kill":
            os._exit(9)
        return line[int(line)]


def test_a_worker_that_fails_or_is_killed_is_one_error():
    lines = ["0", "1", "0"]
    with pytest.raises(InputError, match=r"'x.de', line 2: MosesProcessor de cannot process it \(string index"):
        list(process_lines(lines, _Odd("de", "en"), "source", "x.de", jobs=2))
    with pytest.raises(
        StorageError, match="'x.de': a process that works on it was killed, perhaps for want of memory; run the same"
    ):
        list(process_lines(["kill"], _Odd("de", "en"), "source", "x.de", jobs=2))


def test_the_verb(tiny_corpus, tiny_teacher_path, tmp_path, capsys):
    languages = ["--source-lang", "de", "--target-lang", "en"]
    arguments = ["preprocess", "--corpus", str(tiny_corpus), *languages, "--output-dir", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "4 files, 360 lines (source MosesProcessor de, target MosesProcessor en; written)" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "train.de", "train.en", "valid.de", "valid.en", "manifest.json",
    }  # fmt: skip
    assert cli.main(arguments) == 0
    assert "already there, hashes verified" in capsys.readouterr().out
    files = ["--source", str(tiny_corpus / "train.de"), "--target", str(tiny_corpus / "train.en")]
    teacher = ["preprocess", *files, "--teacher", str(tiny_teacher_path), "--output-dir", str(tmp_path / "by_teacher")]
    assert cli.main(teacher) == 0
    assert (tmp_path / "by_teacher/train.de").read_bytes() == (tmp_path / "out/train.de").read_bytes()


def test_a_file_whose_name_is_not_utf8(tmp_path):
    path = tmp_path / "caf\udce9.de"
    path.write_text("Das ist ein Satz.\n")
    manifest, _ = process_files([RawFile(str(path), "train.de", "source")], Processing("de", "en"), tmp_path / "out")
    assert manifest["input_names"] == {"train.de": "caf .de"}


@pytest.mark.parametrize("name", ["コーパス\u3000一.de", "a\u00a0b.de"])
def test_files_are_called_as_people_call_files(name, tmp_path, capsys):
    (tmp_path / name).write_text("Das ist ein Satz.\n")
    arguments = [
        "preprocess",
        "--source",
        str(tmp_path / name),
        "--source-lang",
        "de",
        "--output-dir",
        f"{tmp_path}/out",
    ]
    for state in ("written", "already there, hashes verified"):
        assert cli.main(arguments) == 0
        assert state in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corpus", "{text}", "--source-lang", "de"], r"has no file train.CODE; give its files with --target"),
        (["--source", "{text}/train.de"], "no languages; give --source-lang and --target-lang, or --teacher"),
        (["--source", "{text}/train.de", "--source-lang", "ignore"], "is read as it is: there is nothing to process"),
        (["--source", "{text}/train.de", "--source-lang", "no language"], "--source-lang: got 'no language'"),
        (["--source", "{text}/tokenized.de", "--source-lang", "de"], "looks tokenized already .*--as-raw"),
        (
            ["--source", "{text}/train.de", "--target", "{text}/valid.en", "--source-lang", "de"],
            "has 160 lines but .*20",
        ),
        (["--source", "{text}/train.de", "{text}/train.de", "--source-lang", "de"], "two files are called train.de"),
        (["--source", "{text}/train.de", "--source-lang", "de", "--jobs", "0"], "--jobs: got 0; give at least 1"),
        (
            ["--source", "{text}/caf\udce9.de", "--source-lang", "de"],
            r"'caf.udce9.de' cannot be the name of an output",
        ),
        (["--source-lang", "de"], "got 0 files in --source and 0 in --target"),
    ],
)
def test_bad_input_of_the_verb(arguments, message, tiny_corpus, tmp_path, capsys):
    text = tmp_path / "text"
    text.mkdir()
    for path in tiny_corpus.iterdir():
        (text / path.name).write_bytes(path.read_bytes())
    (text / "caf\udce9.de").write_text("Ja, gut.\n")
    (text / "tokenized.de").write_text("Ja , gut .\n" * 20)
    out = tmp_path / "out"
    assert cli.main(["preprocess", *(each.format(text=text) for each in arguments), "--output-dir", str(out)]) == 2
    errors = capsys.readouterr().err
    assert re.search(message, errors), errors
    assert len(errors.strip().splitlines()) == 1
    assert not out.exists()
