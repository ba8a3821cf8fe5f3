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
"""Damaged values and types in every file that evaluate, report, speed and init read: only an InputError, in time."""

import contextlib
import json
import random
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from damage import damaged, damaged_json, time_limit, tree, write_damaged_json
from made_up_results import an_evaluation
from short_text import short_test_set

from nemo_distill.config.layers import InitConfig
from nemo_distill.config.model_keys import key_faults
from nemo_distill.errors import InputError
from nemo_distill.evaluation import scoring
from nemo_distill.evaluation.layout import layout_tables, read_layout
from nemo_distill.evaluation.report import build_report, write_report
from nemo_distill.evaluation.results import EvaluationResult
from nemo_distill.evaluation.scoring import evaluate
from nemo_distill.evaluation.speed_results import SpeedResult, SpeedRow
from nemo_distill.students.initial_student import write_initial_student
from nemo_distill.students.model_section import read_model_section, size_faults


def test_results(tmp_path):
    """What is accepted can be shown."""
    generator, content = random.Random(1), {"format_version": 1, **asdict(an_evaluation())}
    for _ in range(150):
        write_damaged_json(tmp_path / "results.json", content, generator)
        with time_limit(10), contextlib.suppress(InputError):
            build_report([EvaluationResult.load(tmp_path)], "teacher", "student").markdown()


def test_measurements(tmp_path):
    generator = random.Random(2)
    row = SpeedRow("a", "nemo", 1000, 4000, 4, 30.0, 1.0, 100.0, 10.0, 5)
    content = asdict(
        SpeedResult([row, row], {"b": "c"}, "test", ["a", "b"], 100, "tok:13a", "cpu", 1, 4096, {"t": "1"})
    )
    for _ in range(150):
        write_damaged_json(tmp_path / "speed.json", content, generator)
        with time_limit(10), contextlib.suppress(InputError):
            SpeedResult.load(tmp_path).markdown()


def test_layouts(tmp_path):
    generator, report = random.Random(3), build_report([an_evaluation()])
    content = {
        "grids": {"g": {"columns": ["a", 1], "rows": {"r": ["teacher", None], "s": ["student", "teacher"]}}},
        "changes": {"c": {"rows": {"r": ["student", "teacher"]}}},
    }
    path = tmp_path / "layout.json"
    for _ in range(150):
        write_damaged_json(path, content, generator)
        with time_limit(10), contextlib.suppress(InputError):
            layout_tables(read_layout(path), report)


def test_manifests_of_reports(tmp_path):
    """Nothing else is written or removed, with --overwrite neither."""
    an_evaluation().save(tmp_path)
    write_report([tmp_path], tmp_path / "out", formats=["json", "markdown"])
    (tmp_path / "out/mine.txt").write_text("mine")
    generator, path = random.Random(4), tmp_path / "out/report.manifest.json"
    content = json.loads(path.read_text())
    whole = tree(tmp_path / "out")
    for turn in range(80):
        for name, text in whole.items():
            Path(name).write_bytes(text)
        write_damaged_json(path, content, generator)
        with time_limit(10), contextlib.suppress(InputError):
            write_report([tmp_path], tmp_path / "out", formats=["json", "markdown"], overwrite=turn % 2 == 0)
        assert {**tree(tmp_path / "out"), str(path): b""} == {**whole, str(path): b""}


@pytest.fixture(scope="module")
def evaluated(tiny_teacher_path, tiny_corpus, tmp_path_factory) -> tuple[Path, str]:
    directory = tmp_path_factory.mktemp("evaluation")
    text = short_test_set(tiny_corpus, directory, 3)
    evaluate([tiny_teacher_path], [text], directory / "out", beam_size=1, progress=False)
    return directory / "out", text


class Decoding(Exception):
    """The record was not believed: the pair would be decoded again."""


@pytest.mark.parametrize("overwrite", [False, True])
def test_records_of_scores(overwrite, evaluated, tiny_teacher_path, tmp_path, monkeypatch):
    """A damaged record is refused, or its pair decoded again; other files stay."""

    def stop(*_):
        raise Decoding

    whole, text = evaluated
    out, generator = tmp_path / "out", random.Random(5)
    content = json.loads((whole / "scores/teacher.test.json").read_text())
    monkeypatch.setattr(scoring, "open_input", stop)
    for _ in range(25):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(whole, out)
        (out / "mine.txt").write_text("mine")
        write_damaged_json(out / "scores/teacher.test.json", content, generator)
        before = tree(out)
        with time_limit(10):
            try:
                result = evaluate([tiny_teacher_path], [text], out, beam_size=1, overwrite=overwrite, progress=False)
            except InputError:
                assert tree(out) == before
            except Decoding:
                assert (out / "mine.txt").read_text() == "mine"
            else:
                assert result.score("teacher", "test").bleu == EvaluationResult.load(whole).scores[0].bleu


def test_records_of_init(tiny_teacher_path, tmp_path):
    """The archive is never replaced, and what is accepted is a report."""
    student, output, generator = tmp_path / "student.yaml", tmp_path / "s.nemo", random.Random(6)
    student.write_text("encoder: {num_layers: 1}")
    config = InitConfig(from_teacher="every_nth")
    write_initial_student(tiny_teacher_path, student, output, config)
    whole, path = output.read_bytes(), tmp_path / "s.nemo.json"
    content = json.loads(path.read_text())
    for _ in range(100):
        write_damaged_json(path, content, generator)
        with time_limit(10), contextlib.suppress(InputError):
            str(write_initial_student(tiny_teacher_path, student, output, config))
        assert output.read_bytes() == whole


def test_students(tiny_model_config, tmp_path):
    import yaml
    from omegaconf import OmegaConf

    generator, path = random.Random(7), tmp_path / "student.yaml"
    teacher = tiny_model_config()
    parts = {key: OmegaConf.to_container(teacher[key]) for key in ("encoder", "decoder", "head")}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**parts, "label_smoothing": 0.1, "beam_size": 4}))
    content = {"defaults": ["base", "_self_"], **parts, "model": {**parts, "x": "${model.encoder.hidden_size}"}}
    for turn in range(30):
        chosen = content if turn % 4 == 0 else {"model": content["model"]}
        if turn % 5 == 0:
            path.write_bytes(damaged(yaml.safe_dump(chosen).encode(), generator))
        else:
            path.write_text(json.dumps(damaged_json(chosen, generator)))
        with time_limit(10), contextlib.suppress(InputError):
            given, _ = read_model_section(path)
            if not list(key_faults(OmegaConf.to_container(given), False)):
                with contextlib.suppress(InputError):
                    size_faults(OmegaConf.merge(teacher, given), {"encoder": 120, "decoder": 120})
