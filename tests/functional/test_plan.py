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
"""`nemo-distill plan`: short runs of the stages of a recipe, and nothing left of them."""

import json
from pathlib import Path

import pytest

from nemo_distill import cli
from nemo_distill.jobs.costs import PLAN_NAME, plan_from

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_each_stage_has_a_cost(tiny_teacher_path, tiny_corpus, tmp_path, capfd, monkeypatch):
    """With a teacher that is there: a plain twin, scores; what labels and caches take has tests with numbers."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    size = ["model.encoder.hidden_size=16", "model.encoder.inner_size=32"]
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "out"
    content = {
        "student": {"model": "tiny_1x1", "steps": 5000, "overrides": size},
        "overrides": ["exp_manager.create_tensorboard_logger=false"],
        "runs": {"plain": {"plain": True, "seeds": [1, 2]}},
        "export": "int8",
    }
    recipe.write_text(json.dumps(content))
    command = ["plan", str(recipe), "--corpus", str(tiny_corpus), "--teacher", str(tiny_teacher_path)]
    command += ["--output-dir", str(out), "--gpus", "2", "--price", "2", "--json", str(tmp_path / "plan.json")]
    assert cli.main(command) == 0
    said = capfd.readouterr()
    assert [each.name for each in out.iterdir()] == ["tokenizer"]  # of the teacher
    assert not list((tmp_path / "temporary").glob("nemo_distill_*"))
    assert "planning: plain (" in said.err
    plan = plan_from(json.loads((tmp_path / "plan.json").read_text()), "plan.json")
    costs = {stage.name: stage for stage in plan.stages}
    assert list(costs) == ["plain", "plain@seed2", "evaluation", "report", "export"]
    assert costs["plain"].seconds == costs["plain@seed2"].seconds > 5
    assert costs["plain"].memory > 1e8
    assert costs["plain"].disk > 1e4
    assert all(stage.seconds > 0 for stage in plan.stages)
    assert "EUR" in said.out
    assert PLAN_NAME not in said.out


@pytest.mark.parametrize("option", [("--gpus", "0"), ("--price", "-1"), ("--limit", "nan"), ("--jobs", "0")])
def test_numbers_are_checked_first(option, tmp_path, capfd):
    assert cli.main(["plan", "--teacher", __file__, "--corpus", str(tmp_path), *option]) == 2
    assert f"{option[0]}: got" in capfd.readouterr().err
