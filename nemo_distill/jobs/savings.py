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
"""What would make the stage cheaper that takes longest: each change is measured as the stage itself was."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import yaml

from nemo_distill.jobs.costs import Saving, StageCost, dominating
from nemo_distill.jobs.recipe_sections import Cache, Labels, Run
from nemo_distill.jobs.running import CONFIGS

if TYPE_CHECKING:
    from nemo_distill.jobs.planning import Planning

_PRESET = "distillation="
_ANY_RUN = {"plain": Run(plain=True, seeds=[1])}


def reads_teacher(run: Run) -> bool:
    """Return whether a run's objective reads a teacher, beside it or from a cache, or starts from one."""
    if run.plain and run.start is None:
        return False
    preset = next(
        (each.removeprefix(_PRESET) for each in reversed(_overrides(run)) if each.startswith(_PRESET)), "hinton"
    )
    path = CONFIGS / "distillation" / f"{preset}.yaml"
    has_section = path.is_file() and "teacher" in (yaml.safe_load(path.read_text("utf-8")) or {})
    return run.start is not None or has_section or any("distillation.teacher." in each for each in _overrides(run))


def find_savings(planning: "Planning", costs: Sequence[StageCost]) -> list[Saving]:
    """Measure what would change the stage that takes longest; what there is no time for is left out.

    Args:
        planning: whose short runs have been made.
        costs: of all stages.
    """
    longest = dominating(costs)
    if longest is None or longest.how != "measured" or planning.is_late():
        return []
    if longest.name in planning.group_of:
        return _of_students(planning, planning.group_of[longest.name], costs)
    name = longest.name.removeprefix("pseudo-")
    return _of_labels(planning, name, longest) if name in planning.recipe.pseudo_labels else []


def _of_labels(planning: "Planning", name: str, cost: StageCost) -> list[Saving]:
    labels, changes = planning.recipe.pseudo_labels[name], {}
    options = list(map(str, labels.options))
    if labels.select_from is None and "--quantization" not in options:
        changes["int8 weights (--quantization int8)"] = ["--quantization", "int8"]
    if labels.select_from is None and not {"--search", "--beam-size", "--num-hypotheses"} & set(options):
        changes["a smaller beam (--beam-size 2)"] = ["--beam-size", "2"]
    found = []
    for change, more in changes.items():
        if not planning.is_late():
            other = {"plan": Labels([*options, *more])}
            planning.measure_text("pseudo-plan", pseudo_labels=other, runs=_ANY_RUN)
            found.append(
                Saving(change, cost.seconds - planning.decoding["pseudo-plan"].seconds(planning.lines["train"]))
            )
    return found


def _of_students(planning: "Planning", group: str, costs: Sequence[StageCost]) -> list[Saving]:
    run, before, found = planning.recipe.runs[group], planning.training[group], []
    count = sum(planning.group_of.get(cost.name) == group and not cost.done for cost in costs)
    steps = planning.recipe.student.steps * count
    if run.cache is not None or not reads_teacher(run) or (run.plain and run.start is not None):
        return found
    options = _overrides(run)
    if not any("precision" in each for each in options):
        precision = "++model.distillation.teacher.precision=bf16"
        planning.measure_student("plan_bf16", replace(run, overrides=[*options, precision]))
        saved = (before.step - planning.training["plan_bf16"].step) * steps
        found.append(Saving(f"the teacher in bf16 ({precision})", saved))
    if f"{_PRESET}hinton" in options and run.start is None and not planning.is_late():
        caches = {"plan": Cache()}
        planning.measure_text("cache-plan", caches=caches, pseudo_labels={}, runs=_ANY_RUN)
        kept = [each for each in options if "distillation.teacher" not in each and each != f"{_PRESET}hinton"]
        cached = Run([f"{_PRESET}hinton_cached", *kept], cache="plan")
        planning.measure_student("plan_cached", cached, caches=caches)
        saved = (before.step - planning.training["plan_cached"].step) * steps
        saved -= planning.decoding["cache-plan"].seconds(planning.lines["train"])
        change = f"a cache in place of the live teacher ({_PRESET}hinton_cached), the time to write it counted in,"
        found.append(Saving(change, saved))
    return found


def _overrides(run: Run) -> list[str]:
    return list(map(str, run.overrides))
