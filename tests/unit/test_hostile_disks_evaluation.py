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
"""A full disk and odd files in the place of inputs and outputs: one line from evaluate, report, speed and init."""

import logging
import os
import shutil
from pathlib import Path

import pytest
from damage import odd_files, small_disk, time_limit, tree
from made_up_results import an_evaluation
from short_text import short_test_set
from slow_cases import slow

from nemo_distill import cli

KINDS = ("fifo", "directory", "device", "dangling", "loop", "missing")
VERBS = ("evaluate", "report", "speed", "init")


@pytest.fixture
def arguments(tmp_path, tiny_teacher_path, tiny_corpus) -> dict[str, dict[str, str]]:
    """The options of each verb."""
    text = short_test_set(tiny_corpus, tmp_path, 3)
    an_evaluation().save(tmp_path)
    (tmp_path / "student.yaml").write_text("encoder: {num_layers: 1}")
    (tmp_path / "layout.yaml").write_text("grids: {}")
    out, model = str(tmp_path / "out"), str(tiny_teacher_path)
    decoding = {"--model": model, "--test": text, "--beam-size": "1"}
    return {
        "evaluate": {**decoding, "--output-dir": out},
        "report": {"--results": str(tmp_path), "--layout": f"{tmp_path}/layout.yaml", "--output-dir": out},
        "speed": {**decoding, "--engines": "float32", "--latency-sentences": "1", "--output-dir": out},
        "init": {"--teacher": model, "--student": f"{tmp_path}/student.yaml", "--output": f"{out}/student.nemo"},
    }


def run(verb: str, options: dict[str, str]) -> int:
    with time_limit(20):
        return cli.main([verb, *(part for pair in options.items() for part in pair)])


PLACES = [
    ("evaluate", "--model", "{}"),
    ("evaluate", "--test", "test:{}:{dir}/test.en"),
    ("evaluate", "--test", "test:{dir}/test.de:{}"),
    ("speed", "--model", "{}"),
    ("speed", "--test", "test:{}:{dir}/test.en"),
    ("report", "--results", "{}"),
    ("report", "--layout", "{}"),
    ("init", "--teacher", "{}"),
    ("init", "--student", "{}"),
]


@pytest.mark.parametrize(("verb", "option", "value"), PLACES)
def test_odd_inputs(verb, option, value, arguments, tmp_path, capsys):
    for kind, path in odd_files(tmp_path / "odd").items():
        value_of_kind = value.replace("{dir}", str(tmp_path)).replace("{}", str(path))
        assert run(verb, {**arguments[verb], option: value_of_kind}) == 2, kind
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(f"nemo-distill {verb}: "), error
        assert str(path) in error
        assert not (tmp_path / "out").exists()


OUTPUTS = {
    "evaluate": ["results.json", "scores", "hypotheses", "scores/teacher.test.json", "hypotheses/teacher.test.txt"],
    "report": [
        "report.md",
        "report.json",
        "report.html",
        "quality_vs_size.png",
        "report.manifest.json",
        ".report.manifest.started.json",
    ],
    "speed": ["speed.md", "speed.json", "speed.manifest.json", ".speed.manifest.started.json"],
    "init": ["student.nemo", "student.nemo.json", ".student.nemo.started.json"],
}


@pytest.mark.parametrize("kind", ["fifo", *slow("directory", "dangling")])
@pytest.mark.parametrize("verb", VERBS)
def test_odd_files_in_the_place_of_outputs(verb, kind, arguments, tmp_path, capsys):
    """All are refused before they are touched, with a line that names the place or the directory."""
    for name in OUTPUTS[verb]:
        if (verb, kind) == ("evaluate", "directory") and name in ("scores", "hypotheses"):
            continue
        place = tmp_path / "out" / name
        place.parent.mkdir(parents=True)
        odd_files(tmp_path / "odd")[kind].rename(place)
        for options in ([], ["--overwrite"]):
            with time_limit(20):
                flat = [part for pair in arguments[verb].items() for part in pair]
                status = cli.main([verb, *flat, *options])
            error = capsys.readouterr().err
            last = (error.splitlines() or [""])[-1]
            assert (status, last.startswith(f"nemo-distill {verb}: ")) in ((2, True), (1, True)), (name, options, last)
            assert "Traceback" not in error
            assert os.path.lexists(place), (name, options)
        shutil.rmtree(tmp_path / "out")
        shutil.rmtree(tmp_path / "odd")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("size", [1500, *slow(0)])
def test_a_full_disk(verb, size, arguments, tmp_path, capsys, monkeypatch):
    """The older files are whole, one line says what happened, and the same command goes on."""
    monkeypatch.setattr(logging, "raiseExceptions", False)  # the log of the tests is a file too
    with small_disk(size):
        status = run(verb, arguments[verb])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    if status:
        assert status in (1, 2), error
        assert error.splitlines()[-1].startswith(f"nemo-distill {verb}: ")
    assert not list(Path(tmp_path).rglob("*.tmp"))
    assert run(verb, arguments[verb]) == 0, capsys.readouterr().err
    assert not list((tmp_path / "out").rglob(".*"))
    before = tree(tmp_path / "out")
    assert run(verb, arguments[verb]) == 0
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("verb", VERBS)
def test_an_output_below_a_file(verb, arguments, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    key = "--output" if verb == "init" else "--output-dir"
    assert run(verb, {**arguments[verb], key: str(tmp_path / "file/below/x")}) == 2
    assert "cannot be a directory" in capsys.readouterr().err
