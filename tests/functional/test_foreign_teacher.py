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
"""A recipe whose teacher is not NeMo's: from its labels to a student and its table."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from nemo_distill import cli
from nemo_distill.evaluation.results import read_result
from nemo_distill.jobs.costs import plan_from
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.recipe import read_recipe
from nemo_distill.jobs.running import CONFIGS, essence
from nemo_distill.jobs.trainings import train_plain, train_student

ROOT = Path(__file__).parents[2]
TRAININGS = {"distill": train_student, "train_nmt": train_plain}


@pytest.fixture
def recipe(tmp_path) -> Path:
    """Of two steps, with labels that an untrained model writes: drawn, cut where it would go on; in several files."""
    kept = ["--keep-unknown", "--keep-cut", "--lines-per-file", 25]
    size = ["model.encoder.hidden_size=16", "model.encoder.inner_size=32"]
    content = {
        "teacher_source": "deu_Latn",
        "teacher_target": "eng_Latn",
        "student": {"model": "tiny_1x1", "steps": 2, "overrides": size},
        "overrides": ["trainer.enable_progress_bar=false", "exp_manager.create_tensorboard_logger=false"],
        "validations": 1,
        "vocab_size": 120,
        "pseudo_labels": {
            "drawn": {"options": ["--search", "top_k", "--max-length-delta", 3, *kept, "--compress", "gz"]},
            "short": {"select_from": "drawn", "options": ["--max-length-ratio", 1.5, *kept, "--compress", "zst"]},
        },
        "runs": {
            "plain": {"plain": True},
            "student": {"pseudo": "short", "overrides": ["distillation=interpolation"]},
        },
        "export": "int8",
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(content))
    return path


def test_each_command_of_the_job_does_its_part(recipe, foreign_model, tiny_corpus, tmp_path):
    """In this process: a job's own processes are those of any other job (`test_run.py`, and below)."""
    given = {"corpus": str(tiny_corpus), "teacher": str(foreign_model("nllb"))}
    graph = Graph(read_recipe(recipe, given), tmp_path / "out")
    stages = graph.stages()
    for stage in [*stages, graph.export_of(next(each for each in stages if each.name == "student"))]:
        script, *arguments = essence(stage.command)
        if script == "-m":
            assert cli.main(arguments[1:]) == 0, stage.name
        else:
            entry = script.removesuffix(".py")
            with initialize_config_dir(str(CONFIGS), version_base=None):
                config = compose(entry, arguments)
            TRAININGS[entry](config)
        assert stage.result.is_file()
    for labels, suffix in (("drawn", "gz"), ("short", "zst")):
        assert len(list((tmp_path / "out" / "pseudo" / labels).glob(f"hypotheses-*.txt.{suffix}"))) == 7
    result = read_result(tmp_path / "out" / "evaluation")[0]
    assert [model.label for model in result.models] == ["teacher", "plain", "student"]
    assert "| teacher |" in (tmp_path / "out" / "report" / "report.md").read_text("utf-8")


@pytest.mark.slow
def test_planned_run_and_gone_on_with(recipe, foreign_model, tiny_corpus, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    out = tmp_path / "out"
    command = [str(recipe), "--corpus", str(tiny_corpus), "--teacher", str(foreign_model("nllb"))]
    command += ["--output-dir", str(out)]
    assert cli.main(["plan", *command, "--limit", "3000", "--json", str(tmp_path / "plan.json")]) == 0
    costs = {cost.name: cost for cost in plan_from(json.loads((tmp_path / "plan.json").read_text()), "plan").stages}
    made = ["tokenizer", "pseudo-drawn", "pseudo-short", "plain", "student", "evaluation", "report"]
    assert list(costs) == [*made, "export"]
    assert all(costs[name].seconds > 0 for name in ("tokenizer", "pseudo-drawn", "plain", "evaluation"))
    assert cli.main(["run", *command]) == 0
    assert f"To deploy: {out}/export" in capfd.readouterr().out
    assert cli.main(["run", *command]) == 0
    assert capfd.readouterr().out.count("finished before") == len(made) + 1  # each once, and the export
    assert cli.main(["status", str(out)]) == 0
    assert "8 of 8 stages done, 0 failed; the job is finished" in capfd.readouterr().out
