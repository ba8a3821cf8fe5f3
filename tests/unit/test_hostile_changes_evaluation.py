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
"""Inputs that change while evaluate, report, speed or init run: one error, no result, and the right input goes on."""

import shutil
from pathlib import Path

import pytest
import torch
from damage import tree
from made_up_results import an_evaluation
from nemo.collections.nlp.models import MTEncDecModel
from slow_cases import quick

from nemo_distill import cli
from nemo_distill.evaluation import engines, inputs, report, scoring, test_sets
from nemo_distill.students import initial_student


@pytest.fixture(scope="module")
def other(tiny_model_config, tmp_path_factory) -> Path:
    """An untrained model."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("other") / "other.nemo"
    MTEncDecModel(tiny_model_config(hidden_size=16, num_layers=1)).save_to(str(path))
    return path


@pytest.fixture
def files(tiny_teacher_path, tiny_corpus, tmp_path) -> dict[str, Path]:
    """Inputs of one's own, to be changed."""
    found = {"model": tmp_path / "model.nemo", "source": tmp_path / "test.de", "target": tmp_path / "test.en"}
    shutil.copy(tiny_teacher_path, found["model"])
    for side, name in (("source", "test.de"), ("target", "test.en")):
        lines = (tiny_corpus / name).read_text("utf-8").splitlines()[:3]
        found[side].write_text("\n".join(lines) + "\n", "utf-8")
    found["student"] = tmp_path / "student.yaml"
    found["student"].write_text("encoder: {num_layers: 1}")
    return found


@pytest.fixture
def commands(files, tmp_path) -> dict[str, list[str]]:
    out = str(tmp_path / "out")
    model = ["--model", str(files["model"]), "--test", f"test:{files['source']}:{files['target']}", "--beam-size", "1"]
    student = ["--teacher", str(files["model"]), "--student", str(files["student"])]
    return {
        "evaluate": ["evaluate", *model, "--output-dir", out],
        "speed": ["speed", *model, "--engines", "nemo", "float32", "--latency-sentences", "1", "--output-dir", out],
        "init": ["init", *student, "--output", f"{out}/student.nemo"],
    }


def before(monkeypatch, module, name: str, action, calls: int = 1) -> None:
    """Do something in front of a call of a module's function."""
    original, count = getattr(module, name), 0

    def wrapper(*arguments, **options):
        nonlocal count
        count += 1
        if count == calls:
            action()
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, wrapper)


MOMENTS = {
    "evaluate, before it is read": ("evaluate", inputs, "read_archive_config", 1),
    "evaluate, before it is opened": ("evaluate", engines, "restore_model", 1),
    "speed, before it is read": ("speed", inputs, "read_archive_config", 1),
    "speed, before it is opened": ("speed", engines, "restore_model", 1),
    "speed, before it is opened again": ("speed", engines, "restore_model", 2),
    "init, before it is opened": ("init", initial_student, "restore_model", 1),
    "init, before its tokenizers are taken": ("init", initial_student, "extract_tokenizers", 1),
}


@pytest.mark.parametrize("moment", quick(MOMENTS, *list(MOMENTS)[1::2]))
def test_a_model_that_is_exchanged(moment, commands, files, other, tmp_path, capsys, monkeypatch):
    verb, module, name, calls = MOMENTS[moment]
    whole = files["model"].read_bytes()
    with monkeypatch.context() as patch:
        before(patch, module, name, lambda: shutil.copy(other, files["model"]), calls)
        assert cli.main(commands[verb]) == 2
    message = capsys.readouterr().err
    assert "model.nemo has the SHA-256" in message
    assert not (tmp_path / "out").exists() or tree(tmp_path / "out") == {}
    files["model"].write_bytes(whole)
    assert cli.main(commands[verb]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("verb", ["evaluate", "speed"])
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_test_set_that_is_changed(side, verb, commands, files, tmp_path, capsys, monkeypatch):
    whole = files[side].read_bytes()
    with monkeypatch.context() as patch:
        before(patch, test_sets, "read_parallel", lambda: files[side].write_bytes(whole.upper()))
        assert cli.main(commands[verb]) == 2
    assert f"{files[side]}' has changed while it was in use" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_input_that_changes_after_it_was_read_changes_nothing(commands, files, other, tmp_path, monkeypatch):
    """The scores, sizes and hashes are those of what was read."""
    from nemo_distill.evaluation.results import EvaluationResult

    size = files["model"].stat().st_size
    before(monkeypatch, scoring, "_decode", lambda: [path.unlink() for path in files.values()])
    assert cli.main(commands["evaluate"]) == 0
    assert EvaluationResult.load(tmp_path / "out").models[0].archive_bytes == size


def test_hypotheses_that_change_before_they_are_compared(files, commands, tmp_path, capsys, monkeypatch):
    command = [*commands["evaluate"], "--model", str(files["model"]), "--names", "a", "b"]
    place = tmp_path / "out/hypotheses/a.test.txt"
    with monkeypatch.context() as patch:
        before(patch, scoring, "_compare", lambda: place.write_text("x\ny\nz\n"))
        assert cli.main(command) == 2
    assert "a.test.txt' has changed while it was in use" in capsys.readouterr().err
    assert not (tmp_path / "out/results.json").exists()
    assert cli.main(command) == 0


def test_a_layout_that_changes(tmp_path, capsys, monkeypatch):
    an_evaluation().save(tmp_path)
    layout = tmp_path / "layout.yaml"
    layout.write_text("grids: {a: {columns: [b], rows: {c: [teacher]}}}")
    before(monkeypatch, report, "read_layout", lambda: layout.write_text("grids: {}"))
    command = ["report", "--results", str(tmp_path), "--output-dir", str(tmp_path / "out"), "--layout", str(layout)]
    assert cli.main(command) == 2
    assert "layout.yaml' has changed while it was read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_input_is_another_request(commands, files, tmp_path, capsys):
    assert cli.main(commands["init"]) == 0
    files["student"].write_text("encoder: {num_layers: 2}")
    assert cli.main(commands["init"]) == 2
    assert "another run, made with other content of student;" in capsys.readouterr().err


def test_a_base_of_the_student_is_part_of_the_request(commands, files, tmp_path, capsys):
    files["student"].write_text("defaults: [base, _self_]\n")
    (tmp_path / "base.yaml").write_text("encoder: {num_layers: 1}")
    assert cli.main(commands["init"]) == 0
    (tmp_path / "base.yaml").write_text("encoder: {num_layers: 2}")
    assert cli.main(commands["init"]) == 2
    assert "another run, made with other content of student;" in capsys.readouterr().err
