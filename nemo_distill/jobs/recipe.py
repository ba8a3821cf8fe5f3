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
"""A job in one YAML file: teacher, corpus, students, what they learn from, and what is made of it.

What a recipe may ask for is in `nemo_distill.jobs.allowed`: one that came from elsewhere runs no code of its own, and
writes nowhere but in the job's directory.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_distill.config.reading import checked, inner_section, name_faults, read_plain_yaml
from nemo_distill.data.bleu_tokenizer import TOKENIZERS
from nemo_distill.decoding.engine import QUANTIZATIONS
from nemo_distill.decoding.foreign_files import is_foreign
from nemo_distill.errors import InputError
from nemo_distill.evaluation.layout import Changes
from nemo_distill.evaluation.results import row_label
from nemo_distill.jobs import allowed
from nemo_distill.jobs.defaults import DEFAULT, default_recipe, settings_for
from nemo_distill.jobs.grid import Grid
from nemo_distill.jobs.recipe_sections import (
    GOLD_TEXT,
    OF_RUNS,
    PRESET,
    Cache,
    Labels,
    Run,
    Size,
    Student,
    preset_keys,
)
from nemo_distill.jobs.settings import with_values
from nemo_distill.support.quoting import plain_text
from nemo_distill.training.identity import ENDLESS, schedule_to_the_end

UI_STRINGS = "ui-strings"
_OWN = ("corpus", "tokenizer", "teacher", "pseudo", "caches", "logs", "earlier", "evaluation", "report", "export")
_OWN += ("slurm", "student.json", "notes.json", "stages.json", "progress.json", "plan.json")
"""What lies in a job's directory beside its runs."""
FIRST_SEED = 1
"""Of a recipe that names none; the directories of its runs go without it."""
_SCHEDULE = "model.optim.sched."
_OWN_STARTS = ("pseudo-", "cache-", "tokenizer-", "layout-", "teacher_")


@dataclass
class Recipe:
    """What a job trains, compares and exports."""

    source: str = "de"
    """Source language, the suffix of the files."""
    target: str = "en"
    """Target language."""
    corpus: str | None = None
    """Directory with train, valid and test files of each language, or ui-strings, which is fetched; null: --corpus."""
    unlabelled: list = field(default_factory=list)
    """Files of text in the source language that has no translations, which pseudo-labels give it."""
    teacher: Size | str | list = field(default_factory=Size)
    """Path of a .nemo archive or its name on NGC; several, whose mean teaches; the directory of a model that is not
    NeMo's, which gives labels alone; or the model to train as one."""
    teacher_source: str | None = None
    """The teacher's source language, in its own words: of an archive that names none, as NGC's of 1.0.0rc1, or
    several; of a model that is not NeMo's, such as deu_Latn. null: as the archive says, of several `source`."""
    teacher_target: str | None = None
    """The same of its target language."""
    student: Student = field(default_factory=Student)
    """All students, and the plain runs."""
    pseudo_labels: dict[str, Labels] = field(default_factory=dict)
    """By a name of your choice."""
    caches: dict[str, Cache] = field(default_factory=dict)
    """By a name of your choice."""
    runs: dict[str, Run] = field(default_factory=dict)
    """By the label of the row."""
    grid: Grid | None = None
    """Further runs."""
    seeds: list = field(default_factory=lambda: [FIRST_SEED])
    """Of the runs that name none; in tables runs go without it where none has more than one. More can be added later:
    what is trained stays."""
    vocab_size: int = 4000
    """Of the tokenizer, where the teacher is trained or is not NeMo's; students take that of any other."""
    validations: int = 5
    """Of each model while it trains, where it has no `validate_every`."""
    overrides: list = field(default_factory=list)
    """Overrides of every training run, the teacher's too."""
    tests: dict[str, list] = field(default_factory=dict)
    """Test sets by name: a source file and its translations, one or more; none: the corpus's own, as `test`."""
    bleu_tokenizer: str | None = None
    """Of sacreBLEU, in validations and in the table, such as `char`; null: that of the target language, else of the
    script of the text."""
    changes: dict[str, Changes] = field(default_factory=dict)
    """Tables of differences in the report by title; each row names two runs, and is the first less the second."""
    export: str | None = None
    """Write a run for deployment, with weights of this type, such as int8."""
    export_run: str | None = None
    """Label of that run, of which the seed with the highest BLEU over all test sets is written; null: the run with the
    highest, over its seeds too."""

    def __post_init__(self) -> None:
        if self.grid is not None:
            self.runs = {**self.runs, **self.grid.runs()}
        for run in self.runs.values():
            run.seeds = self.seeds if run.seeds is None else run.seeds

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        faults = self._own_faults(where) + self._patience_faults(where)
        faults += self._export_faults(where) + self._file_faults(where)
        own = {*map(str, inner_section(given, "runs"))}  # those of the grid are among `self.runs` too
        faults += [
            f"{where}.runs.{name}: the grid has a run of that name; give this one another name"
            for name in (self.grid.runs() if self.grid is not None else ())
            if name in own
        ]
        faults += [
            f"{where}.runs.{name}.{key}: got '{asked}'; give one of {', '.join(known) or '(none)'}"
            for name, run in self.runs.items()
            for key, asked, known in (("pseudo", run.pseudo, self.pseudo_labels), ("cache", run.cache, self.caches))
            if asked is not None and asked not in known
        ]
        faults += [
            f"{where}.pseudo_labels.{name}.select_from: got '{labels.select_from}'; give other labels that are decoded"
            for name, labels in self.pseudo_labels.items()
            if labels.select_from is not None
            and getattr(self.pseudo_labels.get(labels.select_from), "select_from", "") is not None
        ]
        faults += [
            f"{where}.pseudo_labels.{name}.options: got --target, and '{labels.select_from}' is of disturbed copies, "
            "which have no gold translations"
            for name, labels in self.pseudo_labels.items()
            if labels.select_from is not None and labels.has("--target") and self.decoded(labels).has("--disturb")
        ]
        rows = [*self.runs, *self.teacher_names]
        faults += [
            f"{where}.changes.{title}: got {each}; give rows of the table: {', '.join(rows)}"
            for title, table in self.changes.items()
            for each in sorted({*table.labels()} - {*rows})
        ]
        faults += self._unlabelled_faults(where)
        faults += self._cache_faults(where) + self._start_faults(where)
        has_runs = self.runs or self.grid is not None  # which has some, or a fault
        return faults if has_runs else [f"{where}.runs: is empty; name at least one run"]

    @property
    def trains_teacher(self) -> bool:
        """Whether the teacher is a model to train."""
        return isinstance(self.teacher, Size)

    @property
    def teachers(self) -> list[str]:
        """The teachers that are given."""
        return [] if self.trains_teacher else [self.teacher] if isinstance(self.teacher, str) else self.teacher

    @property
    def teacher_names(self) -> list[str]:
        """Their names in the table."""
        count = len(self.teachers)
        return [f"teacher_{n + 1}" for n in range(count)] if count > 1 else ["teacher"]

    def decoded(self, labels: Labels) -> Labels:
        """Return the labels whose hypotheses these are: others where they are chosen anew, else they themselves."""
        return self.pseudo_labels.get(labels.select_from, labels)

    def label_of(self, name: str) -> str | None:
        """Return the label of the run that a model or a stage belongs to, by its name; None: it is of no run."""
        label = row_label(name)
        return label if label in self.runs else None

    def overrides_of(self, run: Run | None = None) -> list:
        """Return the overrides of a run's training, the recipe's and the student's first; None: these alone."""
        return [*self.overrides, *self.student.overrides, *(run.overrides if run else ())]

    def names(self, label: str) -> list[str]:
        """Return the names of a run's models in tables, of its seeds; where no run has several, its label."""
        if all(len(run.seeds) == 1 for run in self.runs.values()):
            return [label]
        return [_seeded(label, seed) for seed in self.runs[label].seeds]

    @staticmethod
    def place(label: str, seed: int) -> str:
        """Return what a run of one seed is called in a job: of it alone, so that seeds may be added."""
        return label if seed == FIRST_SEED else _seeded(label, seed)

    def _own_faults(self, where: str) -> list[str]:
        """Return the faults of single values."""
        faults = allowed.override_faults(self.overrides, f"{where}.overrides", OF_RUNS)
        for key in ("source", "target"):
            faults += allowed.language_faults(getattr(self, key), f"{where}.{key}")
        for key in ("teacher_source", "teacher_target"):
            if (language := getattr(self, key)) is not None:
                faults += allowed.language_faults(language, f"{where}.{key}")
        for key in ("pseudo_labels", "caches", "runs"):
            faults += allowed.name_faults(getattr(self, key), f"{where}.{key}: a name")
        for name in self.runs:
            if name in _OWN or name.startswith(_OWN_STARTS):
                faults.append(f"{where}.runs.{name}: the job has something of that name; give another one")
            if re.search(r"@seed[\w=-]*$", name):
                faults.append(f"{where}.runs.{name}: ends as the seeds of one row do; give seeds, or another name")
        if self.bleu_tokenizer is not None and self.bleu_tokenizer not in TOKENIZERS:
            known = ", ".join(map(str, TOKENIZERS))
            faults.append(f"{where}.bleu_tokenizer: got {plain_text(self.bleu_tokenizer, 80)}; sacreBLEU has {known}")
        if self.source == self.target:
            faults.append(f"{where}.source, {where}.target: both are '{self.source}'; give two languages")
        for key in ("vocab_size", "validations"):
            value = getattr(self, key)
            faults += [] if value > 0 else [f"{where}.{key}: got {value}; give at least 1"]
        seeds = {f"{where}.runs.{name}.seeds": run.seeds for name, run in self.runs.items()}  # those of the grid too
        for place, value in {f"{where}.seeds": self.seeds, **seeds}.items():
            faults += allowed.seed_faults(value, place) if value is not self.seeds or place == f"{where}.seeds" else []
        return faults

    def _patience_faults(self, where: str) -> list[str]:
        """Return the faults of runs that alone have patience, and of schedules that need a last step which it may not
        come to.
        """
        given = {}
        if self.student.patience is not None:
            given |= {f"{where}.student": self.student.overrides}
            given |= {f"{where}.runs.{name}": run.overrides for name, run in self.runs.items()}
        if self.trains_teacher and self.teacher.patience is not None:
            given |= {f"{where}.teacher": self.teacher.overrides}
        given |= {where: self.overrides} if given else {}
        faults = [
            f"{where}.runs.{name}.patience: got {run.patience}, and `student` has none; give student.patience, too"
            for name, run in self.runs.items()
            if run.patience is not None and self.student.patience is None
        ]
        schedules = {place: schedule_to_the_end(_schedule(overrides)) for place, overrides in given.items()}
        return faults + [
            f"{place}.overrides: model.optim.sched ({name}) lays the learning rate out over all steps, and patience "
            f"may end the run earlier; give one of {', '.join(ENDLESS)}, with warmup_steps (a warmup_ratio is a share "
            "of all steps), or no patience"
            for place, name in schedules.items()
            if name is not None
        ]

    def _unlabelled_faults(self, where: str) -> list[str]:
        """Return the faults of labels of text without translations."""
        readers = [name for name, labels in self.pseudo_labels.items() if labels.unlabelled]
        faults = [
            f"{where}.pseudo_labels.{name}.options: got --target, and '{labels.select_from}' is of unlabelled text, "
            "which has no gold translations"
            for name, labels in self.pseudo_labels.items()
            if labels.select_from in readers and labels.has("--target")
        ]
        if self.unlabelled and not readers:
            faults.append(
                f"{where}.unlabelled: no labels are of it; give some of pseudo_labels `unlabelled: true`, and a run "
                "that trains on them"
            )
        if readers and not self.unlabelled:
            faults.append(
                f"{where}.pseudo_labels.{readers[0]}.unlabelled: there is no such text; give --unlabelled FILE, or "
                "`unlabelled: [FILE]` at the recipe's top"
            )
        return faults

    def _cache_faults(self, where: str) -> list[str]:
        """Return the faults of what caches are of, and of runs that read other text."""
        labels, faults = self.pseudo_labels, []
        if self.caches and GOLD_TEXT in labels:
            faults.append(f"{where}.pseudo_labels.{GOLD_TEXT}: caches call the training text so; give another name")
        for name, cache in self.caches.items():
            for each in cache.texts:
                faults += name_faults(each, [GOLD_TEXT, *labels], f"{where}.caches.{name}.texts")
        decoded = {GOLD_TEXT: GOLD_TEXT, **{name: each.select_from or name for name, each in labels.items()}}
        for name, run in self.runs.items():
            cache, read = self.caches.get(run.cache), run.pseudo or GOLD_TEXT
            if cache is None or any("on_miss" in str(each) for each in run.overrides):
                continue
            if read in decoded and decoded[read] not in {decoded.get(each) for each in map(str, cache.texts)}:
                faults.append(f"{where}.runs.{name}.cache: '{run.cache}' lacks '{read}'; add it to its texts")
        return faults

    def _start_faults(self, where: str) -> list[str]:
        """Return the faults of runs whose preset starts from the teacher, which a recipe must know."""
        return [
            f"{where}.runs.{name}.start: is missing, and {PRESET}{run.preset} starts from the teacher; give start, "
            f"such as every_nth, or {PRESET}hinton, which starts at random"
            for name, run in self.runs.items()
            if run.start is None and not run.plain and preset_keys(run.preset).get("init")
        ]

    def _export_faults(self, where: str) -> list[str]:
        faults = name_faults(self.export, QUANTIZATIONS, f"{where}.export") if self.export is not None else []
        if self.export_run is None:
            return faults
        if self.export is None:
            return [f"{where}.export_run: is set without export; give export, such as int8"]
        return faults + name_faults(self.export_run, self.runs, f"{where}.export_run")

    def _file_faults(self, where: str) -> list[str]:
        """Return the faults of what names files."""
        places = {f"{where}.corpus": [self.corpus] if self.corpus is not None else []}
        if not self.trains_teacher:
            places[f"{where}.teacher"] = self.teachers
        places[f"{where}.unlabelled"] = self.unlabelled
        faults = [] if self.trains_teacher or self.teachers else [f"{where}.teacher: is empty; name at least one"]
        faults += allowed.name_faults(self.tests, f"{where}.tests: a name", allowed.TEST_SET)
        for name, files in self.tests.items():
            places[f"{where}.tests.{name}"] = files
            if len(files) < 2:
                faults.append(f"{where}.tests.{name}: got {len(files)} files; give a source file and its translation")
        return faults + [fault for place, files in places.items() for fault in allowed.path_faults(files, place)]


def _seeded(label: str, seed: int) -> str:
    """Return the name of a model of several seeds, of which `row_label` gives back the label."""
    return f"{label}@seed{seed}"


def layout_of(recipe: Recipe) -> str:
    """Return the further tables of the report, as JSON (see `nemo_distill.evaluation.layout`)."""
    grids = recipe.grid.tables() if recipe.grid else {}
    changes = {title: dataclasses.asdict(table) for title, table in recipe.changes.items()}
    return json.dumps({"grids": grids, "changes": changes}, indent=1, ensure_ascii=False)


def read_recipe(
    path: Path | None, given: Mapping[str, Any] | None = None, settings: Sequence[str] = (), starts: bool = True
) -> Recipe:
    """Read a recipe.

    Args:
        path: of the YAML file; None: `DEFAULT`, or `DEFAULT_ON_LABELS` where the teacher is not NeMo's; where there is
            text without translations, with a student that reads that too.
        given: values in place of those at its top, such as `corpus`.
        settings: values in place of any, after those: `student.steps=100`, as YAML; a section is replaced whole.
            `runs.hybrid=null` leaves that row out, and so of labels, caches, tests and tables of differences; one
            that another default has is left out already.
        starts: whether students can start from the teacher; else `DEFAULT_AT_RANDOM` takes the place of `DEFAULT`.

    Raises:
        InputError: there is no such file, or it has faults; the message lists all of them.
    """
    if path is None:
        top = with_values(
            DEFAULT, given, [each for each in settings if each.partition("=")[0] in ("teacher", "unlabelled")]
        )
        content = default_recipe(_has_foreign_teacher(top), bool(top.get("unlabelled")), starts)
        settings = settings_for(content, settings)
    else:
        content = read_plain_yaml(path, "recipe")
    content = with_values(content, given, settings)
    place = str(path) if path is not None else "the default recipe"
    recipe = checked(Recipe, content, "recipe", place)
    try:
        layout_of(recipe).encode()
    except (ValueError, TypeError) as error:  # half a character, a date
        raise InputError(f"{place}: the names of rows and tables are no text ({str(error)[:200]})") from error
    return recipe


def _schedule(overrides: Sequence[Any]) -> dict[str, Any]:
    """Return what overrides say of the schedule, as a configuration; without a name it is one that stays."""
    good = [each for each in overrides if not allowed.override_faults([each], "")]
    own = {
        key.removeprefix(_SCHEDULE): value
        for key, value in allowed.values_of(good).items()
        if key.startswith(_SCHEDULE)
    }
    return {"model": {"optim": {"sched": {"name": "WarmupPolicy", **own}}}}


def _has_foreign_teacher(content: Mapping[str, Any]) -> bool:
    teachers = content["teacher"] if isinstance(content["teacher"], list) else [content["teacher"]]
    return any(isinstance(each, str) and is_foreign(each) for each in teachers)
