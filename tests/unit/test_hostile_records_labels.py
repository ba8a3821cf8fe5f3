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
"""What lies on the disk of pseudo-labels is checked before it is believed, and text from outside forges no line."""

import contextlib
import gzip
import json
import os
from pathlib import Path

import pytest

from nemo_distill import cli
from nemo_distill.config.mixture import ComponentConfig, MixtureConfig
from nemo_distill.data.checks import check_model_files
from nemo_distill.decoding.engine import Hypothesis, SearchSettings
from nemo_distill.errors import InputError
from nemo_distill.labels import checks
from nemo_distill.labels.labelling import label
from nemo_distill.labels.leak_check import check_leaks
from nemo_distill.labels.nbest import read_nbest, table_cell
from nemo_distill.labels.selection import select
from nemo_distill.support import files, text_files

OPTIONS = {"teacher": {"teachers": ["words"]}, "shard_lines": 2, "progress": False}
GOOD = {"line": 1, "source": "eins", "hypotheses": [{"text": "one", "score": -1.5, "length": 2}]}


@pytest.fixture
def labels(word_engine, tmp_path) -> Path:
    """A finished directory of labels."""
    (tmp_path / "input.de").write_text("eine kurze Zeile\n\nHallo {name} da\nnoch eine lange Zeile\n")
    label(word_engine, tmp_path / "input.de", tmp_path / "labels", SearchSettings(num_hypotheses=3), **OPTIONS)
    return tmp_path / "labels"


def with_hypothesis(**changed) -> dict:
    return GOOD | {"hypotheses": [GOOD["hypotheses"][0] | changed]}


@pytest.mark.parametrize(
    "record",
    [
        GOOD | {"line": True},
        GOOD | {"line": 1.0},
        GOOD | {"line": "1"},
        GOOD | {"line": 2},
        GOOD | {"source": ["eins"]},
        GOOD | {"source": None},
        GOOD | {"source": "ei\nns"},
        GOOD | {"source": "ei\u2028ns"},
        GOOD | {"source": "\ud800"},
        GOOD | {"cut": "x"},
        GOOD | {"cut": 1},
        GOOD | {"more": 1},
        GOOD | {"hypotheses": {}},
        GOOD | {"hypotheses": ["one"]},
        {"line": 1, "source": "eins"},
        with_hypothesis(text=1),
        with_hypothesis(text="o\rne"),
        with_hypothesis(text="\udfff"),
        with_hypothesis(score=True),
        with_hypothesis(score="-1"),
        with_hypothesis(score=0.5),
        with_hypothesis(score=-1e300),
        with_hypothesis(score=-(10**400)),
        with_hypothesis(length=-1),
        with_hypothesis(length=2.0),
        with_hypothesis(length=True),
        with_hypothesis(length=10**30),
        with_hypothesis(more=1),
        [],
        None,
    ],
)
def test_a_wrong_record_of_an_nbest_list(tmp_path, record):
    path = tmp_path / "nbest.jsonl"
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(InputError, match=r"nbest.jsonl', line 1: (not an n-best record \(|holds input line)") as error:
        list(read_nbest(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "-1e999", "[" * 100_000, '"x", "score": -1'])
def test_a_score_that_is_no_number(tmp_path, value):
    path = tmp_path / "nbest.jsonl"
    path.write_text(json.dumps(GOOD).replace("-1.5", value) + "\n")
    with pytest.raises(InputError, match=r"nbest.jsonl', line 1: not an n-best record"):
        list(read_nbest(path))


def test_a_score_may_be_above_zero_by_rounding(tmp_path):
    path = tmp_path / "nbest.jsonl"
    path.write_text(json.dumps(with_hypothesis(score=1e-6)) + "\n")
    assert next(read_nbest(path)).hypotheses == (Hypothesis("one", 1e-6, 2),)


def test_an_engine_that_rounds_is_held_to_zero(word_engine, tmp_path):
    class Rounding(word_engine):
        def hypotheses(self, sentence, settings):
            return [Hypothesis("gut", 0.25, 2)]

    (tmp_path / "input.de").write_text("ja\n")
    label(Rounding, tmp_path / "input.de", tmp_path / "labels", **OPTIONS)
    assert next(read_nbest(tmp_path / "labels/nbest.jsonl")).hypotheses == (Hypothesis("gut", 0.0, 2),)


def rewrite(path: Path, change) -> None:
    """Change a manifest, all of whose hashes are right afterwards."""
    content = json.loads(path.read_text())
    change(content)
    for name in content.get("files", {}):
        content["files"][name] = {"sha256": files.sha256(path.parent / name)}
    path.write_text(json.dumps(content))


CHANGES = {
    "lines": lambda content: content["counts"].update(lines=3),
    "kept": lambda content: content["counts"].update(kept=-1, lines=1),
    "boolean": lambda content: content["counts"].update(kept=True),
    "no counts": lambda content: content.pop("counts"),
    "counts": lambda content: content.update(counts=[]),
    "other counts": lambda content: content.update(counts={"lines": 1000, "kept": 900, "dropped": {"copy": 100}}),
    "another reason": lambda content: content["counts"].update(dropped={"duplicate": 1}),
    "a reason": lambda content: content["counts"].update(dropped={"\x1b[2J\nforged": 1}, kept=3),
    "engine": lambda content: content.update(engine=["words"]),
    "tokenizers": lambda content: content.update(tokenizers={"encoder": 1}),
    "names": lambda content: content.update(teacher_names="teacher"),
    "files": lambda content: content["files"].pop("hypotheses.txt"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_wrong_manifest(word_engine, labels, tmp_path, name):
    select(labels, tmp_path / "chosen", progress=False)
    rewrite(labels / "manifest.json", CHANGES[name])
    with pytest.raises(InputError, match="manifest.json' is damaged: ") as error:
        select(labels, tmp_path / "other", progress=False)
    assert str(error.value).isprintable()
    assert not (tmp_path / "other").exists()
    with pytest.raises(InputError, match="manifest.json' is damaged: "):
        label(word_engine, tmp_path / "input.de", labels, SearchSettings(num_hypotheses=3), **OPTIONS)
    rewrite(tmp_path / "chosen/manifest.json", CHANGES[name])
    rewrite(labels / "manifest.json", lambda content: None)


@pytest.mark.parametrize("value", [True, 0, "3", None, [3]])
def test_a_wrong_number_of_hypotheses(labels, tmp_path, value):
    rewrite(labels / "manifest.json", lambda content: content["request"].update(num_hypotheses=value))
    with pytest.raises(InputError, match="manifest.json' is damaged: "):
        select(labels, tmp_path / "chosen", progress=False)


def test_more_or_fewer_lines_than_the_manifest_counts(labels, tmp_path):
    path = labels / "nbest.jsonl"
    lines = text_files.read_lines(path)
    for changed in (lines[:3], [*lines, lines[0].replace('"line": 1', '"line": 5')]):
        files.write_lines_atomic(path, changed)
        rewrite(labels / "manifest.json", lambda content: None)
        with pytest.raises(InputError, match=f"the n-best lists have {len(changed)} lines, not 4 as the input has"):
            select(labels, tmp_path / "chosen", progress=False)
        assert not (tmp_path / "chosen/source.txt").exists()


@pytest.mark.parametrize("request_of", ["select", "x"])
def test_a_manifest_of_another_verb(labels, tmp_path, request_of):
    rewrite(labels / "manifest.json", lambda content: content["request"].update(verb=request_of))
    with pytest.raises(InputError, match="its request is not one of pseudo-label"):
        select(labels, tmp_path / "chosen", progress=False)


@pytest.mark.parametrize("content", ["{}", '{"name": 1}', '{"name": "words", "more": 1}', "[]", "", '{"name": "x"}'])
def test_a_wrong_record_of_the_engine(word_engine, tmp_path, content):
    (tmp_path / "input.de").write_text("eins\nzwei\ndrei\n")

    class Spoiling(word_engine):
        def translate(self, *arguments):
            if len(self.calls) == 1:
                raise KeyboardInterrupt
            return super().translate(*arguments)

    with pytest.raises(KeyboardInterrupt):
        label(Spoiling, tmp_path / "input.de", tmp_path / "labels", **OPTIONS)
    next((tmp_path / "labels").glob(".shards-*/engine.json")).write_text(content)
    with pytest.raises(InputError, match="engine.json' is (damaged|not valid)|made with the engine 'x'"):
        label(word_engine, tmp_path / "input.de", tmp_path / "labels", **OPTIONS)


def test_a_shard_whose_text_was_changed_is_made_again(word_engine, tmp_path, caplog):
    """A flipped bit in a hypothesis: the line is still a record, but not the one that was written."""
    (tmp_path / "input.de").write_text("eins\nzwei\ndrei\n")

    class Stopping(word_engine):
        def translate(self, *arguments):
            if len(self.calls) == 1:
                raise KeyboardInterrupt
            return super().translate(*arguments)

    with pytest.raises(KeyboardInterrupt):
        label(Stopping, tmp_path / "input.de", tmp_path / "labels", **OPTIONS)
    shard = next((tmp_path / "labels").glob(".shards-*/000000.jsonl.gz"))
    shard.write_bytes(gzip.compress(gzip.decompress(shard.read_bytes()).replace(b"snie", b"snif")))
    label(word_engine, tmp_path / "input.de", tmp_path / "labels", **OPTIONS)
    assert "000000.jsonl.gz' is damaged" in caplog.text
    assert text_files.read_lines(tmp_path / "labels/hypotheses.txt") == ["snie", "iewz", "ierd"]


FORGED = "gut\x1b[2J\x00\x9b1m\tneu\x7f {name}"


def test_control_characters_in_the_report_of_dropped_lines(word_engine, tmp_path):
    (tmp_path / "input.de").write_bytes(f"{FORGED}\x85gut\x0b\rgut\neins\n".encode())
    label(word_engine, tmp_path / "input.de", tmp_path / "labels", **OPTIONS)
    header, row = (tmp_path / "labels/dropped.tsv").read_text("utf-8").splitlines()
    assert header == "line\treason\tsource\thypothesis"
    assert row.split("\t")[:2] == ["1", "placeholders differ"]
    assert len(row.split("\t")) == 4
    assert all(cell.isprintable() for cell in row.split("\t"))
    assert table_cell("a\tb\r\nc\u2028d\x1be\ud800f") == "a b c d e f"


def test_names_and_text_in_the_report_of_leaks(tmp_path, capsys):
    names = [tmp_path / "train\nforged\t\x1b[2J.de", Path(os.fsdecode(os.fsencode(tmp_path) + b"/test\xff.de"))]
    for path in names:
        path.write_bytes(f"{FORGED}\u2028neu\n".encode())
    report = check_leaks(names[:1], names[1:], report=tmp_path / "leaks.tsv")
    assert len(report.table().splitlines()) == 2
    assert all(line.isprintable() for line in report.table().splitlines())
    rows = [line.split("\t") for line in (tmp_path / "leaks.tsv").read_text("utf-8").splitlines()]
    assert [len(row) for row in rows] == [6, 6]
    assert all(cell.isprintable() for cell in rows[1])
    assert cli.main(["leak-check", "--train", str(names[0]), "--test", str(names[1])]) == 0
    assert "1 leaked lines" in capsys.readouterr().out


def test_a_name_that_is_not_utf8(word_engine, tmp_path):
    """It comes into the manifest at the end, when all is decoded."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/input\xff\x1b.de"))
    path.write_text("eins\n")
    manifest, _ = label(word_engine, path, tmp_path / "labels", **OPTIONS)
    assert manifest["input_name"] == "input  .de"


@pytest.mark.parametrize("name", ["source.txt", "hypotheses.txt", "dropped.tsv"])
def test_a_file_with_a_line_less(word_engine, labels, tmp_path, name):
    path = labels / name
    files.write_lines_atomic(path, text_files.read_lines(path)[:-1])
    rewrite(labels / "manifest.json", lambda content: None)
    for call in (
        lambda: select(labels, tmp_path / "chosen", progress=False),
        lambda: label(word_engine, tmp_path / "input.de", labels, SearchSettings(num_hypotheses=3), **OPTIONS),
    ):
        with pytest.raises(InputError, match="its counts are not those of the files"):
            call()


@pytest.mark.parametrize("kept", [900, True, "3", -1])
def test_counts_that_are_not_those_of_the_files_are_not_trained_on(labels, kept):
    mixture = MixtureConfig(components={"pseudo": ComponentConfig(directory=str(labels))})
    check_model_files({}, mixture)
    rewrite(labels / "manifest.json", lambda content: content["counts"].update(kept=kept))
    with pytest.raises(
        InputError, match="components.pseudo.directory: the manifest counts .* lines, source.txt has 2"
    ):
        check_model_files({}, mixture)


@pytest.mark.parametrize(
    ("asked", "name", "fits"),
    [
        ({}, "words", True),
        ({"engine": "nemo"}, "nemo", True),
        ({"engine": "nemo"}, "nemo, 2 models", True),
        ({"engine": "nemo"}, "nemonic", False),
        ({"engine": "auto"}, "nemo, 2 models", True),
        ({"engine": "auto", "quantization": "float32"}, "ctranslate2 float32", True),
        ({"engine": "auto", "quantization": "int8"}, "ctranslate2 float32", False),
        ({"engine": "ctranslate2", "quantization": "int8"}, "ctranslate2 int8", True),
        ({"engine": "ctranslate2"}, "nemo", False),
        ({"engine": "x"}, "x", False),
    ],
)
def test_an_engine_is_the_one_that_was_asked_for(labels, asked, name, fits):
    manifest = json.loads((labels / "manifest.json").read_text())
    manifest["request"].update(asked)
    manifest["engine"] = name
    with contextlib.nullcontext() if fits else pytest.raises(InputError, match="its engine is not the one"):
        checks.check_manifest(manifest, labels, list(manifest["files"]))
