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
"""What a job will cost, and what would make the longest stage cheaper, measured as that stage was."""

import sys
from collections.abc import Sequence
from dataclasses import replace

from nemo_distill.errors import InputError, StageError
from nemo_distill.jobs.costs import Plan, Saving, StageCost, dominating
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.paying import pairs_read
from nemo_distill.jobs.recipe import FIRST_SEED
from nemo_distill.jobs.recipe_sections import PRESET, Cache, Labels, Run
from nemo_distill.jobs.short_runs import ShortRuns
from nemo_distill.support.temporary import TemporaryDirectory
from nemo_distill.support.threads import cores

_ANY_RUN = {"plain": Run(plain=True, seeds=[FIRST_SEED])}


def plan_job(
    graph: Graph, jobs: int = 1, devices: int = 1, price: float | None = None, longest: float = 170.0, nodes: int = 1
) -> Plan:
    """Measure what each stage of a recipe will cost.

    All that is written goes to a temporary directory. Where the time is over, students that were not measured count as
    the slowest that was.

    Args:
        graph: of the job; its directory is looked into for what is done.
        jobs: stages that `run` is to have side by side.
        devices: GPUs, or machines like this one, for the scaled times.
        price: euros for one of them and hour.
        longest: seconds after which no further short run begins.
        nodes: among which the devices are divided.

    Raises:
        InputError, StageError: a short run of a stage failed, as the stage would; the message holds what it said.
    """
    with TemporaryDirectory() as work:
        runs = ShortRuns(graph, work, jobs, longest)
        runs.measure()
        stages = runs.costs(devices)
        savings = find_savings(runs, stages)
    return Plan(stages, jobs, devices, f"{cores()} CPU cores", savings, price, nodes)


def find_savings(runs: ShortRuns, costs: Sequence[StageCost]) -> list[Saving]:
    """Measure what would change the stage that takes longest; what there is no time for is left out.

    Args:
        runs: whose short runs have been made.
        costs: of all stages.
    """
    longest = dominating(costs)
    if longest is None or longest.how != "measured" or runs.is_late():
        return []
    found: list[Saving] = []
    name = longest.name.removeprefix("pseudo-")
    try:
        if longest.name in runs.group_of:
            _of_students(runs, runs.group_of[longest.name], costs, found)
        elif name in runs.recipe.pseudo_labels:
            _of_labels(runs, name, longest, found)
    except (InputError, StageError) as error:  # as of a type that the device has not: nothing is claimed
        print(f"planning: a change of {longest.name} could not be measured: {error}", file=sys.stderr, flush=True)
    return found


def _of_labels(runs: ShortRuns, name: str, cost: StageCost, found: list[Saving]) -> None:
    labels, changes = runs.recipe.pseudo_labels[name], {}
    options = list(map(str, labels.options))
    if labels.select_from is None and "--quantization" not in options:
        changes["int8 weights (--quantization int8)"] = ["--quantization", "int8"]
    if labels.select_from is None and not {"--search", "--beam-size", "--num-hypotheses"} & set(options):
        changes["a smaller beam (--beam-size 2)"] = ["--beam-size", "2"]
    for change, more in changes.items():
        if not runs.is_late():
            other = {"plan": Labels([*options, *more])}
            runs.measure_text("pseudo-plan", pseudo_labels=other, runs=_ANY_RUN)
            lines = pairs_read(runs.recipe, f"pseudo-{name}", runs.lines["train"], runs.unlabelled)
            found.append(Saving(change, cost.seconds - runs.decoding["pseudo-plan"].seconds(lines)))


def _of_students(runs: ShortRuns, group: str, costs: Sequence[StageCost], found: list[Saving]) -> None:
    run, before = runs.recipe.runs[group], runs.training[group]
    left = [cost.name for cost in costs if runs.group_of.get(cost.name) == group and not cost.done]
    sizes = [runs.recipe.student.of(runs.recipe.runs[runs.recipe.label_of(name)]) for name in left]
    steps = sum(size.steps for size in sizes)
    if run.cache is not None or not run.hears_teacher:
        return
    options = list(map(str, run.overrides))
    if not any("precision" in each for each in options):
        precision = "++model.distillation.teacher.precision=bf16"
        runs.measure_student("plan_bf16", replace(run, overrides=[*options, precision]))
        saved = (before.step - runs.training["plan_bf16"].step) * steps
        found.append(Saving(f"the teacher in bf16 ({precision})", saved))
    if f"{PRESET}hinton" in options and run.start is None and not runs.is_late():
        caches = {"plan": Cache()}
        runs.measure_text("cache-plan", caches=caches, pseudo_labels={}, runs=_ANY_RUN)
        kept = [each for each in options if "distillation.teacher" not in each and each != f"{PRESET}hinton"]
        cached = Run([f"{PRESET}hinton_cached", *kept], cache="plan")
        runs.measure_student("plan_cached", cached, caches=caches)
        saved = (before.step - runs.training["plan_cached"].step) * steps
        saved -= runs.decoding["cache-plan"].seconds(runs.lines["train"])
        change = f"a cache in place of the live teacher ({PRESET}hinton_cached), the time to write it counted in,"
        found.append(Saving(change, saved))
