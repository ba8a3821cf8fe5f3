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

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from nemo_distill.archives.values import value_faults
from nemo_distill.config.languages import LANGUAGE_KEYS
from nemo_distill.config.model_widths import width_faults
from nemo_distill.config.section import DistillationConfig
from nemo_distill.data.bleu_tokenizer import SAMPLE_LINES, build_bleu, choose_bleu_tokenizer
from nemo_distill.decoding.convertible import config_faults
from nemo_distill.errors import ConfigurationError, InputError
from nemo_distill.jobs import allowed
from nemo_distill.jobs.architecture import composed
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.noted import Stage
from nemo_distill.jobs.recipe import Recipe
from nemo_distill.jobs.recipe_sections import Run
from nemo_distill.jobs.running import essence
from nemo_distill.support.text_files import iterate_lines
from nemo_distill.training.beginning import plain_config
from nemo_distill.training.identity import schedule_to_the_end
from nemo_distill.training.monitored import WHERE, mode_of

_PLAIN, _DISTILLED = "train_nmt.py", "distill.py"
_MODEL = "model="
_SECTION = "model.distillation."
_SHIPPED = {"monitor": "val_sacreBLEU", "mode": "max"}
"""How configs/ keep checkpoints."""
_ALIKE = ("seed=", "name=", "output_dir=")
"""What trainings may differ in that none of them can be wrong in."""
_SETTLED = r"model\.(optim\.lr|head\.dropout|(?!(train|validation|test)_ds|optim|head)\w+(\.\w+)?)"
"""Keys of the model whose values are looked at without NeMo, which takes seconds to import; not those of data sets,
optimizers and the head."""
_BLEU_KEY = "bleu_tokenizer:"
_TEMPERATURE = f"{_SECTION}objective.word_kd.temperature="
"""Such is this too, of the runs of a grid, which has checked it."""


def check_trainings(recipe: Recipe, stages: Sequence[Stage]) -> None:
    """Refuse trainings whose configuration cannot be, or that do not read the labels or the cache that they name.

    What differs in names, seeds and the temperatures of a grid alone is looked at once.

    Args:
        recipe: of the job.
        stages: its commands.

    Raises:
        InputError: names the run, and what is wrong with it.
    """
    seen, of_grid = set(), recipe.grid.runs() if recipe.grid else {}
    for stage in stages:
        entry, *arguments = essence(stage.command)
        if entry not in (_PLAIN, _DISTILLED):
            continue
        label = recipe.label_of(stage.name)
        run = None if label is None else recipe.runs[label]
        alike = (*_ALIKE, _TEMPERATURE) if label in of_grid else _ALIKE
        exported = recipe.export is not None and run is not None and recipe.export_run in (None, label)
        own = (entry, exported, *(each for each in arguments if not each.startswith(alike)))
        if own in seen:
            continue
        seen.add(own)
        size = recipe.teacher.overrides if run is None else recipe.student.overrides
        given = allowed.keys_of([*recipe.overrides, *size, *(run.overrides if run else ())])
        others = [key for key in given if key.startswith("model.") and not key.startswith(_SECTION)]
        by_nemo = not all(re.fullmatch(_SETTLED, key) for key in others)
        try:
            model = _check_training(entry, arguments, run, by_nemo)
            if exported and (faults := config_faults(OmegaConf.create(model))):
                raise InputError(
                    f"its model cannot be exported: {'; '.join(f'model.{each}' for each in faults)}; name another run "
                    "as export_run, or leave export out"
                )
        except (ConfigurationError, InputError) as error:
            raise InputError(f"{'teacher' if label is None else f'run {label}'}: {error}") from error


def _check_languages(arguments: Sequence[str]) -> None:
    """Refuse languages of a student, in the recipe's overrides, that are not those of its given teacher."""
    for side, key in LANGUAGE_KEYS.items():
        said = [
            allowed.values_of([each]).get(f"model.{key}") for each in arguments if each.startswith(f"model.{key}=")
        ]
        if len({str(each or "ignore") for each in said}) > 1:
            raise InputError(
                f"model.{key}: got {said[-1]}, and the teacher's is {said[0] or 'ignore'}; leave it out, or say what "
                f"the teacher's text is, teacher_{side}={said[-1]}"
            )


def _check_training(entry: str, arguments: Sequence[str], run: Run | None, by_nemo: bool) -> dict[str, Any]:
    """Refuse a training whose configuration cannot be, and return its `model` section."""
    asked = {"pseudo": run.pseudo, "cache": run.cache} if run else {}
    changed = [key for key in allowed.keys_of(arguments) if key.startswith(_SECTION)] if entry == _PLAIN else []
    if changed:
        raise InputError(
            f"{min(changed)} is set, and a plain training has no `distillation` section; give it in the overrides of "
            "the runs that have one"
        )
    for key in asked if entry == _PLAIN else ():
        if asked[key] is not None:
            raise InputError(
                f"{key}: got '{asked[key]}', and a plain training reads the gold text alone; leave it out"
            )
    _check_languages(arguments)
    (model,) = (each.removeprefix(_MODEL) for each in arguments if each.startswith(_MODEL))
    config = composed(entry.removesuffix(".py"), model, tuple(arguments))
    plain = plain_config(config)
    if plain.get("patience") is not None and (schedule := schedule_to_the_end(plain)) is not None:
        raise InputError(
            f"patience: is set in overrides, and model.optim.sched ({schedule}) lays the learning rate out over all "
            "steps; give student.patience, or that of the run, in its place"
        )
    if faults := [
        *width_faults(plain["model"]),
        *(f"model.{each}" for each in value_faults(plain["model"], stock=False)),
    ]:
        raise InputError("; ".join(faults))
    if by_nemo:
        from nemo.collections.nlp.models import MTEncDecModel
        from nemo.collections.nlp.models.machine_translation.mt_enc_dec_bottleneck_model import MTBottleneckModel

        from nemo_distill.config.model_keys import check_model_keys

        check_model_keys(plain["model"], MTBottleneckModel if plain["model"]["encoder"].get("arch") else MTEncDecModel)
    section = plain["model"].get("distillation")
    if section is not None:
        DistillationConfig.from_section(section)
    for key, name in asked.items():
        if name is not None and str(OmegaConf.select(config, key)) not in map(str, _leaves(section)):
            raise InputError(
                f"{key}: got '{name}', which nothing of this run reads; leave it out, or give the run a preset that "
                "reads it (docs/mixing.md, docs/cache.md)"
            )
    return plain["model"]


def _leaves(section: Any) -> Iterator[Any]:
    """Yield all single values of plain data."""
    inside = section.values() if isinstance(section, Mapping) else section if isinstance(section, list) else None
    if inside is None:
        yield section
    else:
        for each in inside:
            yield from _leaves(each)


def check_bleu(graph: Graph) -> None:
    """Refuse a job whose validations or table cannot be scored: sacreBLEU's tokenizer is not installed.

    Text that is yet to be fetched is taken for one of its language.

    Raises:
        InputError: names the tokenizer, and how to get it or choose another one.
    """
    recipe = graph.recipe
    sets = {} if graph.fetches else {"valid": graph.files["valid"][1:]}
    sets |= {name: files[1:] for name, files in graph.tests().items() if recipe.tests or not graph.fetches}
    texts = [list(itertools.islice(iterate_lines(files[0]), SAMPLE_LINES)) for files in sets.values()]
    for name in {
        choose_bleu_tokenizer(recipe.bleu_tokenizer, language, text, _BLEU_KEY, None)
        for text in (texts or [[]])
        for language in (recipe.target, None)  # as validations and as the table choose
    }:
        build_bleu(name, _BLEU_KEY)


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
