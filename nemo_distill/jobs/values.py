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
"""What a recipe's runs are told to learn by, checked before the first of them begins."""

from collections.abc import Sequence

from nemo_distill.config.section import DistillationConfig
from nemo_distill.errors import ConfigurationError, InputError
from nemo_distill.jobs import allowed
from nemo_distill.jobs.architecture import model_section
from nemo_distill.jobs.noted import Stage
from nemo_distill.jobs.recipe import Recipe
from nemo_distill.jobs.running import essence
from nemo_distill.training.monitored import WHERE, mode_of

_WITHOUT_A_TEACHER = "train_nmt.py"
_MODEL = "model="
_SECTION = "model.distillation."
_SHIPPED = {"monitor": "val_sacreBLEU", "mode": "max"}
"""How configs/ keep checkpoints."""
_TEMPERATURE = f"{_SECTION}objective.word_kd.temperature"
"""Which a grid gives its runs, of numbers that it has checked itself."""


def check_objectives(recipe: Recipe, stages: Sequence[Stage]) -> None:
    """Refuse runs that change their preset's `distillation` section to what it cannot be.

    Args:
        recipe: of the job.
        stages: its commands.

    Raises:
        InputError: names the run and every fault of its section.
    """
    of_grid, seen = recipe.grid.runs() if recipe.grid else {}, set()
    commands = {stage.name: stage.command for stage in stages}
    for label, run in recipe.runs.items():
        overrides = list(map(str, recipe.overrides_of(run)))
        if label in of_grid:
            overrides = [each for each in overrides if not each.startswith(_TEMPERATURE)]
        changed = {key for key in allowed.keys_of(overrides) if key.startswith(_SECTION)}
        if not changed or (*overrides, run.cache) in seen:
            continue
        seen.add((*overrides, run.cache))
        entry, *arguments = essence(commands[recipe.names(label)[0]])
        if entry == _WITHOUT_A_TEACHER:
            raise InputError(
                f"run {label}: {min(changed)} is set, and a plain training has no `distillation` section; give it in "
                "the overrides of the runs that have one"
            )
        (model,) = (each.removeprefix(_MODEL) for each in arguments if each.startswith(_MODEL))
        section = model_section(entry.removesuffix(".py"), model, arguments).get("distillation")
        try:
            DistillationConfig.from_section(section)
        except ConfigurationError as error:
            raise InputError(f"run {label}: {error}") from error


def check_scores(recipe: Recipe) -> None:
    """Refuse runs that are to keep the worst checkpoint: a loss by its largest value, or BLEU by its smallest.

    Args:
        recipe: of the job.

    Raises:
        InputError: names the run, and what to give.
    """
    trainings = {f"run {label}": recipe.overrides_of(run) for label, run in recipe.runs.items()}
    if recipe.trains_teacher:
        trainings["teacher"] = [*recipe.overrides, *recipe.teacher.overrides]
    for name, overrides in trainings.items():
        given = allowed.values_of(overrides)
        params = {key: given[place] for key in _SHIPPED if (place := f"{WHERE}.{key}") in given}
        try:
            mode_of(_SHIPPED | params)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
