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
"""Two at once, killed anywhere, the same again: evaluate, report, speed and init."""

import json
import os

import pytest
from damage import tree
from made_up_results import an_evaluation
from short_text import short_test_set
from slow_cases import slow

from nemo_distill import cli
from nemo_distill.evaluation import scoring
from nemo_distill.support.lock import locked, locked_file


@pytest.fixture(scope="module")
def text(tiny_corpus, tmp_path_factory) -> str:
    return short_test_set(tiny_corpus, tmp_path_factory.mktemp("text"), 4)


@pytest.fixture
def commands(tmp_path, tiny_teacher_path, text) -> dict[str, list[str]]:
    """A command of each verb, whose output is in `out`."""
    out, model = str(tmp_path / "out"), ["--model", str(tiny_teacher_path), "--test", text, "--beam-size", "1"]
    (tmp_path / "results").mkdir()
    an_evaluation().save(tmp_path / "results")
    (tmp_path / "student.yaml").write_text("encoder: {num_layers: 1}")
    student = ["--teacher", str(tiny_teacher_path), "--student", str(tmp_path / "student.yaml")]
    return {
        "evaluate": ["evaluate", *model, "--output-dir", out],
        "report": [
            "report",
            "--results",
            str(tmp_path / "results"),
            "--format",
            "markdown",
            "json",
            "--output-dir",
            out,
        ],
        "speed": ["speed", *model, "--engines", "float32", "--latency-sentences", "1", "--output-dir", out],
        "init": ["init", *student, "--output", f"{out}/student.nemo"],
    }


VERBS = ("evaluate", "report", "speed", "init")
OTHERS = {
    "evaluate": (["--beam-size", "2"], "differs in beam_size"),
    "report": (["--teacher", "teacher", "--plain", "student"], "another run, made with plain None (now 'student')"),
    "speed": (["--beam-size", "2"], "another run, made with beam_size 1 (now 2)"),
    "init": (["--seed", "2"], "another run, made with seed 1 (now 2)"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_two_at_once(verb, commands, tmp_path, capsys):
    lock = locked(tmp_path / "out") if verb != "init" else locked_file(tmp_path / "out/student.nemo")
    with lock:
        before = tree(tmp_path / "out")
        assert cli.main(commands[verb]) == 2
        assert tree(tmp_path / "out") == before
    assert f"is in use: process {os.getpid()} on " in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_the_same_again_another_and_over_it(verb, commands, tmp_path, capsys):
    assert cli.main(commands[verb]) == 0
    before = tree(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert "already there" not in capsys.readouterr().out
    assert cli.main(commands[verb]) == 0
    assert "already there, hash" in capsys.readouterr().out
    options, message = OTHERS[verb]
    assert cli.main([*commands[verb], *options]) == 2
    assert message in capsys.readouterr().err
    assert tree(tmp_path / "out") == before
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert cli.main([*commands[verb], *options, "--overwrite"]) == 0
    assert tree(tmp_path / "out") != before
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("moment", [2, *slow(1, 4)])
def test_stopped_at_any_file(verb, moment, commands, tmp_path, capsys, monkeypatch):
    """In front of each file that is renamed to its place, and with the lock and the temporary file left behind."""
    original, count = os.replace, 0

    def stop(source, target):
        nonlocal count
        if str(tmp_path) in str(target):
            count += 1
            if count == moment:
                raise KeyboardInterrupt
        return original(source, target)

    monkeypatch.setattr(os, "replace", stop)
    status = cli.main(commands[verb])
    monkeypatch.undo()
    if status == 0:
        assert count < moment
        return
    assert status == 130
    assert "interrupted; run the same command again, and it goes on" in capsys.readouterr().err
    directory = tmp_path / "out"
    left = directory / ".report.md.nemo_distill-0123abcd.tmp"
    if directory.exists() and verb != "init":
        left.write_text("half")
    assert cli.main(commands[verb]) == 0, capsys.readouterr().err
    assert cli.main(commands[verb]) == 0
    assert "already there" in capsys.readouterr().out
    assert not list(directory.rglob(".*"))


def test_a_finished_pair_is_not_decoded_again(commands, tiny_corpus, monkeypatch, capsys):
    """Stopped in the second of two pairs."""
    original, decoded = scoring._decode, []

    def stop(engine, pair, *rest):
        decoded.append(pair)
        if len(decoded) == 2:
            raise KeyboardInterrupt
        return original(engine, pair, *rest)

    command = [*commands["evaluate"], "--test", f"valid:{tiny_corpus}/valid.de:{tiny_corpus}/valid.en"]
    monkeypatch.setattr(scoring, "_decode", stop)
    assert cli.main(command) == 130
    assert cli.main(command) == 0
    assert decoded == [("teacher", "test"), ("teacher", "valid"), ("teacher", "valid")]


@pytest.mark.parametrize("file", ["report.md", "report.json"])
def test_a_report_whose_file_has_changed(file, commands, tmp_path, capsys):
    assert cli.main(commands["report"]) == 0
    with (tmp_path / "out" / file).open("ab") as stream:
        stream.write(b" ")
    assert cli.main(commands["report"]) == 2
    assert f"{file}' has changed since it was written" in capsys.readouterr().err


def test_reports_and_speeds_lie_beside_an_evaluation(commands, tmp_path, capsys):
    """In one directory: each verb has a manifest of its own, and none takes the others' files for its own."""
    out = str(tmp_path / "out")
    order = [commands["evaluate"], ["report", "--results", out, "--output-dir", out], commands["speed"]]
    for command in [*order, *order]:
        assert cli.main(command) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.count("already there") == 3
    assert cli.main([*order[0], "--overwrite"]) == 0
    assert {"report.md", "speed.md", "results.json"} <= set(os.listdir(out))


def test_what_python_gets(commands, tmp_path, text, tiny_teacher_path):
    """The functions behind the verbs return the same a second time."""
    from nemo_distill.config.layers import InitConfig
    from nemo_distill.evaluation.speed import measure_speed
    from nemo_distill.students.initial_student import write_initial_student

    options = {"engines": ["float32"], "latency_sentences": 1, "beam_size": 1, "progress": False}
    measured = [measure_speed([tiny_teacher_path], text, tmp_path / "speed", **options) for _ in range(2)]
    assert measured[0] == measured[1]
    config = InitConfig(from_teacher="every_nth")
    student = tmp_path / "student.yaml"
    built = [write_initial_student(tiny_teacher_path, student, tmp_path / "s.nemo", config) for _ in range(2)]
    assert built[0] == built[1]
    assert json.loads((tmp_path / "s.nemo.json").read_text())["files"].keys() == {"s.nemo"}
