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
"""Which runs of a recipe take as long as others, which have a teacher, and sums by hand of what was measured."""

from pathlib import Path

import pytest
from made_up_results import finish

from nemo_distill.jobs.costs import Rate, StageCost, TrainingRate
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.measuring import STEPS, Observed
from nemo_distill.jobs.paying import pairs_read
from nemo_distill.jobs.planning import find_savings
from nemo_distill.jobs.recipe import Recipe, read_recipe
from nemo_distill.jobs.recipe_sections import Cache, Labels, Run
from nemo_distill.jobs.short_runs import ShortRuns, groups_of

RECIPES = Path(__file__).parents[3] / "examples" / "recipes"


def test_one_run_is_measured_for_all_that_take_as_long():
    groups = groups_of(read_recipe(RECIPES / "multi30k.yaml"))
    assert groups["hinton"] == "hinton"
    assert groups["interpolation_0.9"] == groups["interpolation_0.34"] == "interpolation_0.1"
    assert groups["seq_top_k"] == "seq_beam"
    assert len(set(groups.values())) == 9


def test_what_changes_a_step_is_measured_by_itself():
    groups = groups_of(read_recipe(RECIPES / "cached.yaml"))
    assert groups["live_5"] == groups["live_1"] == "live_1"
    assert groups["best_2"] == "best_1"
    assert groups["drawn_2"] == "drawn_1"


def test_a_cache_costs_as_much_as_all_its_texts():
    labels = {"beam": Labels(["--beam-size", 4]), "all": Labels(["--keep", 4], select_from="beam")}
    caches = {"gold": Cache(), "both": Cache(texts=["gold", "beam"]), "every": Cache(texts=["all", "gold"])}
    recipe = Recipe(pseudo_labels=labels, caches=caches)
    counts = [pairs_read(recipe, f"cache-{name}", 7) for name in caches]
    assert counts == [7, 14, 35]
    assert pairs_read(recipe, "pseudo-all", 7) == 7


def test_text_without_translations_costs_what_its_lines_do():
    """Labels of it too, those chosen of these, and a cache of either; a cache of gold text none of it."""
    labels = {
        "beam": Labels(["--disturb", 2], True),
        "all": Labels(["--keep", 4], select_from="beam"),
        "own": Labels(),
    }
    caches = {"gold": Cache(), "both": Cache(texts=["gold", "beam"]), "every": Cache(texts=["all", "own"])}
    recipe = Recipe(unlabelled=["mono.de"], pseudo_labels=labels, caches=caches)
    counts = [pairs_read(recipe, f"cache-{name}", 10, 1000) for name in caches]
    assert counts == [10, 10 + 2 * 1010, 2 * 4 * 1010 + 10]
    assert [pairs_read(recipe, f"pseudo-{name}", 10, 1000) for name in labels] == [1010, 1010, 10]


@pytest.mark.parametrize(
    ("run", "hears", "reads"),
    [
        (Run(plain=True), False, False),
        (Run(plain=True, start="every_nth"), False, True),
        (Run(), True, True),
        (Run(["distillation=hinton"]), True, True),
        (Run(["distillation=hinton_cached"], cache="best"), True, True),
        (Run(["distillation=seq_level"], pseudo="beam"), False, False),
        (Run(["distillation=seq_level"], pseudo="beam", start="every_nth"), False, True),
        (Run(["distillation=seq_level", "++model.distillation.teacher.precision=bf16"]), True, True),
        (Run(["distillation=hinton", "distillation=nll"]), False, False),
    ],
)
def test_which_run_has_a_teacher(run, hears, reads):
    assert (run.hears_teacher, run.reads_teacher) == (hears, reads)


@pytest.fixture
def runs(tmp_path) -> ShortRuns:
    """A recipe of one teacher and three runs, measured with numbers by hand."""
    hybrid = "{pseudo: beam, overrides: [distillation=hybrid]}"
    settings = ["student={}", "caches={}", "pseudo_labels={beam: {}}"]
    settings.append(f"runs={{plain: {{plain: true}}, student: {{}}, hybrid: {hybrid}}}")
    graph = Graph(read_recipe(None, {"corpus": "ui-strings"}, settings), tmp_path / "out")
    runs = ShortRuns(graph, tmp_path, 2, 100.0)
    runs.group_of = groups_of(runs.recipe)
    runs.lines = {"train": 90_000, "valid": 1000, "test": 1000}
    runs.taken = {("wide", "train"): 30_000, ("some", "train"): 6000}
    runs.imports, runs.light, runs.tested, runs.compared = 5.0, 0.5, 200, 0.004
    runs.scored = [Rate(1.0, 0.01), Rate(0.5, 0.002)]
    events = {"measuring": [(6.0, 0), (7.0, 1)], "counting the words of train.de": [(5.0, 0), (6.0, 30_000)]}
    totals = {"measuring": 1, "counting the words of train.de": 30_000}
    runs.observed = {
        "report": Observed(9.0, 1e9, True, events, totals),
        "tokenizer": Observed(2.5, 1e8),
        "export": Observed(8.0, 1e9),
    }
    runs.disk = {"report": 1e5, "tokenizer": 1e5, "export": 5e5}
    return runs


def test_a_student_reads_its_labels_too(runs):
    """As many gold lines in their place in the short run; those of text without translations, it may be."""
    labels = runs.recipe.pseudo_labels
    runs.unlabelled = 600_000
    assert [runs._lines_read(name) for name in ("teacher", "plain", "student", "hybrid")] == [90_000] * 4
    labels["beam"] = Labels(["--disturb", 3])
    assert runs._lines_read("hybrid") == 90_000 * 2
    labels["beam"] = Labels(unlabelled=True)
    assert runs._lines_read("hybrid") == (90_000 + 690_000) / 2
    runs.decoding["pseudo-beam"] = Rate(5.0, 0.1)
    runs.observed["pseudo-beam"], runs.disk["pseudo-beam"] = Observed(2.0, 1e8, True), 6e6
    cost = next(cost for cost in runs.costs(1) if cost.name == "pseudo-beam")
    assert (cost.seconds, cost.disk) == (pytest.approx(5 + 69_000), pytest.approx(6e6 * 690 / 6))


def test_what_other_labels_would_save_is_of_all_their_lines(runs):
    runs.recipe.pseudo_labels["beam"] = Labels(unlabelled=True)
    runs.unlabelled, runs.begun = 600_000, float("inf")

    def measure_text(name, **changes):
        runs.decoding[name] = Rate(5.0, 0.06)

    runs.measure_text = measure_text
    cost = StageCost("pseudo-beam", 5 + 69_000.0)
    savings = find_savings(runs, [cost, StageCost("plain", 9.0)])
    assert [saving.seconds for saving in savings] == [pytest.approx(690_000 * (0.1 - 0.06))] * 2


def test_a_short_run_leaves_text_without_translations_out(tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split in ("train", "valid", "test"):
        for language in ("de", "en"):
            (corpus / f"{split}.{language}").write_text(f"a line of {split}.{language}\n")
    more = tmp_path / "more.de"
    more.write_text("another line\n" * 7)
    recipe = read_recipe(None, {"corpus": str(corpus), "unlabelled": [str(more)]}, ["student={}"])
    runs = ShortRuns(Graph(recipe, tmp_path / "out"), tmp_path / "work", 2, 100.0)
    runs._samples()
    assert (runs.unlabelled, runs.lines["train"]) == (7, 1)
    command = runs._short("some")["pseudo-unlabelled"].command
    assert str(more) not in command
    assert "--test" not in command
    assert str(more) in {stage.name: stage.command for stage in runs.stages}["pseudo-unlabelled"]


def test_what_follows_the_trainings(runs):
    """Of four models, with three comparisons; they were those of two, on a fifth of the sentences."""
    costs = {cost.name: cost for cost in runs.costs(1)}
    assert costs["evaluation"].seconds == pytest.approx(5 + 1 + 3 * 0.5 + 1000 * (0.01 + 3 * 0.002 + 3 * 0.004))
    assert costs["report"].seconds == pytest.approx(9 + (4 / 2 * 1000 / 200 - 1) * 1 + 1 * (90 / 30 - 1))
    assert costs["tokenizer"].seconds == pytest.approx(0.5 + 2 * 3)
    assert "export" in costs
    assert (costs["export"].seconds, costs["export"].how) == (8.0, "measured")
    del runs.observed["export"]
    assert runs.costs(1)[-1].seconds == 5.5


def test_a_model_is_opened_once_for_all_test_sets(runs, tmp_path):
    (tmp_path / "set").write_text("a line\n" * 100)
    runs.recipe.tests = {name: [str(tmp_path / "set")] * 2 for name in "abc"}
    costs = {cost.name: cost for cost in runs.costs(1)}
    assert costs["evaluation"].seconds == pytest.approx(5 + 1 + 3 * 0.5 + 300 * (0.01 + 3 * 0.002 + 3 * 0.004))


def test_a_training_without_its_validation_says_so(runs):
    runs.training = {"plain": TrainingRate(10.0, 0.1, 0.004, 2.0, 1.0), "student": TrainingRate(10.0, 0.2)}
    costs = {cost.name: cost for cost in runs.costs(1)}
    assert costs["plain"].seconds == pytest.approx(10 + 1000 * 0.1 + 5 * (4 + 2) + 1)
    assert costs["plain"].how == "measured"
    assert costs["student"].how == "measured, without its validations"
    assert costs["hybrid"].how == "not measured: as student, without its validations"


def test_a_run_with_steps_of_its_own_costs_so_many(tmp_path):
    """It is measured by the short run of its twin, and in none that makes all of its steps."""
    own = ["student={steps: 100, patience: 2, validate_every: 50}", "seeds=[1]", "runs.longer={plain: true}"]
    recipe = read_recipe(None, {"corpus": "ui-strings"}, [*own, "runs.longer.steps=900", "runs.longer.patience=99"])
    runs = ShortRuns(Graph(recipe, tmp_path / "out"), tmp_path, 2, 100.0)
    runs.group_of, runs.lines, runs.taken = groups_of(runs.recipe), {"train": 100, "valid": 10, "test": 10}, {}
    runs.taken = {("wide", "train"): 100, ("some", "train"): 100}
    runs.training = {"plain": TrainingRate(10.0, 0.1, 0.004, 2.0, 1.0)}
    assert runs.group_of["longer"] == "plain"
    costs = {stage.name: runs._cost(stage, 1) for stage in runs.stages if stage.name in ("plain", "longer")}
    assert costs["plain"].seconds == pytest.approx(10 + 100 * 0.1 + 2 * (0.04 + 2) + 1)
    assert costs["longer"].seconds == pytest.approx(10 + 900 * 0.1 + 18 * (0.04 + 2) + 1)
    assert costs["longer"].at_most
    (tmp_path / "wide").mkdir()
    for split in ("train", "valid", "test"):
        for language in ("de", "en"):
            (tmp_path / "wide" / f"{split}.{language}").write_text("a\n")
    short = runs._short("wide")["longer"].command
    assert f"trainer.max_steps={STEPS}" in short
    assert not [each for each in short if each.startswith("patience=")]


def test_what_is_made_anew_is_not_done(tiny_corpus, tmp_path):
    """Twelve seconds were the forecast, and the time limit in Slurm, of students of a hundred times as many steps."""

    recipe = ["runs={plain: {plain: true}, student: {overrides: [distillation=hinton]}}", "student.steps=10"]

    def made(*settings: str) -> Graph:
        text = [*recipe, "export=null", *settings]
        return Graph(read_recipe(None, {"corpus": str(tiny_corpus)}, text), tmp_path / "out")

    finish(made().stages(), tmp_path / "out")
    assert ShortRuns(made(), tmp_path, 1, 100.0).done == dict.fromkeys((stage.name for stage in made().stages()), 12.0)
    longer = ShortRuns(made("student.steps=1000"), tmp_path, 1, 100.0)
    assert longer.done.keys() == {"tokenizer", "teacher"}
    assert ShortRuns(made("teacher.steps=9"), tmp_path, 1, 100.0).done.keys() == {"tokenizer", "plain"}
    (tmp_path / "out" / "plain" / "plain.nemo").unlink()
    assert "plain" not in ShortRuns(made(), tmp_path, 1, 100.0).done


class OneMore(ShortRuns):
    """Has time to measure one student more, whose step takes a tenth of a second."""

    def measure_student(self, label, run, **changes):
        self.training[label], self.longest = TrainingRate(5.0, 0.1), 0.0


def test_what_would_be_saved_is_of_all_steps_of_all_runs(tmp_path):
    text = ["runs={a: {}, b: {steps: 900}, c: {steps: 50}, plain: {plain: true}}", "student={steps: 100}"]
    recipe = read_recipe(None, {"corpus": "ui-strings"}, text)
    runs = OneMore(Graph(recipe, tmp_path / "out"), tmp_path, 1, 1000.0)
    runs.group_of, runs.training = groups_of(recipe), {"a": TrainingRate(5.0, 0.3)}
    costs = [StageCost("a", 40.0), StageCost("b", 300.0), StageCost("c", 20.0, done=True), StageCost("plain", 9.0)]
    (saving,) = find_savings(runs, costs)
    assert saving.seconds == pytest.approx((100 + 900) * 0.2)


def test_what_was_not_measured_is_as_slow_as_its_like(tmp_path):
    """A student without a teacher counted as one that waits for its teacher's outputs at each step."""
    recipe = read_recipe(RECIPES / "multi30k.yaml", {"corpus": "ui-strings"})
    runs = ShortRuns(Graph(recipe, tmp_path / "out"), tmp_path, 1, 100.0)
    runs.training = {
        "plain": TrainingRate(5.0, 0.1),
        "hinton": TrainingRate(9.0, 0.3),
        "teacher": TrainingRate(9.0, 9.0),
    }
    assert runs._stand_in("seq_beam") == "plain"
    assert runs._stand_in("hybrid") == "hinton"
    assert runs._stand_in("interpolation_0.1") == "plain"
    del runs.training["plain"]
    assert runs._stand_in("seq_beam") == "hinton"
