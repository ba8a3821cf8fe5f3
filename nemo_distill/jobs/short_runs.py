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
"""What a recipe will cost on this machine: which short runs that takes, and from their rates to each stage."""

import math
import re
import shutil
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from nemo_distill.errors import InputError
from nemo_distill.evaluation.results import read_result
from nemo_distill.jobs.allowed import setting
from nemo_distill.jobs.costs import Rate, StageCost, TrainingRate
from nemo_distill.jobs.devices import Devices, visible_devices
from nemo_distill.jobs.graph import SPLITS, Graph
from nemo_distill.jobs.measuring import (
    SHORT,
    STEPS,
    VALIDATED,
    Observed,
    disk_of,
    observe,
    running,
    sample,
    start_up,
    text_rate,
    training_rate,
)
from nemo_distill.jobs.noted import Stage
from nemo_distill.jobs.paying import pairs_of, pairs_read
from nemo_distill.jobs.progress import StageProgress, earlier_times
from nemo_distill.jobs.recipe import FIRST_SEED, Recipe
from nemo_distill.jobs.recipe_sections import Cache, Labels, Run, Size, Student
from nemo_distill.jobs.running import verb_command
from nemo_distill.jobs.side_by_side import beside
from nemo_distill.support.text_files import count_lines
from nemo_distill.support.threads import cores

_WIDE, _SOME, _LEAST, _TESTED = 30_000, 3_000, 64, 200
"""Pairs of the training text for trainings, and for labels and caches, most and least; sentences of a test set."""
_SMALL_TEACHER = 30e6
"""Bytes of an archive that writes labels of `_SOME` lines in seconds; a larger one gets fewer."""
_MASKED = re.compile(r"\+*model\.distillation\.(mixture\.(probabilities|seed)\b.*|\S*(temperature|fraction)=.*)")
"""Overrides that change what is learnt, and not how long a step takes."""


class ShortRuns:
    """The short runs of one plan, and what they came to."""

    graph: Graph
    recipe: Recipe
    lines: dict[str, int]
    """Of the corpus, by split."""
    unlabelled: int
    """Lines of the text without translations."""
    decoding: dict[str, Rate]
    """Of labels and caches, by the names of stages."""
    training: dict[str, TrainingRate]
    """Of the teacher and of students, by the labels of runs; others take as long as the one of their group."""
    group_of: dict[str, str]
    """The label of the run that was measured, by the names of stages."""

    def __init__(self, graph: Graph, work: Path, jobs: int, longest: float) -> None:
        self.graph, self.work, self.longest = graph, work, longest
        self.begun = time.monotonic()
        known = earlier_times(graph.directory)
        self.done = {name: known.get(name, StageProgress()).seconds for name in graph.finished(graph.stages())}
        recipe = graph.recipe
        if graph.fetches and "corpus" in self.done:
            recipe = replace(recipe, corpus=str(graph.corpus), grid=None)
        self.recipe = replace(recipe, student=graph.student, grid=None)
        self.job = work / "job"
        self.whole = Graph(self.recipe, self.job, graph.trust_archive, graph.opened)
        self.stages = self.whole.stages()
        self.beside = beside({stage.name: stage.needs for stage in self.stages}, jobs)
        """Beside how many stages each runs."""
        self.gpus = visible_devices() if jobs > 1 else []
        self.observed: dict[str, Observed] = {}
        """By the names of stages."""
        self.disk: dict[str, float] = {}
        self.decoding, self.training = {}, {}
        self.scored: list[Rate] = []
        """Of the teacher and of the run that was scored."""

    def measure(self) -> None:
        """Make all short runs."""
        recipe = self.recipe
        self._say("start-up of a process")
        self.imports = start_up(cores()).seconds
        if self.whole.fetches:
            self._run(self.stages[0], longest=600.0)
        self._samples()
        self.is_trained = not recipe.trains_teacher
        if self.whole.given is None:
            self._make_first()
        labels, groups = {stage.name: recipe.label_of(stage.name) for stage in self.stages}, groups_of(recipe)
        self.group_of = {name: groups[label] for name, label in labels.items() if label is not None}
        for name in recipe.pseudo_labels:
            self.measure_text(f"pseudo-{name}")
        for name in recipe.caches:
            self.measure_text(f"cache-{name}")
        labels = [label for label, _ in Counter(self.group_of.values()).most_common()]
        scored = next((label for label in labels if not recipe.runs[label].plain), labels[0])  # a page is of students
        for label in labels:
            if self.is_late():
                break
            self.measure_student(label, recipe.runs[label])
            if label == scored:
                self._measure_evaluation(label)

    def _samples(self) -> None:
        files, work = self.whole.files, self.work
        self.lines = {split: count_lines(files[split][0]) for split in SPLITS}
        self.unlabelled = sum(map(count_lines, self.recipe.unlabelled))
        size = sum(path.stat().st_size for path in self.whole.teacher_files)
        some = max(int(_SOME * min(_SMALL_TEACHER / max(size, 1), 1.0)), _LEAST)
        self.taken = {}
        for kind, train in (("wide", _WIDE), ("some", some)):
            take = {"train": train, "valid": VALIDATED, "test": _TESTED}
            for split in SPLITS:
                pairs = [(path, work / kind / path.name) for path in files[split]]
                self.taken[kind, split] = sample(pairs, self.lines[split], take[split])

    def _make_first(self) -> None:
        """Measure tokenizer and teacher; what is there already is what is measured with.

        A teacher that is not NeMo's is there.
        """
        stages = self._short("wide")
        ready = [name for name in ("tokenizer", "teacher") if name in stages]
        if self.done.keys() >= set(ready) and all((self.graph.directory / each).is_dir() for each in ready):
            for each in ready:
                shutil.copytree(self.graph.directory / each, self.job / each)
            self.is_trained = True
            return
        self.light = observe(verb_command("tokenizer", "--help"), cores()).seconds
        self._run(stages["tokenizer"])
        if "teacher" not in stages:
            return
        self._train("teacher", stages["teacher"], self.beside["teacher"])
        if not stages["teacher"].result.is_file():
            seen, done = self.observed["teacher"].seconds, self.observed["teacher"].steps[-1][1]
            short = f"came to {done} of {STEPS} steps" if done < STEPS else "did not come to the end of its validation"
            raise InputError(
                f"the teacher {short} in {seen:.0f} s, so there is none to go on with; give a larger --limit, or a "
                "faster device"
            )

    def _short(self, kind: str, **changes: object) -> dict[str, Stage]:
        """Return the stages over a sample of the text, by name.

        Args:
            kind: of the sample.
            changes: to the recipe.
        """
        recipe: Recipe = self.recipe
        short = {
            "corpus": str(self.work / kind),
            "tests": {},
            "changes": {},
            "validations": 1,
            "export_run": None,
            "unlabelled": [],
        }
        short["student"] = _shortened(Student, recipe.student)
        if recipe.trains_teacher:
            short["teacher"] = _shortened(Size, recipe.teacher)
        short["caches"] = {name: Cache(cache.options) for name, cache in recipe.caches.items()}
        changed, given = replace(recipe, **short | changes), (self.job, self.graph.trust_archive, self.graph.opened)
        changed.runs = {label: replace(run, steps=None, patience=None) for label, run in changed.runs.items()}
        return {stage.name: stage for stage in Graph(changed, *given).stages()}

    def _run(
        self, stage: Stage, longest: float | None = None, beside: int = 1, trains: bool = False, **options: bool
    ) -> Observed:
        """Run a stage in small, on its share of the cores.

        Args:
            stage: to run.
            longest: seconds.
            beside: stages that run at a time, it among them.
            trains: it is a training, and so many of it are run at a time: they wait for each other's memory.
            options: of `observe`.
        """
        self._say(stage.name)
        longest = longest or self.longest / 3 + 3 * self.imports
        if stage.result.parent.is_dir():  # of another sample
            shutil.rmtree(stage.result.parent)
        places = [self.work / f"beside-{number}" for number in range(1, beside if trains else 1)]
        others = [[*stage.command, setting("output_dir", place)] for place in places]
        threads = max(cores() // beside, 1)
        devices = Devices(self.gpus)
        own, *gpus = (devices.take(str(n), command, beside) for n, command in enumerate([stage.command, *others]))
        with running(others, threads, gpus):
            self.observed[stage.name] = observe(stage.command, threads, longest, gpus=own, **options)
        for place in places:
            shutil.rmtree(place, ignore_errors=True)
        self.disk[stage.name] = disk_of(stage.result.parent)
        return self.observed[stage.name]

    def _train(self, name: str, stage: Stage, beside: int, kind: str = "wide") -> None:
        observed = self._run(replace(stage, command=[*stage.command, *SHORT]), beside=beside, trains=True)
        if observed.steps:  # else `start_up` may have read the libraries from a disk
            self.imports = min(self.imports, observed.steps[0][0])
        share = self.taken[kind, "train"] / self._lines_read(name)
        self.training[name] = training_rate(observed, self.taken[kind, "valid"], share, kind == "some")

    def _lines_read(self, name: str) -> float:
        """Return the lines of a model's text; of gold text and labels the mean: a short run has as many of each."""
        gold, run = self.lines["train"], self.recipe.runs.get(name)
        if run is None or run.pseudo is None:
            return gold
        return (gold + pairs_of(self.recipe, run.pseudo, gold, self.unlabelled)) / 2

    def measure_text(self, name: str, **changes: object) -> None:
        """Measure labels or a cache, by the progress that a run over a sample shows."""
        stage = self._short("some", **changes)[name]
        if not self.is_trained and not self.recipe_labels(name).select_from:
            stage = replace(stage, command=[*stage.command, "--force"])  # the teacher knows no text yet
        is_new = not self.is_trained  # it says nothing that a filter keeps
        observed = self._run(stage, beside=self.beside.get(name, 1), may_fail=is_new)
        self.decoding[name] = text_rate(observed, self.taken["some", "train"])

    def recipe_labels(self, name: str) -> Labels:
        """Return the labels of a stage; those without options where it makes others, or a cache."""
        return self.recipe.pseudo_labels.get(name.removeprefix("pseudo-"), Labels())

    def measure_student(self, label: str, run: Run, **changes: object) -> None:
        """Measure a run; one that reads a cache on the text that the cache has, one that reads labels on gold ones."""
        kind = "some" if run.cache is not None else "wide"
        stages = self._short(kind, runs={label: replace(run, seeds=[FIRST_SEED])}, seeds=[FIRST_SEED], **changes)
        more = [setting("pseudo", self._gold_labels(kind))] if run.pseudo is not None else []
        if run.reads_teacher and not self.is_trained:  # which knows no text yet
            more.append("++model.distillation.teacher.on_disagreement=warn")
        stage = replace(stages[label], command=[*stages[label].command, *more])
        self._train(label, stage, max(self.beside[name] for name in self.group_of), kind)

    def _gold_labels(self, kind: str) -> Path:
        """Return labels that are the gold text, in place of those that take a teacher."""
        recipe, text, gold = self.recipe, self.work / kind, self.work / kind / "gold"
        if not gold.exists():
            command = verb_command("pseudo-label", "--hypotheses", str(text / f"train.{recipe.target}"))
            command += ["--input", str(text / f"train.{recipe.source}"), "--output-dir", str(gold)]
            self._say("text in place of labels")
            observe(command, cores())
        return gold

    def _measure_evaluation(self, label: str) -> None:
        """Measure the scores of the teacher and of a run that was trained for some steps."""
        run = self.recipe.runs[label]
        kind = "some" if run.cache is not None else "wide"
        stages = self._short(kind, runs={label: replace(run, seeds=[FIRST_SEED])}, seeds=[FIRST_SEED])
        observed = self._run(stages["evaluation"])
        if not observed.ended:
            return
        self._run(stages["report"], may_fail=True)  # of hypotheses that say nothing
        scores = read_result(stages["evaluation"].result.parent)[0].scores
        self.tested = self.taken[kind, "test"]
        decoded, (compared, _) = [score.seconds or 0.0 for score in scores], observed.spent("comparing")
        opening = max(observed.seconds - sum(decoded) - compared - self.imports, 0.0) / max(len(scores), 1)
        self.scored = [Rate(opening, seconds / self.tested) for seconds in decoded]
        self.compared = compared / self.tested
        if self.recipe.export is not None and not self.is_late():
            self._run(self.whole.export_of(stages[label]))

    def costs(self, devices: int) -> list[StageCost]:
        """Return what each stage of the job will cost."""
        costs = [self._cost(stage, devices) for stage in self.stages]
        if self.graph.fetches and not self.whole.fetches:
            costs.insert(0, StageCost("corpus", 0.0, done=True))
        if self.recipe.export is not None:
            costs.append(self._cost(Stage("export", [], self.job / "export", ("evaluation",)), devices))
        for cost in costs:
            cost.done = cost.done or cost.name in self.done
            cost.seconds = self.done.get(cost.name) or cost.seconds
            cost.at_most = cost.at_most and not cost.done
        return costs

    def _cost(self, stage: Stage, devices: int) -> StageCost:
        name, recipe = stage.name, self.recipe
        cost = StageCost(name, None, needs=stage.needs)
        measured = self.group_of.get(name, name)
        more = self.lines["train"] / self.taken["wide", "train"]
        if name in self.decoding:
            lines = pairs_read(recipe, name, self.lines["train"], self.unlabelled)
            cost.seconds = self.decoding[name].seconds(lines)
            is_selection = self.recipe_labels(name).select_from is not None
            cost.divided = None if is_selection else self.decoding[name].seconds(lines, devices)
            cost.disk = self.disk[name] * lines / self.taken["some", "train"]
            cost.how = cost.how if self.observed[name].ended else "from what it came to"
        elif name == "teacher" or name in self.group_of:
            if measured not in self.training:
                measured = self._stand_in(measured)
                cost.how = f"not measured: as {measured}"
            label = recipe.label_of(name)
            size = recipe.teacher if label is None else recipe.student.of(recipe.runs[label])
            if measured in self.training:
                count = max(size.steps // size.interval(recipe.validations), 1)
                cost.seconds = self.training[measured].seconds(size.steps, count, self.lines["valid"])
                if self.training[measured].validated is None:
                    cost.how = f"{cost.how}, without its validations"
            cost.at_most = size.patience is not None
            cost.disk = self.disk.get(measured, 0.0)
        elif name == "evaluation":
            cost.seconds = self._evaluation_seconds()
        elif name in self.observed:
            cost.seconds, cost.disk = self.observed[name].seconds, self.disk[name]
            if name == "tokenizer":
                cost.seconds += (cost.seconds - self.light) * (more - 1)
            if name == "report":
                cost.seconds = self._report_seconds(more)
        elif name == "export" and self.scored:
            cost.seconds, cost.how = self.imports + self.scored[-1].fixed, "as opening a model"
        cost.how = "not measured" if cost.seconds is None else cost.how
        cost.memory = self.observed[measured].memory if measured in self.observed else 0.0
        return cost

    def _stand_in(self, label: str) -> str:
        """Return the slowest student that was measured, of those that read a teacher, or none, as another does."""
        runs = self.recipe.runs
        students = [name for name in self.training if name in runs]
        kinds = {name: (runs[name].reads_teacher, runs[name].cache is None) for name in runs}
        alike = [name for name in students if kinds[name] == kinds.get(label)]
        return max(alike or students, key=lambda name: self.training[name].step, default="")

    def _evaluation_seconds(self) -> float | None:
        if not self.scored:
            return None
        sets, teachers, students = self._test_lines(), len(self.whole.teachers), len(self.group_of)
        (command,) = (stage.command for stage in self.stages if stage.name == "evaluation")
        pairs = math.comb(teachers + students, 2)
        if "--compare" in command:
            pairs = command.index("--test") - command.index("--compare") - 1
        teacher, student = self.scored[0], self.scored[-1]
        return (
            self.imports
            + teachers * teacher.fixed
            + students * student.fixed
            + sum(sets) * (teachers * teacher.each + students * student.each + pairs * self.compared)
        )

    def _test_lines(self) -> list[int]:
        return [count_lines(files[0]) for files in self.recipe.tests.values()] or [self.lines["test"]]

    def _report_seconds(self, more: float) -> float:
        """Return the seconds of a report, from one of two models on one test set and a part of the training text."""
        observed, models = self.observed["report"], len(self.whole.teachers) + len(self.group_of)
        (measured, _), (counted, _) = observed.spent("measuring"), observed.spent("counting")
        more_sentences = models / 2 * sum(self._test_lines()) / self.tested
        return observed.seconds + measured * (more_sentences - 1) + counted * (more - 1)

    def is_late(self) -> bool:
        """Return whether no further short run is to begin."""
        return time.monotonic() - self.begun > self.longest

    def _say(self, what: str) -> None:
        seconds = time.monotonic() - self.begun
        print(f"planning: {what} ({seconds:.0f} s of about {self.longest:.0f})", file=sys.stderr, flush=True)


def _shortened(kind: type[Size], size: Size) -> Size:
    """Return a size with the steps of a short run, and what makes a step slower."""
    return kind(size.model, STEPS, size.overrides, ema=size.decay, dropout=size.dropout)


def groups_of(recipe: Recipe) -> dict[str, str]:
    """Return for each run of a recipe, by its label, that of the first run whose steps take as long.

    Seeds, temperatures, shares of a mixture and which labels are read do not change how long a step takes.
    """
    found, first = {}, {}
    for label, run in recipe.runs.items():
        overrides = [str(each) for each in run.overrides if not _MASKED.fullmatch(str(each))]
        kind = repr((overrides, run.plain, run.start, run.cache, run.pseudo is not None, run.dropout))
        found[label] = first.setdefault(kind, label)
    return found
