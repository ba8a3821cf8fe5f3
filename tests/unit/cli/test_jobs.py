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
"""`nemo-distill run`: where a job goes that is given no directory."""

import dataclasses
import json
from pathlib import Path

import pytest

from nemo_distill.cli.jobs import _check_plan_file, _default_directory, _graph
from nemo_distill.cli.options import check_paths
from nemo_distill.cli.parser import build_parser, main
from nemo_distill.jobs import devices
from nemo_distill.jobs.costs import Plan, StageCost
from nemo_distill.support import compat

RECIPES = Path(__file__).parents[3] / "examples" / "recipes"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("demo.yaml", "demo"),
        ("demo.yaml --corpus data/mine --teacher models/big.nemo", "demo-mine-big"),
        ("demo.yaml --source fr", "demo-fr-en"),
        ("demo.yaml --source de --target en", "demo"),
        ("multi30k.yaml --corpus data/multi30k", "multi30k"),  # which names no corpus of its own
        ("--corpus data/mine --teacher big.nemo", "run-mine-big"),
    ],
)
def test_another_corpus_teacher_or_language_has_a_directory_of_its_own(arguments, name, monkeypatch):
    monkeypatch.chdir(RECIPES)
    args = build_parser().parse_args(["run", *arguments.split()])
    assert _default_directory(args, {}) == Path("runs", name + ("-nemo2" if compat.NEMO_2 else ""))


def test_settings_are_of_the_recipe_for_the_teacher_that_is_given(tmp_path, monkeypatch):
    """The default recipe for another one lacks that row."""
    monkeypatch.chdir(tmp_path)
    Path("opus").mkdir()
    Path("opus/model.bin").touch()
    Path("opus/config.json").write_text("{}")
    command = "run --corpus mine --teacher opus --set runs.interpolation.seeds=[1,2]"
    found = _default_directory(build_parser().parse_args(command.split()), {"teacher": ["opus"], "corpus": "mine"})
    assert found == Path("runs", "run-mine-opus" + ("-nemo2" if compat.NEMO_2 else ""))


@pytest.mark.parametrize("recipe", [[], [str(RECIPES / "recommended_small.yaml")]])
def test_the_corpus_that_is_fetched_has_a_name(recipe, tmp_path, monkeypatch):
    """As in a recipe; it was looked for as a directory, as a command at the head of a recipe had it."""
    monkeypatch.chdir(tmp_path)
    args = build_parser().parse_args(["run", *recipe, "--corpus", "ui-strings", "--output-dir", "out"])
    check_paths(args)
    graph = _graph(args)
    assert graph.fetches
    assert graph.corpus == Path("out", "corpus")


def test_a_recipe_behind_the_teachers_is_no_teacher(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("runs: {plain: {plain: true}}")
    (tmp_path / "T.nemo").touch()
    assert (
        main(["run", "--corpus", str(tmp_path), "--teacher", str(tmp_path / "T.nemo"), str(tmp_path / "mine.yaml")])
        == 2
    )
    assert "mine.yaml' is a recipe, by its name; give the recipe first" in capsys.readouterr().err


def test_the_directory_where_one_is_is_the_same_by_its_path(tiny_corpus, tmp_path, monkeypatch):
    """Else all stages would count as changed, and be made anew."""
    monkeypatch.chdir(tmp_path)
    found = []
    for directory in (".", str(tmp_path)):
        args = build_parser().parse_args(["run", "--corpus", str(tiny_corpus), "--output-dir", directory])
        graph = _graph(args)
        found.append((graph.directory, [stage.command for stage in graph.stages()]))
    assert found[0] == found[1]


def test_a_plan_replaces_a_plan_alone(tmp_path, capsys):
    """The recipe itself was replaced, or a teacher, by a slip."""
    plan, recipe = tmp_path / "plan.json", tmp_path / "mine.yaml"
    plan.write_text(json.dumps(dataclasses.asdict(Plan([StageCost("plain", 50.0)], 1, 1, "2 CPU cores"))))
    recipe.write_text("runs: {plain: {plain: true}}")
    _check_plan_file(None)
    _check_plan_file(str(plan))
    _check_plan_file(str(tmp_path / "none.json"))
    assert main(["plan", str(recipe), "--json", str(recipe)]) == 2
    assert "mine.yaml' is there, and is no plan of this version; give another name" in capsys.readouterr().err
    assert recipe.read_text() == "runs: {plain: {plain: true}}"


def test_trainings_on_the_cpu_of_a_machine_with_gpus_are_told(tiny_corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(devices.VARIABLE, raising=False)

    def said(*options: str, gpus: bool = True) -> str:
        monkeypatch.setattr(devices, "_GPUS", tmp_path if gpus else tmp_path / "none")
        _graph(build_parser().parse_args(["run", "--corpus", str(tiny_corpus), *options]))
        return capsys.readouterr().out

    assert "trainings of this job are on the CPU" in said()
    assert "trainings of this job" not in said(gpus=False)
    assert "trainings of this job" in said("--executor", "slurm", gpus=False)
    for chosen in ("trainer=gpu", "trainer=cpu"):
        assert "trainings of this job" not in said("--set", f"overrides=[{chosen}]")
    advice = said("--set", 'overrides=["model.optim.betas=[0.9,0.98]",data.tokens_in_batch=512]').partition("--set '")[
        2
    ]
    assert "trainings of this job" not in said("--set", advice.partition("'")[0])
