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
"""Which runs of a recipe take as long as others, and which have a teacher."""

from pathlib import Path

import pytest

from nemo_distill.jobs.recipe import Recipe, read_recipe
from nemo_distill.jobs.recipe_sections import Cache, Labels, Run
from nemo_distill.jobs.short_runs import groups_of, pairs_of_a_line, reads_teacher

RECIPES = Path(__file__).parents[3] / "examples" / "recipes"


def test_one_run_is_measured_for_all_that_take_as_long():
    groups = groups_of(read_recipe(RECIPES / "multi30k.yaml"))
    assert {groups[f"hinton@seed{seed}"] for seed in (1, 2, 3)} == {"hinton"}
    assert groups["interpolation_0.9@seed1"] == groups["interpolation_0.34@seed1"] == "interpolation_0.1"
    assert groups["seq_top_k@seed1"] == "seq_beam"
    assert len(set(groups.values())) == 9  # of 22 models
    assert len(groups) == 22


def test_what_changes_a_step_is_measured_by_itself():
    groups = groups_of(read_recipe(RECIPES / "cached.yaml"))
    assert groups["live_5@seed1"] == groups["live_1@seed1"] == "live_1"
    assert groups["best_2@seed1"] == "best_1"
    assert groups["drawn_2@seed1"] == "drawn_1"


def test_a_cache_costs_as_much_as_all_its_texts():
    labels = {"beam": Labels(["--beam-size", 4]), "all": Labels(["--keep", 4], select_from="beam")}
    caches = {"gold": Cache(), "both": Cache(texts=["gold", "beam"]), "every": Cache(texts=["all", "gold"])}
    recipe = Recipe(pseudo_labels=labels, caches=caches)
    counts = [pairs_of_a_line(recipe, f"cache-{name}") for name in caches]
    assert counts == [1, 2, 5]
    assert pairs_of_a_line(recipe, "pseudo-all") == 1


@pytest.mark.parametrize(
    ("run", "answer"),
    [
        (Run(plain=True), False),
        (Run(plain=True, start="every_nth"), True),
        (Run(), True),
        (Run(["distillation=hinton"]), True),
        (Run(["distillation=hinton_cached"], cache="best"), True),
        (Run(["distillation=seq_level"], pseudo="beam"), False),
        (Run(["distillation=seq_level", "++model.distillation.teacher.precision=bf16"]), True),
        (Run(["distillation=hinton", "distillation=nll"]), False),
    ],
)
def test_which_run_has_a_teacher(run, answer):
    assert reads_teacher(run) is answer
