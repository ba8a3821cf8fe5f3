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
"""Whether a cache of the teacher's outputs pays: what it takes to write it, against what its runs read of it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from nemo_distill.errors import InputError
from nemo_distill.jobs.architecture import model_section
from nemo_distill.jobs.recipe import Recipe
from nemo_distill.jobs.recipe_sections import Labels, Run
from nemo_distill.jobs.running import CONFIGS
from nemo_distill.support.text_files import text_bytes

PRESET = "distillation="
_BYTES_OF_A_TOKEN = 4
_PAYS_FROM = 1.5
"""Tokens that are read for each that is scored: a cached step is not free, and what is read is an estimate."""


def with_caches_that_pay(recipe: Recipe, train: Sequence[Path]) -> tuple[Recipe, list[str]]:
    """Return a recipe whose caches are all to be made: of those with `if_it_pays` the ones that pay.

    A run of a cache that does not pay has its teacher beside it. The tokens of a text are estimated by its bytes, four
    each, those that a run reads by its steps; where patience may end it earlier, by half of them. Of compressed text
    no more is read than decides.

    Args:
        recipe: of the job.
        train: files of the training text; none where the job fetches it: then every cache is made, since whether it
            pays must not change once the text is there.

    Returns:
        the recipe, and a line for each cache that is not made.

    Raises:
        InputError: an objective of such a cache's runs cannot do without it.
    """
    lines: list[str] = []
    for name in [name for name, cache in recipe.caches.items() if cache.if_it_pays]:
        readers = {label: run for label, run in recipe.runs.items() if run.cache == name}
        for label, run in readers.items():
            _check_preset(label, run)
        read = sum(_tokens_read(recipe, run) for run in readers.values())
        most = read / _PAYS_FROM / pairs_of_a_line(recipe, f"cache-{name}")
        enough = math.ceil(most * _BYTES_OF_A_TOKEN)
        if text_bytes(train, enough) < enough:
            recipe = replace(recipe, caches=recipe.caches | {name: replace(recipe.caches[name], if_it_pays=False)})
            continue
        recipe = _without(recipe, name)
        names, scored = ", ".join(readers) or "no run", read / _PAYS_FROM
        lines.append(
            f"cache '{name}' does not pay: {names} would read about {read / 1e6:,.0f} million tokens of it, and it "
            f"would score more than {scored / 1e6:,.0f} million; the teacher runs beside them"
        )
    return recipe, lines


def _without(recipe: Recipe, name: str) -> Recipe:
    """Return a recipe without one of its caches, whose runs have their teacher beside them."""
    caches = {other: cache for other, cache in recipe.caches.items() if other != name}
    runs = {label: replace(run, cache=None if run.cache == name else run.cache) for label, run in recipe.runs.items()}
    grid = recipe.grid
    if grid is not None:
        rows = {
            row: replace(each, cache=None if each.cache == name else each.cache)
            for row, each in grid.objectives.items()
        }
        grid = replace(grid, objectives=rows)
    return replace(recipe, caches=caches, runs=runs, grid=grid)


def pairs_of_a_line(recipe: Recipe, stage: str) -> int:
    """Return how many pairs a stage reads for each line of the training text; a cache of several texts reads them all.

    Example:
        >>> pairs_of_a_line(Recipe(caches={"both": Cache(texts=["gold", "beam"])}), "cache-both")
        2
    """
    cache = recipe.caches.get(stage.removeprefix("cache-"))
    if cache is None or not stage.startswith("cache-"):
        return 1
    return sum(recipe.pseudo_labels.get(each, Labels()).kept for each in cache.texts)


def _tokens_read(recipe: Recipe, run: Run) -> float:
    """Return how many tokens all seeds of a run train on, on one device."""
    student = recipe.student.of(run)
    overrides = [*recipe.overrides, *student.overrides, *run.overrides]
    batch = model_section("distill", "tiny_1x1", overrides)["train_ds"]["tokens_in_batch"]
    return len(run.seeds) * student.steps * batch * (1.0 if student.patience is None else 0.5)


def _check_preset(label: str, run: Run) -> None:
    """Refuse a run that cannot do without its cache."""
    given = [str(each).removeprefix(PRESET) for each in run.overrides if str(each).startswith(PRESET)]
    path = CONFIGS / "distillation" / f"{given[-1] if given else 'hinton'}.yaml"
    teacher = (yaml.safe_load(path.read_text("utf-8")) or {}).get("teacher", {}) if path.is_file() else {}
    if "model_path" not in teacher or "cache" not in teacher:
        raise InputError(
            f"recipe.runs.{label}: its cache is made only if it pays, and {PRESET}{path.stem} does not read a teacher "
            f"without a cache as well as from one; give {PRESET}recommended, or a cache without if_it_pays"
        )
