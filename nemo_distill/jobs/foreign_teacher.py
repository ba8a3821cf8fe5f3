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
"""A recipe's teacher that is not NeMo's: it gives text, and whatever else a recipe asks of it is refused."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from nemo_distill.archives.reader import trusted_archives
from nemo_distill.config.languages import Languages
from nemo_distill.config.reading import fault_list
from nemo_distill.config.section import DistillationConfig
from nemo_distill.decoding.foreign_files import ForeignModel, check_foreign, read_foreign
from nemo_distill.errors import InputError
from nemo_distill.jobs.allowed import setting
from nemo_distill.jobs.architecture import model_section
from nemo_distill.jobs.recipe import Recipe
from nemo_distill.jobs.recipe_sections import Run
from nemo_distill.support.temporary import TemporaryDirectory

_ON_LABELS = "give it pseudo and overrides: [distillation=seq_level] or [distillation=interpolation]"


@dataclass
class ForeignTeacher:
    """A directory of CTranslate2, of `transformers` or of an export. Students have a tokenizer of their own."""

    path: str
    model: ForeignModel
    languages: Languages
    """With which it is opened: of the recipe, in the model's own words; none where it has no choice of them."""

    @classmethod
    def open(cls, recipe: Recipe, trust_archive: bool = False) -> "ForeignTeacher":
        """Look at the teacher of a recipe, its tokenizer and languages, and at what the recipe asks of it.

        Raises:
            InputError: it is not alone; is no model that can be decoded here (`read_foreign`); has not these
                languages; or the recipe asks for more than labels, all of which the message lists.
        """
        check_foreign(recipe.teachers, "auto")
        (path,) = recipe.teachers
        with trusted_archives(trust_archive):
            model = read_foreign(path)
        faults = [*_size_faults(recipe), *_label_faults(recipe, model), *_run_faults(recipe)]
        if faults:
            raise InputError(
                f"the teacher '{path}' is no .nemo archive, so labels alone can be had of it:\n{fault_list(faults)}"
            )
        return cls(path, model, _fitting_languages(recipe, model))

    @property
    def files(self) -> list[Path]:
        """What stages that open it read."""
        return [self.model.path / name for name in self.model.files]


def _size_faults(recipe: Recipe) -> Iterator[str]:
    """Yield the faults of what needs weights or distributions, whichever run asks for it."""
    if recipe.student.compression is not None:
        yield (
            f"recipe.student.compression: got {recipe.student.compression:g}; the weights of such a teacher are not "
            "counted: give size_mb, latency_ms or model"
        )
    for name in recipe.caches:
        yield f"recipe.caches.{name}: such a teacher has no distributions over the student's words; leave it out"


def _label_faults(recipe: Recipe, model: ForeignModel) -> Iterator[str]:
    """Yield the faults of options of labels that such a model cannot be decoded with."""
    given = {name: dict(pairwise(map(str, labels.options))) for name, labels in recipe.pseudo_labels.items()}
    stored = None
    if any("--quantization" in options for options in given.values()):
        from nemo_distill.decoding.foreign_conversion import stored_quantization  # which imports NeMo

        stored = stored_quantization(model)
    for name, options in given.items():
        place = f"recipe.pseudo_labels.{name}.options"
        if options.get("--engine") == "nemo":
            yield f"{place}: got --engine nemo, which decodes .nemo archives alone; leave --engine out"
        asked = options.get("--quantization", stored)
        if stored is not None and asked not in (stored, "float32"):  # the default of the verb counts as none
            yield f"{place}: got --quantization {asked}, and the model is converted to {stored}; leave it out"


def _run_faults(recipe: Recipe) -> Iterator[str]:
    """Yield one fault for each run that needs more than text."""
    for label, run in recipe.runs.items():
        place = f"recipe.runs.{label}"
        if run.start is not None:
            yield f"{place}.start: got {run.start}; students start from weights of .nemo archives alone: leave it out"
        elif run.cache is not None:
            yield f"{place}.cache: got {run.cache}, and such a teacher has none; leave it out, and {_ON_LABELS}"
        elif not run.plain and (reason := _reads_teacher(recipe, run)) is not None:
            yield f"{place}.overrides: got {_shown(run)}, {reason}; {_ON_LABELS}"


def _shown(run: Run) -> str:
    return f"[{', '.join(map(str, run.overrides))}]"[:200]


def _reads_teacher(recipe: Recipe, run: Run) -> str | None:
    """Return why a run cannot do without distributions or weights of the teacher; None: it can."""
    keys = ("teacher", "pseudo", "cache", "data.dir", "data.source", "data.target")
    given = [setting(key, "given") for key in keys]
    overrides = [*recipe.overrides_of(run), *given]
    try:
        section = model_section("distill", recipe.student.model, overrides)["distillation"]
        config = DistillationConfig.from_section(section)
    except InputError as error:  # a term that reads a teacher, and none that is named
        return f"and {str(error).splitlines()[-1].strip()}"
    needs = config.teacher.is_given or config.names_teacher
    return "and it reads the teacher's distributions or weights" if needs else None


def _fitting_languages(recipe: Recipe, model: ForeignModel) -> Languages:
    """Return the languages to open a model with: as the recipe calls them for it, else those of its files.

    Raises:
        InputError: the model has not these; or has no choice of them, and the recipe names some for it.
    """
    from nemo_distill.decoding.foreign_text import NoLanguagesError

    given = Languages(recipe.teacher_source, recipe.teacher_target)
    asked = Languages(given.source or recipe.source, given.target or recipe.target)
    try:
        has_choice = _check_languages(model, asked)
    except NoLanguagesError:
        has_choice = False
    except InputError as error:
        words = str(error).replace("--source-lang", "teacher_source").replace("--target-lang", "teacher_target")
        raise InputError(f"recipe.teacher_source, recipe.teacher_target: {words}") from error
    if not has_choice and given != Languages():
        raise InputError(
            f"recipe.teacher_source, recipe.teacher_target: got {given.source} and {given.target}, and '{model.path}' "
            "has no languages to choose from; leave them out"
        )
    return asked if has_choice else Languages()


def _check_languages(model: ForeignModel, languages: Languages) -> bool:
    """Open the tokenizer of a model with languages; return whether it has a choice of them.

    Raises:
        InputError: it has not these; `NoLanguagesError`: nor any others.
    """
    from nemo_distill.decoding.export_record import chosen_pair, read_export
    from nemo_distill.decoding.foreign_text import ForeignText, open_tokenizer

    if model.kind == "export":
        record = read_export(model.path)
        if record.pairs:
            chosen_pair(model.path, record, languages)
        return bool(record.pairs)
    with TemporaryDirectory() as place:
        model.stage(place)
        ForeignText(model, open_tokenizer(model, place), languages)
    return True
