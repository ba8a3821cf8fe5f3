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
"""From a recipe to the commands that it takes, and which needs which. Nothing is trained or decoded here."""

import hashlib
import itertools
import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

from nemo_distill.config.languages import Languages
from nemo_distill.decoding.export_record import EXPORT_NAME
from nemo_distill.decoding.foreign_files import is_foreign
from nemo_distill.errors import InputError
from nemo_distill.evaluation.results import read_result
from nemo_distill.jobs.allowed import GOLD, path_faults, setting, values_of
from nemo_distill.jobs.architecture import built_student
from nemo_distill.jobs.foreign_teacher import ForeignTeacher
from nemo_distill.jobs.latency import CHOICE_NAME, Choice, choose
from nemo_distill.jobs.noted import Stage, finished_stages
from nemo_distill.jobs.paying import unread, with_what_pays
from nemo_distill.jobs.progress import NOTES_NAME
from nemo_distill.jobs.recipe import UI_STRINGS, Recipe, layout_of
from nemo_distill.jobs.recipe_sections import GOLD_TEXT, Run, Size
from nemo_distill.jobs.running import training_command, verb_command
from nemo_distill.jobs.sizes import chosen_student
from nemo_distill.jobs.teachers import GivenTeachers
from nemo_distill.jobs.texts import check_texts, check_unlabelled, corpus_faults, leaks
from nemo_distill.jobs.twins import Twins
from nemo_distill.jobs.widths import Candidate
from nemo_distill.support.quoting import plain_text

SPLITS = ("train", "valid", "test")
_ACCUMULATED = "trainer.accumulate_grad_batches"


@dataclass
class Graph:
    """The stages of a recipe.

    Args:
        recipe: what to do.
        directory: where all of it goes.
        trust_archive: given teachers may name classes of the user's own.
        opened: the given teachers, where they have been looked at before.

    Raises:
        InputError: the corpus lacks files; a teacher is none, or cannot give what the recipe asks of it; or a student
            cannot start from it.
    """

    recipe: Recipe
    directory: Path
    trust_archive: bool = False
    opened: GivenTeachers | ForeignTeacher | None = None

    def __post_init__(self) -> None:
        recipe, out = self.recipe, self.directory
        if recipe.corpus is None:
            raise InputError(
                "the recipe names no corpus; give --corpus DIR, a directory with train, valid and test files"
            )
        self.fetches = recipe.corpus == UI_STRINGS
        self.corpus = out / "corpus" if self.fetches else Path(recipe.corpus)
        if self.fetches:
            faults = path_faults([str(out)], "--output-dir, where the corpus is fetched to")
        else:
            faults = corpus_faults(self.corpus, recipe.source, recipe.target)
        if faults:
            raise InputError(faults[0])
        languages = (recipe.source, recipe.target)
        self.files = {split: tuple(self.corpus / f"{split}.{code}" for code in languages) for split in SPLITS}
        self.unlabelled = list(map(Path, recipe.unlabelled))
        """Text without translations."""
        corpus = {} if self.fetches else self.files
        tests = [[Path(each).expanduser() for each in files] for files in recipe.tests.values()]
        if self.unlabelled:
            check_unlabelled(self.unlabelled, corpus, [*itertools.chain(*tests)])
        recipe, self.notes = with_what_pays(recipe, corpus.get("train", ()))
        """Of the notes each is a line on what is done otherwise than the recipe says, or for nothing."""
        self.notes += unread(recipe)
        self.recipe = recipe
        self.opened = self.opened or self._open_teachers()
        self.given = self.opened if isinstance(self.opened, GivenTeachers) else None
        """Teachers whose tokenizers students take."""
        self.notes += self.given.notes() if self.given else []
        self.foreign = self.opened if isinstance(self.opened, ForeignTeacher) else None
        self.notes += check_texts([*corpus.values(), *tests, *([each] for each in self.unlabelled)])
        self.text = [setting("data.tokenizer", self._tokenizer())]
        """How models read text, as overrides."""
        self.choice: Choice | None = None
        """Of the student, where that has a target of latency."""
        self.size: Candidate | None = None
        """Of the student, where it has other targets alone."""
        if recipe.student.latency_ms is not None:
            self.choice = choose(recipe, self.given, self.files["train"], self.choice_path())
            found = (self.choice.model, self.choice.overrides())
        else:
            self.size = chosen_student(recipe, self.given)
            found = (self.size.model, self.size.overrides()) if self.size else (recipe.student.model,)
        self.student = built_student(recipe, self.given, *found)

    def leaks(self) -> list[str]:
        """Return a line on each test set that the training text has pairs of; none where it is yet to be fetched."""
        tests = {name: [Path(file).expanduser() for file in files] for name, files in self.tests().items()}
        return [] if self.fetches else leaks(self.files["train"], tests)

    def _open_teachers(self) -> GivenTeachers | ForeignTeacher | None:
        recipe = self.recipe
        if any(map(is_foreign, recipe.teachers)):
            return ForeignTeacher.open(recipe, self.trust_archive)
        if recipe.teachers:
            said, pair = (recipe.teacher_source, recipe.teacher_target), (recipe.source, recipe.target)
            return GivenTeachers.open(recipe.teachers, self.trust_archive, Languages(*said), Languages(*pair))
        for key in ("teacher_source", "teacher_target"):
            if (language := getattr(recipe, key)) is not None:
                raise InputError(f"recipe.{key}: got {language}, and the teacher is trained here; leave it out")
        return None

    def inputs(self) -> dict[Path, str]:
        """Return the files that no stage writes: the layout of the report, the student that was chosen, the notes."""
        layout = layout_of(self.recipe)
        found = {self.layout_path(): layout} if self.recipe.grid or self.recipe.changes else {}
        notes = self.directory / NOTES_NAME
        if self.notes or notes.is_file():  # of an earlier call, it may be
            found |= {notes: json.dumps(self.notes, indent=1) + "\n"}
        return found | ({self.choice_path(): self.choice.text()} if self.choice else {})

    def choice_path(self) -> Path:
        """Return where is kept which student was measured to be fast enough."""
        return self.directory / CHOICE_NAME

    def layout_path(self) -> Path:
        """Return where the layout is kept: other tables have another path, so that the report is made again."""
        return self.directory / f"layout-{hashlib.sha256(layout_of(self.recipe).encode()).hexdigest()[:8]}.json"

    def stages(self) -> list[Stage]:
        """Return every command of the job but the export, which waits for the scores; see `export_stage`."""
        recipe = self.recipe
        if self.given is not None:
            self.text = self.given.tokenizer_overrides(self.directory / "tokenizer")
        stages = [self._corpus_stage()] if self.fetches else []
        if self.given is None:
            stages.append(self._tokenizer_stage())
        if recipe.trains_teacher:
            stages.append(self._teacher_stage())
        stages += [self._labels_stage(name) for name in recipe.pseudo_labels]
        stages += [self._cache_stage(name) for name in recipe.caches]
        trained = [self._run_stage(label, run, seed) for label, run in recipe.runs.items() for seed in run.seeds]
        return [*stages, *self._in_order(trained), *self._comparison(trained)]

    def _in_order(self, trained: list[Stage]) -> list[Stage]:
        """Return the trainings, first one that looks whether a teacher in memory fits the text, for which a twin needs
        no teacher; a cache looks before all of them.
        """
        recipe = self.recipe
        if self.foreign is not None or recipe.caches:
            return trained
        taught = [stage for stage in trained if recipe.runs[recipe.label_of(stage.name)].hears_teacher]
        return sorted(trained, key=lambda stage: stage not in taught[:1])

    def export_stage(self, stages: list[Stage]) -> Stage | None:
        """Return the stage that writes a run for deployment, the best of its seeds. None: none is asked for.

        Args:
            stages: of the job, all of which have finished.

        Raises:
            InputError: the scores, which say which model is best, cannot be read.
        """
        recipe = self.recipe
        if recipe.export is None:
            return None
        scores = self._scores()
        label = recipe.export_run or max(
            recipe.runs, key=lambda each: (statistics.fmean(scores[each]), not recipe.runs[each].plain)
        )
        seeds = [stage for stage in stages if recipe.label_of(stage.name) == label]
        return self.export_of(max(zip(scores[label], seeds, strict=True), key=lambda pair: pair[0])[1])

    def finished(self, stages: list[Stage]) -> set[str]:
        """Return the names of the stages that `run` would not do again, the export among them.

        Args:
            stages: of the job.
        """
        found = finished_stages(stages, self.directory)
        export = self.export_stage(stages) if "evaluation" in found else None
        return found if export is None else finished_stages([*stages, export], self.directory)

    def export_of(self, run: Stage) -> Stage:
        """Return the stage that writes one run for deployment."""
        directory = self.directory / "export"
        command = verb_command("export", "--model", str(run.result), "--output-dir", str(directory))
        command += ["--quantization", self.recipe.export]
        return Stage("export", command, directory / EXPORT_NAME, (run.name,))

    def _scores(self) -> dict[str, list[float]]:
        """Return of each run the BLEU of its seeds, each the mean over all test sets; 0 where there is none."""
        found: dict[str, list[float]] = {}
        for score in read_result(self.directory / "evaluation")[0].scores:
            found.setdefault(score.model, []).append(score.bleu)
        return {
            label: [statistics.fmean(found.get(name, [0.0])) for name in self.recipe.names(label)]
            for label in self.recipe.runs
        }

    @property
    def teachers(self) -> list[str]:
        """The models that teach."""
        if self.foreign is not None:
            return [self.foreign.path]
        return self.given.paths if self.given else [str(self.directory / "teacher" / "teacher.nemo")]

    @property
    def teacher_files(self) -> list[Path]:
        """The files of the teachers that are given."""
        return self.opened.files if self.opened else []

    def _needs(self, teacher: bool) -> tuple[str, ...]:
        """Return what a stage needs that reads the corpus, by the tokenizer, and the teacher, it may be."""
        if self.given is None and not teacher:
            return ("tokenizer",)
        if self.recipe.trains_teacher:
            return ("teacher",)
        return ("corpus",) if self.fetches else ()

    def _reads(self, *splits: str, teacher: bool = False) -> tuple[Path, ...]:
        """Return the user's own files that a stage reads."""
        text = () if self.fetches else tuple(path for split in splits for path in self.files[split])
        return (*text, *self.teacher_files) if teacher else text

    def _trust(self) -> list[str]:
        return ["--trust-archive"] if self.trust_archive else []

    def _languages(self) -> list[str]:
        return self.opened.languages.options() if self.opened else []

    def _corpus_stage(self) -> Stage:
        command = verb_command("corpus", UI_STRINGS, "--source", self.recipe.source, "--target", self.recipe.target)
        command += ["--output-dir", str(self.corpus)]
        return Stage("corpus", command, self.corpus / "manifest.json", fetches=True)

    def _tokenizer_stage(self) -> Stage:
        tokenizer, files = self._tokenizer(), self.files["train"]
        command = verb_command("tokenizer", "--input", *map(str, files), "--vocab-size", str(self.recipe.vocab_size))
        command += ["--output-dir", str(tokenizer.parent)]
        return Stage("tokenizer", command, tokenizer, ("corpus",) if self.fetches else (), reads=self._reads("train"))

    def _tokenizer(self) -> Path:
        return self.directory / "tokenizer" / "tokenizer.model"

    def _teacher_stage(self) -> Stage:
        return self._train(
            "teacher", "train_nmt", self.recipe.teacher, [], ("tokenizer",), self._reads("train", "valid")
        )

    def _train(
        self, name: str, script: str, size: Size, overrides: list[str], needs: tuple[str, ...], reads: tuple[Path, ...]
    ) -> Stage:
        """Return the stage that trains one model, validated some times on the way."""
        recipe, out = self.recipe, self.directory
        data = [setting("data.dir", self.corpus), setting("data.source", recipe.source)]
        data.append(setting("data.target", recipe.target))
        data += self.text
        data += [setting("data.bleu_tokenizer", recipe.bleu_tokenizer)] if recipe.bleu_tokenizer else []
        settings = [f"model={size.model}", setting("name", name), setting("output_dir", out / name)]
        settings += [f"trainer.max_steps={size.steps}"]
        given = values_of([*recipe.overrides, *size.overrides, *overrides])
        batches = given.get(_ACCUMULATED) or 1  # of a step, and an interval is of batches
        if not isinstance(batches, int) or batches < 1:
            raise InputError(f"{name}: {_ACCUMULATED}: got {plain_text(batches, 80)}; give a number of at least 1")
        settings += [f"trainer.val_check_interval={batches * size.interval(recipe.validations)}"]
        own = [*size.dropouts(), *recipe.overrides, *settings, *size.overrides, *overrides]
        own = [*size.ending(own), *size.rate(own), *own]
        command = training_command(script, *data, *map(str, own))
        return Stage(name, command, out / name / f"{name}.nemo", needs, reads=reads)

    def _labels_stage(self, name: str) -> Stage:
        labels, directory, (source, gold) = self.recipe.pseudo_labels[name], self._labels(name), self.files["train"]
        reads = self._reads("train", teacher=True)
        unlabelled = self.unlabelled if self.recipe.decoded(labels).unlabelled else []
        if labels.select_from is None:
            command = verb_command("pseudo-label", "--teacher", *self.teachers)
            command += ["--input", *map(str, (source, *unlabelled)), *self._languages()]
            needs = self._needs(teacher=True)
        else:
            command = verb_command("select", "--nbest", str(self._labels(labels.select_from)))
            needs = (f"pseudo-{labels.select_from}",)
        if unlabelled:
            held_out = [str(self.files["valid"][0]), *(files[0] for files in self.tests().values())]
            command += ["--test", *held_out]
            own = held_out if not self.fetches else [files[0] for files in self.recipe.tests.values()]
            reads += (*unlabelled, *map(Path, own))
        command += [str(option).replace(GOLD, str(gold)) for option in labels.options]
        command += ["--output-dir", str(directory), *self._trust()]
        return Stage(f"pseudo-{name}", command, directory / "manifest.json", needs, reads=reads)

    def _labels(self, name: str) -> Path:
        return self.directory / "pseudo" / name

    def _cache_stage(self, name: str) -> Stage:
        cache, directory, (source, target) = self.recipe.caches[name], self._cache(name), map(str, self.files["train"])
        has_gold = GOLD_TEXT in cache.texts
        command = verb_command("cache", "--teacher", *self.teachers)
        command += ["--source", source, "--target", target] if has_gold else []
        command += ["--labels", *(str(self._labels(each)) for each in cache.labels)] if cache.labels else []
        command += [*map(str, cache.options), *self._languages(), "--output-dir", str(directory), *self._trust()]
        reads = self._reads(*(["train"] if has_gold else []), teacher=True)
        needs = (*self._needs(teacher=True), *(f"pseudo-{each}" for each in cache.labels))
        return Stage(f"cache-{name}", command, directory / "manifest.json", needs, reads=reads)

    def _cache(self, name: str) -> Path:
        return self.directory / "caches" / name

    def _run_stage(self, label: str, run: Run, seed: int) -> Stage:
        name = self.recipe.place(label, seed)
        overrides, stock = [f"seed={seed}", *map(str, run.overrides)], run.plain and run.start is None
        teacher = not stock and self.foreign is None  # else its labels alone are read
        needs = self._needs(teacher)
        if teacher:
            teachers = self.teachers if len(self.teachers) > 1 else self.teachers[0]
            trust = ["++model.distillation.teacher.trust_archive=true"] if self.trust_archive else []
            said = self.given.live_overrides() if self.given else []
            overrides = [setting("teacher", teachers), *said, *overrides, *trust]
        if run.start is not None:
            overrides[:0] = ["distillation=nll"] if run.plain else []
            overrides.append("++model.distillation.teacher.model_path=${teacher}")
            overrides.append(f"++model.distillation.init={{from_teacher: {run.start}, width: project}}")
        if run.pseudo is not None:
            overrides.insert(0, setting("pseudo", self._labels(run.pseudo)))
            needs = (*(needs if self.foreign else ()), f"pseudo-{run.pseudo}")
        if run.cache is not None:
            overrides.insert(0, setting("cache", self._cache(run.cache)))
            needs = (*needs, f"cache-{run.cache}")
        reads = self._reads("train", "valid", teacher=teacher)
        size, script = self.student.of(run), "train_nmt" if stock else "distill"
        return self._train(name, script, size, overrides, needs, reads)

    def _comparison(self, trained: list[Stage]) -> list[Stage]:
        """Return the stages that score all models and lay out the table."""
        recipe, out = replace(self.recipe, student=self.student), self.directory  # whose file has its dropouts
        names = recipe.teacher_names
        command = verb_command("evaluate", "--model", *self.teachers, *(str(stage.result) for stage in trained))
        command += ["--names", *names, *(name for label in recipe.runs for name in recipe.names(label))]
        found = Twins(recipe)
        plain = found.plain() or next((label for label, run in recipe.runs.items() if run.plain), None)
        likest = {label: found.plain(like=label) for label in recipe.runs}
        twins = {label: found.of(label) or likest[label] or plain for label in recipe.runs}
        twins = {label: twin for label, twin in twins.items() if twin not in (None, label)}
        measured = dict.fromkeys([plain, *twins.values()]) if plain else ()
        pairs = [f"{teacher}:{name}" for teacher in names for label in measured for name in recipe.names(label)]
        pairs += [
            f"{name}:{recipe.names(other)[recipe.runs[other].seeds.index(seed)]}"
            for label in recipe.runs
            for other in dict.fromkeys((twins.get(label), likest[label], plain))  # of its start, most like it
            if other not in (None, label)
            for name, seed in zip(recipe.names(label), recipe.runs[label].seeds, strict=True)
            if seed in recipe.runs[other].seeds
        ]
        command += ["--compare", *pairs] if pairs else []
        command += ["--test", *(":".join([name, *files]) for name, files in self.tests().items())]
        command += ["--bleu-tokenizer", recipe.bleu_tokenizer] if recipe.bleu_tokenizer else []
        command += ["--output-dir", str(out / "evaluation"), "--renew", *self._languages(), *self._trust()]
        needs = (*self._needs(teacher=True), *(stage.name for stage in trained))
        own = tuple(Path(file) for files in recipe.tests.values() for file in files)
        reads = (own or self._reads("test")) + self._reads(teacher=True)
        result = out / "evaluation" / "results.json"
        evaluation = Stage("evaluation", command, result, needs, again=True, reads=reads)
        command = verb_command("report", "--results", str(out / "evaluation"), "--output-dir", str(out / "report"))
        command += ["--overwrite", *(["--teacher", *names, "--plain", plain] if plain else [])]
        of_others = {twin for twin in twins.values() if twin != plain}  # which can have no twin themselves
        others = [f"{label}:{twin}" for label, twin in twins.items() if twin in of_others and label not in of_others]
        command += ["--twins", *others] if plain and others else []
        command += ["--layout", str(self.layout_path())] if recipe.grid or recipe.changes else []
        command += ["--train", *map(str, self.files["train"])]
        result, reads = out / "report" / "report.md", self._reads("train")
        spent = {label: self._prepared(run) for label, run in recipe.runs.items() if run.pseudo or run.cache}
        return [evaluation, Stage("report", command, result, ("evaluation",), again=True, reads=reads, spent=spent)]

    def tests(self) -> dict[str, list[str]]:
        """Return the files of each test set by its name: the source and its translations."""
        own = {name: list(map(str, files)) for name, files in self.recipe.tests.items()}
        return own or {"test": list(map(str, self.files["test"]))}

    def _prepared(self, run: Run) -> tuple[str, ...]:
        """Return the stages that make the labels and the cache of a run."""
        cached = self.recipe.caches[run.cache].labels if run.cache else []
        names = [
            f"pseudo-{each}"
            for labels in dict.fromkeys([run.pseudo, *cached])
            if labels is not None
            for each in (labels, self.recipe.pseudo_labels[labels].select_from)
            if each is not None
        ]
        return (*dict.fromkeys(names), *([f"cache-{run.cache}"] if run.cache else []))
