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
"""Sizes that no machine holds are refused by arithmetic, before anything is built."""

import re

import pytest
from damage import time_limit
from made_up_results import an_evaluation

from nemo_distill import cli
from nemo_distill.errors import InputError
from nemo_distill.evaluation.plot import Point, plot_quality_against_size
from nemo_distill.evaluation.results import EvaluationResult
from nemo_distill.students import initial_student
from nemo_distill.students.model_section import read_model_section

SIZES = {
    "hidden size": (
        "encoder: {hidden_size: 1000000000}\ndecoder: {hidden_size: 1000000000}",
        "weights at least, more",
    ),
    "hidden size beyond all": ("encoder: {hidden_size: 10000000000}", "encoder.hidden_size is 10000000000, no whole"),
    "inner size": ("encoder: {inner_size: 2000000000}", "weights at least, more than this machine's"),
    "layers": ("encoder: {num_layers: 1000000}", "encoder.num_layers is 1000000, no whole number from 1 to 1000"),
    "positions": ("decoder: {max_sequence_length: 2000000000}", "weights at least, more than this machine's"),
    "token types": ("encoder: {num_token_types: 2000000000}", "weights at least, more than this machine's"),
    "head": ("head: {num_layers: 1000000}", "head.num_layers is 1000000"),
    "NaN": ("encoder: {hidden_size: .nan}", "encoder.hidden_size is nan; give a finite number"),
    "infinity": ("len_pen: .inf", "len_pen is inf; give a finite number"),
    "a probability that is none": ("encoder: {ffn_dropout: .nan}", "encoder.ffn_dropout is nan"),
    "a bool": ("encoder: {num_layers: true}", "encoder.num_layers is True"),
    "a text": ("encoder: {num_layers: '3'}", "encoder.num_layers is 3, no whole number"),
    "nothing": ("encoder: {hidden_size: 0}", "encoder.hidden_size is 0"),
    "negative": ("decoder: {inner_size: -4}", "decoder.inner_size is -4"),
    "a fraction": ("decoder: {inner_size: 0.5}", "decoder.inner_size is 0.5"),
    "no section": ("encoder: 3", "encoder is no section"),
    "a section that is none": ("optim: 3", "does not fit|gives no model|SUCCESS"),
}


@pytest.mark.parametrize("case", SIZES)
def test_sizes_of_a_student(case, tiny_teacher_path, tmp_path, capsys, monkeypatch):
    text, message = SIZES[case]
    path, output = tmp_path / "student.yaml", tmp_path / "out/s.nemo"
    path.write_text(text)
    if "SUCCESS" not in message:
        monkeypatch.setattr(initial_student, "MTEncDecModel", lambda *_: pytest.fail("a model was built"))
    with time_limit(20):
        status = cli.main(
            ["init", "--teacher", str(tiny_teacher_path), "--student", str(path), "--output", str(output)]
        )
    error = capsys.readouterr().err
    if status or "SUCCESS" not in message:
        assert status == 2
        assert re.search(message, error.splitlines()[-1]), error
        assert not output.parent.exists()


@pytest.mark.parametrize("seed", [10**30, -(10**30)])
def test_a_seed_that_no_generator_takes(seed, tiny_teacher_path, tmp_path, capsys):
    path = tmp_path / "student.yaml"
    path.write_text("{}")
    command = [
        "init",
        "--teacher",
        str(tiny_teacher_path),
        "--student",
        str(path),
        "--output",
        str(tmp_path / "s.nemo"),
    ]
    assert cli.main([*command, "--seed", str(seed)]) == 2
    assert "--seed has" in capsys.readouterr().err


YAMLS = {
    "large": ("a: " + "x" * 300_000, "more than the 262144 bytes"),
    "deep": ("a: " + "[" * 100, "nested more than"),
    "wide": ("a: [" + "1, " * 30_000 + "1]", "too many values"),
    "empty": ("", "no value for a key|is no mapping|SUCCESS"),
}


@pytest.mark.parametrize("case", YAMLS)
def test_yaml_of_a_student(case, tmp_path):
    text, message = YAMLS[case]
    (tmp_path / "student.yaml").write_text(text)
    with time_limit(10):
        if "SUCCESS" in message:
            assert read_model_section(tmp_path / "student.yaml")[0] == {}
        else:
            with pytest.raises(InputError, match=message):
                read_model_section(tmp_path / "student.yaml")


def test_defaults_without_end(tmp_path):
    for number in range(100):
        (tmp_path / f"f{number}.yaml").write_text(f"defaults: [f{number + 1}]\n")
    with time_limit(10), pytest.raises(InputError, match="lead to more than 64 files"):
        read_model_section(tmp_path / "f0.yaml")


def test_a_thousand_models_in_a_plot(tmp_path):
    """Their names would cover each other, and to place them would take for ever."""
    points = [Point(f"m{number}", 1000 + number, 30.0, None) for number in range(1000)]
    with time_limit(20):
        plot_quality_against_size({"test": points})


def test_more_models_than_an_evaluation_has(tmp_path):
    an_evaluation(labels=[f"m{number}" for number in range(1001)], test_sets=["test"]).save(tmp_path)
    with time_limit(20), pytest.raises(InputError, match="more than 1000 models or test sets"):
        EvaluationResult.load(tmp_path)
