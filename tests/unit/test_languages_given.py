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
"""`--source-lang` and `--target-lang`: an archive without languages, and what its user says of it."""

import json
import subprocess
import sys

import pytest
from damage import rebuilt_archive

from nemo_distill import cli
from nemo_distill.archives.restore import restore_model
from nemo_distill.config.languages import Languages
from nemo_distill.decoding.exporting import open_export
from nemo_distill.decoding.opening import open_engine
from nemo_distill.evaluation.results import EvaluationResult
from nemo_distill.support import files, text_files

SENTENCES = ["Die Lampe, im Keller, ist offen.", "Das Radio (im Garten) läuft seit gestern."]
GIVEN = ["--source-lang", "de", "--target-lang", "en"]


@pytest.fixture(scope="module")
def nameless(tiny_teacher_path, tmp_path_factory):
    """The tiny teacher, its archive without languages, and a test set."""
    directory = tmp_path_factory.mktemp("nameless")
    path = directory / "teacher.nemo"
    rebuilt_archive(
        tiny_teacher_path, path, config=lambda section: section.update(src_language=None, tgt_language=None)
    )
    for name in ("test.de", "test.en"):
        files.write_lines_atomic(directory / name, SENTENCES)
    return path, f"t:{directory}/test.de:{directory}/test.en"


@pytest.fixture(scope="module")
def expected(tiny_teacher_path) -> list[str]:
    """What the teacher says whose archive names the languages."""
    return texts(open_engine(tiny_teacher_path))


def texts(engine) -> list[str]:
    return [rows[0].text for _, rows in sorted(pair for batch in engine.translate(SENTENCES) for pair in batch)]


def test_engines_of_one_model_and_of_several(nameless, expected):
    path, languages = nameless[0], Languages("de", "en")
    [before, now] = open_engine(path), open_engine(path, languages=languages)
    assert before.text.encode(SENTENCES).processed == SENTENCES
    assert now.text.encode(SENTENCES).processed[0] == "Die Lampe , im Keller , ist offen ."
    assert texts(now) == expected
    ensemble = open_engine([path, path], languages=languages)
    assert (ensemble.text.source_language, ensemble.text.target_language) == ("de", "en")
    assert texts(ensemble) == texts(open_engine(path, "nemo", languages=languages))


def test_evaluate(nameless, expected, tmp_path, capsys):
    path, test = nameless
    words = [
        "evaluate",
        "--model",
        str(path),
        "--test",
        test,
        "--output-dir",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    assert cli.main([*words, *GIVEN]) == 0
    assert text_files.read_lines(tmp_path / "out/hypotheses/teacher.t.txt") == expected
    assert cli.main([*words, *GIVEN]) == 0
    assert "already there" in capsys.readouterr().out
    assert cli.main(words) == 2
    assert "differs in source_language, target_language" in capsys.readouterr().err
    assert EvaluationResult.load(tmp_path / "out").scores[0].decoded == 2


def test_speed(nameless, tmp_path, capsys):
    path, test = nameless
    words = ["speed", "--model", str(path), "--test", test, "--output-dir", str(tmp_path / "out"), "--device", "cpu"]
    words += ["--engines", "float32", "--latency-sentences", "1"]
    assert cli.main([*words, *GIVEN]) == 0
    assert cli.main([*words, *GIVEN]) == 0
    assert "already there" in capsys.readouterr().out
    assert cli.main(words) == 2
    assert "languages.source 'de' (now None)" in capsys.readouterr().err


def test_export(nameless, expected, tmp_path, capsys):
    """The program processes text by the languages that were given."""
    words = ["export", "--model", str(nameless[0]), "--output-dir", str(tmp_path / "out")]
    assert cli.main([*words, *GIVEN]) == 0
    record = json.loads((tmp_path / "out/export.json").read_text("utf-8"))
    assert [record[side]["language"] for side in ("source", "target")] == ["de", "en"]
    assert texts(open_export(tmp_path / "out")) == expected
    done = subprocess.run(
        [sys.executable, str(tmp_path / "out/translate.py")],
        input="".join(f"{sentence}\n" for sentence in SENTENCES),
        capture_output=True,
        encoding="utf-8",
    )
    assert done.stdout.splitlines() == expected
    assert cli.main([*words, *GIVEN]) == 0
    assert "already there" in capsys.readouterr().out
    assert cli.main(words) == 2
    assert "source_lang 'de' (now None)" in capsys.readouterr().err


def test_init(nameless, tmp_path, capsys):
    (tmp_path / "student.yaml").write_text("decoder: {num_layers: 1}\n")
    words = ["--teacher", str(nameless[0]), "--student", str(tmp_path / "student.yaml")]
    words = ["init", *words, "--output", str(tmp_path / "out/student.nemo")]
    assert cli.main([*words, *GIVEN]) == 0
    config = restore_model(tmp_path / "out/student.nemo").cfg
    assert (config.src_language, config.tgt_language) == ("de", "en")
    assert cli.main(words) == 2
    assert "languages.source 'de' (now None)" in capsys.readouterr().err


def test_pseudo_label(nameless, expected, tmp_path, capsys):
    source = nameless[1].split(":")[1]
    words = ["pseudo-label", "--teacher", str(nameless[0]), "--input", source, "--device", "cpu", "--keep-copies"]
    words += [
        "--max-length-ratio",
        "off",
        "--max-repeats",
        "off",
        "--keep-cut",
        "--keep-unknown",
        "--max-repeated",
        "off",
    ]
    words += ["--output-dir", str(tmp_path / "out")]
    assert cli.main([*words, *GIVEN]) == 0
    assert text_files.read_lines(tmp_path / "out/source.tok.txt")[0] == "Die Lampe , im Keller , ist offen ."
    manifest = json.loads((tmp_path / "out/manifest.json").read_text("utf-8"))
    assert manifest["languages"] == manifest["request"]["languages"] == {"source": "de", "target": "en"}
    assert cli.main(words) == 2
    assert "languages.source 'de' (now None)" in capsys.readouterr().err
    assert cli.main([*words, "--source-lang", "d e"]) == 2
    assert "--source-lang: got 'd e'; give a code such as de" in capsys.readouterr().err
