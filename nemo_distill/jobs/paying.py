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
"""What depends on how often a text is read: whether a cache of the teacher's outputs pays, and dropout."""

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from nemo_distill.config.reading import fault_list
from nemo_distill.errors import InputError
from nemo_distill.jobs.allowed import values_of
from nemo_distill.jobs.architecture import model_section
from nemo_distill.jobs.grid import Objective
from nemo_distill.jobs.recipe import Recipe
from nemo_distill.jobs.recipe_sections import AUTO, PRESET, Labels, Run, Size, preset_keys, shipped
from nemo_distill.support.compressed import suffix_of
from nemo_distill.support.quoting import plain_text
from nemo_distill.support.text_files import text_bytes

_CACHED = "_cached"
"""At the end of a preset's name: it reads a cache alone. The one without has a teacher and is the same otherwise."""
_IF_GIVEN = "${oc.select:cache,null}"
"""Where a preset reads a cache if there is one."""
_OF_CACHES = re.compile(r"distillation\.teacher\.(cache|on_miss)|distillation(\.teacher)?=\{")
"""Overrides that cannot be without a cache, or may hold some that cannot."""
_BYTES_OF_A_TOKEN = 4
_PAYS_FROM = 1.5
"""Tokens that are read for each that is scored: a cached step is not free, and what is read is an estimate."""
_LITTLE_FROM = 16
"""Readings of a text, from which on it is little: until the fourth each teaches about what new text would, after some
16 little (Muennighoff et al. 2023, arXiv:2305.16264)."""
_DROPOUT = 0.1
"""Of models that read a text so often (docs/studies.md, "What dropout does")."""
_MORE_BATCHES = ("trainer.devices", "trainer.accumulate_grad_batches")
"""How many batches a step has beyond one."""


def with_what_pays(recipe: Recipe, train: Sequence[Path]) -> tuple[Recipe, list[str]]:
    """Return a recipe whose caches are all to be made, of those with `if_it_pays` the ones that pay, and whose
    dropouts are numbers, or of the teacher that of its file.

    A run of a cache that does not pay has its teacher beside it. Dropout is for text that is read more than 16
    times, by the steps of `student`, else there is none, for all runs alike, whatever file and preset say. The
    tokens of a text are estimated by its bytes, four each; those of a run by its steps, batches and devices, of
    `trainer.devices` alone, so that plan and job decide alike on whatever machine. Where patience may end a run,
    half of its steps count: when it will is not known, all of them would make a cache that a run which ends early
    hardly reads, and a run that goes to its limit reads twice as much as was thought, no more. Nothing but recipe
    and text decides, and of seeds the first, so a job that goes on, or is given more of them, does as it did.

    Args:
        recipe: of the job.
        train: files of the training text, of which, compressed, no more is read than decides; none where the job
            fetches it: then all caches are made, and text is little, which must not change once the text is there.

    Returns:
        the recipe, and a line for each cache that is not made, and for each dropout that was to be found.

    Raises:
        InputError: runs of such a cache cannot do both with it and without; the message lists all of them.
    """
    recipe, notes = _with_dropout(recipe, train)
    faults: list[str] = []
    for name in [name for name, cache in recipe.caches.items() if cache.if_it_pays]:
        readers = [label for label, run in recipe.runs.items() if run.cache == name]
        found = [fault for label in readers for fault in _run_faults(label, recipe.runs[label])]
        faults += found
        if found:
            continue
        note = _loss(recipe, name, readers, train)
        if note is None:
            recipe = replace(recipe, caches=recipe.caches | {name: replace(recipe.caches[name], if_it_pays=False)})
        else:
            recipe = _without(recipe, name)
            notes.append(note)
    if faults:
        raise InputError(
            "runs of a cache that is made only if it pays must do with it and without it:\n"
            f"{fault_list(faults)}\n  Give them {PRESET}recommended, hinton{_CACHED} or hybrid{_CACHED}, or the cache "
            "no if_it_pays"
        )
    return recipe, notes


def unread(recipe: Recipe) -> list[str]:
    """Return a line for each cache that no run reads, and for labels that neither a run nor such a cache reads."""
    caches = {run.cache for run in recipe.runs.values()}
    labels = {run.pseudo for run in recipe.runs.values()}
    labels |= {each for name, cache in recipe.caches.items() if name in caches for each in cache.labels}
    labels |= {found.select_from for name, found in recipe.pseudo_labels.items() if name in labels}
    kinds = {"caches": (recipe.caches, caches), "pseudo_labels": (recipe.pseudo_labels, labels)}
    return [
        f"{kind}.{name} is made, and no run reads it: {kind}.{name}=null leaves it out"
        for kind, (made, read) in kinds.items()
        for name in made
        if name not in read
    ]


def _with_dropout(recipe: Recipe, train: Sequence[Path]) -> tuple[Recipe, list[str]]:
    """Return a recipe whose dropouts are no `auto`, and a line for each that was."""
    notes: list[str] = []
    for key in ("teacher", "student"):
        size = getattr(recipe, key)
        if not isinstance(size, Size) or size.dropout != AUTO:
            continue
        entry = "train_nmt" if key == "teacher" else "distill"  # of which a plain training's keys are a part
        read = _tokens_of(size, f"recipe.{key}", entry, [*recipe.overrides, *size.overrides])
        whole = _more_than(read / _LITTLE_FROM, [(train, 1)] if train else [])
        none = None if key == "teacher" else 0.0  # a preset sets that of its students, and their twins have no preset
        recipe = replace(recipe, **{key: replace(size, dropout=_DROPOUT if whole is None else none)})
        notes.append(
            f"{key}.dropout is {_DROPOUT}: how often the text is read is not known before it is fetched"
            if not train
            else f"{key}.dropout is {_DROPOUT}: a {key} reads the text more than {_LITTLE_FROM} times"
            if whole is None
            else f"{key}.dropout, {_DROPOUT} for text that is read more than {_LITTLE_FROM} times, is "
            f"{'that of its file' if none is None else 'none'}: of {whole} a {key} reads about {_tokens(read)}"
        )
    return recipe, notes


def pairs_read(recipe: Recipe, stage: str, train: int, unlabelled: int = 0) -> int:
    """Return how many pairs the stage of some labels or of a cache reads; a cache of several texts reads them all.

    Args:
        recipe: of the job.
        stage: such as `cache-both`.
        train: lines of the training text.
        unlabelled: lines of the text without translations.

    Example:
        >>> from nemo_distill.jobs.recipe_sections import Cache
        >>> pairs_read(Recipe(caches={"both": Cache(texts=["gold", "beam"])}), "cache-both", 1000)
        2000
    """
    kind, _, name = stage.partition("-")
    if kind == "cache" and name in recipe.caches:
        return sum(pairs_of(recipe, each, train, unlabelled) for each in recipe.caches[name].texts)
    return train + unlabelled * recipe.decoded(recipe.pseudo_labels.get(name, Labels())).unlabelled


def pairs_of(recipe: Recipe, text: str, train: int, unlabelled: int = 0) -> int:
    """Return how many pairs some labels have, or the gold text; see `pairs_read`.

    Args:
        recipe: of the job.
        text: the name of labels, or `gold`.
        train: lines of the training text.
        unlabelled: lines of the text without translations.
    """
    labels = recipe.pseudo_labels.get(text, Labels())  # the gold text has one of a line, as by default
    decoded = recipe.decoded(labels)
    return labels.kept * decoded.copies * (train + unlabelled * decoded.unlabelled)


def _texts_of(recipe: Recipe, stage: str, train: Sequence[Path]) -> list[tuple[Sequence[Path], int]]:
    """Return the files of text that a stage reads, both sides of it, and how often; none where `train` is empty."""
    unlabelled = list(map(Path, recipe.unlabelled))  # its other side is as long
    texts = [(train, pairs_read(recipe, stage, 1)), (unlabelled, 2 * pairs_read(recipe, stage, 0, 1))]
    return [(files, times) for files, times in texts if files and times] if train else []


def _loss(recipe: Recipe, name: str, readers: Sequence[str], train: Sequence[Path]) -> str | None:
    """Return in words that a cache does not pay; None: it does."""
    read = sum(_tokens_read(recipe, label) for label in readers)  # of one seed: more can be added, and change nothing
    scored = _more_than(read / _PAYS_FROM, _texts_of(recipe, f"cache-{name}", train))
    if scored is None:
        return None
    if not readers:
        return f"cache '{name}' would score {scored} once, and no run reads it: it is not made"
    several = f"{len(readers)} students read, of one seed each,", "them"
    who, them = several if len(readers) > 1 else ("student reads", "it")
    return (
        f"cache '{name}' would score {scored} once; its {who} about {_tokens(read)}, no more than {_PAYS_FROM:g} "
        f"times as many: the teacher runs beside {them}"
    )


def _more_than(tokens: float, texts: Sequence[tuple[Sequence[Path], int]]) -> str | None:
    """Return in words how many tokens some texts have, where there are no fewer; else None.

    Args:
        tokens: to compare with.
        texts: files, of which, compressed, no more is read than decides, and how many times each line counts; of no
            file it is None.
    """
    enough, found = tokens * _BYTES_OF_A_TOKEN, 0
    is_compressed = any(suffix_of(file) for files, _ in texts for file in files)
    for files, times in texts:
        if found < enough or not is_compressed:
            most = math.ceil((enough - found) / times) if is_compressed else sys.maxsize
            found += times * text_bytes(files, most)
    if found < enough or not texts:
        return None
    return f"{'at least' if is_compressed else 'about'} {_tokens(found / _BYTES_OF_A_TOKEN)}"


def _tokens(count: float) -> str:
    return f"{count / 1e6:,.0f} million tokens" if count >= 1e7 else f"{count:,.0f} tokens"


def _without(recipe: Recipe, name: str) -> Recipe:
    """Return a recipe without one of its caches, whose runs have their teacher beside them."""
    runs = {label: _beside_teacher(run) if run.cache == name else run for label, run in recipe.runs.items()}
    grid = recipe.grid
    if grid is not None:  # whose rows would take the place of these runs
        rows = {row: _beside_teacher(each) if each.cache == name else each for row, each in grid.objectives.items()}
        grid = replace(grid, objectives=rows)
    caches = {other: cache for other, cache in recipe.caches.items() if other != name}
    return replace(recipe, caches=caches, runs=runs, grid=grid)


def _beside_teacher(item: Run | Objective) -> Run | Objective:
    return replace(item, cache=None, overrides=list(map(_with_teacher, item.overrides)))


def _with_teacher(override: str) -> str:
    """Return an override with the preset that has a teacher in place of the one that has its cache."""
    name = override.removeprefix(PRESET).removesuffix(_CACHED)
    is_cached = override == f"{PRESET}{name}{_CACHED}" and bool(preset_keys(name))
    return f"{PRESET}{name}" if is_cached else override


def _run_faults(label: str, run: Run) -> list[str]:
    """Return why a run cannot do with its cache, or not without it."""
    place, overrides = f"recipe.runs.{label}", list(map(str, run.overrides))
    name = run.preset
    own = [each for each in overrides if _OF_CACHES.search(each)]
    asked, live = (preset_keys(each).get("teacher", {}) for each in (name, name.removesuffix(_CACHED)))
    if not shipped("distillation", name):
        return [f"{place}: {PRESET}{plain_text(name, 80)} is not there; configs/distillation has the presets"]
    if "cache" not in asked:
        return [f"{place}: {PRESET}{name} reads no cache"]
    if "model_path" not in live or live.get("cache", _IF_GIVEN) != _IF_GIVEN:
        return [f"{place}: {PRESET}{name} has no teacher without a cache"]
    return [f"{place}: {each[:100]} needs the cache" for each in own]


def _tokens_read(recipe: Recipe, label: str) -> float:
    """Return how many tokens each seed of a run trains on."""
    run = recipe.runs[label]
    return _tokens_of(recipe.student.of(run), f"recipe.runs.{label}", "distill", recipe.overrides_of(run))


def _tokens_of(size: Size, place: str, entry: str, overrides: Sequence[Any]) -> float:
    """Return how many tokens one training reads.

    Raises:
        InputError: its batches have no number of tokens.
    """
    overrides = list(map(str, overrides))
    try:
        batch = model_section(entry, size.model, overrides)["train_ds"]["tokens_in_batch"]
    except OmegaConfBaseException:
        batch = None
    if not isinstance(batch, int) or batch < 1:
        raise InputError(f"{place}: data.tokens_in_batch is no number of tokens; give one, such as 4096")
    return size.steps * (1.0 if size.patience is None else 0.5) * batch * _batches_of_a_step(overrides)


def _batches_of_a_step(overrides: Sequence[str]) -> int:
    """Return how many batches a step has, on all devices together, as far as overrides say it.

    Example:
        >>> _batches_of_a_step(["trainer=gpu", "trainer.devices=[0,1]", "trainer.accumulate_grad_batches=3"])
        6
    """
    given = values_of(overrides)
    counts = [len(each) if isinstance(each, list) else each for each in map(given.get, _MORE_BATCHES)]
    return math.prod(max(count, 1) for count in counts if type(count) is int)
