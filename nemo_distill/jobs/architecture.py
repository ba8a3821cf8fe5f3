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
"""How a recipe's models are built: students that start from their teacher as it is, in what its weights mean.

Where one run has a `start`, all students and plain runs are built so, since only models that are built alike compare.
"""

import copy
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_distill.archives.values import WIDEST
from nemo_distill.config.composing import composition_fault
from nemo_distill.config.layer_map import layer_pairs
from nemo_distill.config.layers import InitConfig
from nemo_distill.config.reading import fault_list
from nemo_distill.errors import ConfigurationError, InputError
from nemo_distill.jobs.allowed import keys_of, setting
from nemo_distill.jobs.recipe import Recipe
from nemo_distill.jobs.recipe_sections import Run, Student
from nemo_distill.jobs.running import CONFIGS
from nemo_distill.jobs.teachers import SIDES, GivenTeachers
from nemo_distill.support.quoting import error_line, plain_text

MEANING = {"pre_ln": False, "pre_ln_final_layer_norm": False, "hidden_act": "relu", "mask_future": True}
MEANING |= {"learn_positional_encodings": False, "max_sequence_length": 512, "num_token_types": 2}
"""Of an encoder or decoder: what its weights mean hangs on these; NeMo's value where a section lacks it."""
_HEADS = "num_attention_heads"
_SIZES = ("num_layers", "hidden_size", "inner_size", _HEADS)
_SHAPING = re.compile(r"[+~]*model\.(encoder|decoder|shared_embeddings)\b.*")
_SHARED = "model.shared_embeddings"
_FIX = "leave start out"


class StartError(InputError):
    """A student cannot start from its teacher."""


def model_section(entry: str, model: str, overrides: Sequence[Any]) -> Mapping[str, Any]:
    """Return the `model` section of a training; nobody changes it."""
    return composed(entry, model, tuple(map(str, overrides))).model


@functools.lru_cache(maxsize=64)
def composed(entry: str, model: str, overrides: tuple[str, ...]) -> DictConfig:
    """Return the configuration of a training; nobody changes it.

    Raises:
        InputError: hydra cannot compose it.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    try:
        with initialize_config_dir(str(CONFIGS), version_base=None):
            return compose(entry, [f"model={model}", *overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(f"model {model}: {composition_fault(error)}") from error


def teacher_section(recipe: Recipe, given: GivenTeachers | None) -> Mapping[str, Any]:
    """Return the `model` section of a recipe's (first) teacher."""
    if given is not None:
        return given.config
    section = model_section("train_nmt", recipe.teacher.model, [*recipe.overrides, *recipe.teacher.overrides])
    missing = [f"{side}.{key}" for side in SIDES for key in section[side] if OmegaConf.is_missing(section[side], key)]
    if missing:
        raise InputError(
            f"teacher: configs/model/{recipe.teacher.model}.yaml leaves {', '.join(missing)} open; give them in its "
            "overrides, or another model, such as teacher.model=small_3x3"
        )
    return section


def student_section(recipe: Recipe, given: GivenTeachers | None, model: str) -> Mapping[str, Any]:
    """Return the `model` section of a recipe's students where they are of this size in configs/model.

    Raises:
        InputError: as `start_overrides`.
    """
    return _student(recipe, given, model)[0]


def start_overrides(recipe: Recipe, given: GivenTeachers | None, model: str) -> list[str]:
    """Return what gives a student the structure of its teacher, as overrides.

    Where no run has a start that is a table of embeddings for each side, if the teacher has a tokenizer for each. They
    are of keys that the student has otherwise and the user has not set: shared embeddings, norms, activation,
    positions and masks, and numbers of heads that cannot be taken from the teacher's.

    Args:
        recipe: whose student it is.
        given: its teachers, where they are given.
        model: name in configs/model.

    Raises:
        StartError: nothing can start from the teacher; the message names the run.
    """
    return [setting(key, value) for key, value in _student(recipe, given, model)[1].items()]


def built_student(recipe: Recipe, given: GivenTeachers | None, model: str, width: Sequence[str] = ()) -> Student:
    """Return a recipe's student as it is built: of the size that was found, and like its teacher where runs start so.

    Args:
        recipe: whose student it is.
        given: its teachers, where they are given.
        model: name in configs/model.
        width: overrides that make it as wide as it is.

    Raises:
        StartError: a run is to start from a teacher that such a student cannot start from.
    """
    overrides = [*start_overrides(recipe, given, model), *width]
    unchanged = student_section(recipe, given, model)
    for label, run in _started(recipe).items():
        more = [str(each) for each in run.overrides if _SHAPING.fullmatch(str(each))]
        section = unchanged
        if width or more:
            section = model_section("distill", model, [*recipe.overrides_of(), *overrides, *more])
        if faults := start_faults(recipe, given, section, label):
            raise StartError(
                f"recipe.runs.{label}.start: got {run.start}, and a student of {model} cannot start from this "
                f"teacher:\n{fault_list(faults)}\n  Leave such overrides out, give student.model or overrides of at "
                f"most the teacher's sizes, or {_FIX}"
            )
    return recipe.student.found(model, overrides)


def start_faults(
    recipe: Recipe, given: GivenTeachers | None, section: Mapping[str, Any], label: str | None = None
) -> list[str]:
    """Return why a student cannot start from its teacher: what is larger than there, or means something else.

    Args:
        recipe: whose student it is.
        given: its teachers, where they are given.
        section: of the student.
        label: of the run that starts; None: any that does.
    """
    runs = {name: run for name, run in _started(recipe).items() if label in (None, name)}
    if not runs:
        return []
    teacher, places = _shape(teacher_section(recipe, given)), _places(recipe, runs)
    section, faults = _shape(section), []
    for key, mine, theirs in _differences(section, teacher):
        if not _may_differ(key, mine, theirs):
            place = f" of {places[key]}" if key in places else ""
            faults.append(f"{setting(key, mine)}{place}: of this teacher it needs {setting(key, theirs)}")
    for side in _own_sides(teacher):
        mine, theirs = section[side], teacher[side]
        for key in ("hidden_size", "inner_size"):
            if mine[key] > theirs[key]:
                faults.append(f"model.{side}.{key} is {mine[key]}, and the teacher's {theirs[key]}")
        if (
            mine["hidden_size"] <= theirs["hidden_size"]
            and fitting_heads(mine["hidden_size"], mine[_HEADS], theirs) is None
        ):
            largest = f"{theirs[_HEADS]} of {theirs['hidden_size'] // theirs[_HEADS]}"
            faults.append(
                f"model.{side}.hidden_size is {mine['hidden_size']}, which makes no heads that the teacher's contain, "
                f"{largest}"
            )
    for run in runs.values():
        for side, layer_map in _maps(recipe, run).items():
            layers = section[side]["num_layers"], teacher[side]["num_layers"]
            try:
                layer_pairs(layer_map, *layers, f"layers of the {side}")
            except ConfigurationError as error:
                faults.append(str(error))
    return list(dict.fromkeys(faults))


def fitting_heads(hidden_size: int, heads: int, *teachers: Mapping[str, Any]) -> int | None:
    """Return the heads of attention that a student takes of its teacher's: as many as it has, else about as many.

    Neither may they be more than the teacher's, nor larger.

    Args:
        hidden_size: of the student.
        heads: that it has.
        teachers: encoder and decoder, or one of them.

    Returns:
        Their number; None: its hidden size is not made of such heads.

    Example:
        >>> fitting_heads(128, 2, {"hidden_size": 256, "num_attention_heads": 8})
        4
    """
    fitting = [
        each
        for each in range(1, hidden_size + 1)
        if hidden_size % each == 0
        and all(
            each <= side[_HEADS] and hidden_size // each <= side["hidden_size"] // side[_HEADS] for side in teachers
        )
    ]
    return min(fitting, key=lambda each: abs(each - heads), default=None)


def started_sides(recipe: Recipe, given: GivenTeachers | None) -> list[Mapping[str, Any]]:
    """Return encoder and decoder of the teacher where runs start from it, of these what is NeMo's."""
    teacher = _shape(teacher_section(recipe, given)) if _started(recipe) else {}
    return [teacher[side] for side in _own_sides(teacher)] if teacher else []


def start_request(recipe: Recipe, given: GivenTeachers | None) -> dict[str, Any]:
    """Return what the choice of a student hangs on where runs start from the teacher; empty where none does."""
    runs = _started(recipe)
    if not runs:
        return {}
    teacher = _shape(teacher_section(recipe, given))
    return {"start": {**teacher, "maps": [_maps(recipe, run) for run in runs.values()]}}


def _started(recipe: Recipe) -> dict[str, Run]:
    return {label: run for label, run in recipe.runs.items() if run.start is not None}


def _places(recipe: Recipe, runs: Mapping[str, Run]) -> dict[str, str]:
    """Return where a recipe sets each of the keys that it sets for some runs."""
    given = {"recipe.overrides": recipe.overrides, "recipe.student.overrides": recipe.student.overrides}
    given |= {f"recipe.runs.{label}.overrides": run.overrides for label, run in runs.items()}
    return {key: place for place, overrides in given.items() for key in keys_of(overrides)}


def _student(recipe: Recipe, given: GivenTeachers | None, model: str) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return the section of a student, and the values in it that are its teacher's, by their keys."""
    own = recipe.overrides_of()
    section, chosen = model_section("distill", model, own), keys_of(own)
    if not _started(recipe):
        if not (section.get("shared_embeddings") and given is not None and given.has_two_tokenizers):
            return section, {}
        if _SHARED in chosen:
            raise InputError(
                f"recipe: {_SHARED}=true makes one vector of each id for source and target, and the teacher, whose "
                "tokenizers students take, has one for each side; leave it out"
            )
        return {**section, "shared_embeddings": False}, {_SHARED: False}
    _check_teacher(recipe, given)
    teacher, found = _shape(teacher_section(recipe, given)), {}
    for later in ("model.decoder.",), ():  # which takes over what the encoder has
        for key, mine, theirs in _differences(_shape(section), teacher):
            leader = key.replace(".decoder.", ".encoder.")
            is_chosen = key in chosen or (leader in chosen and _may_differ(key, mine, theirs))
            if not key.startswith(later) and not is_chosen:
                found[key] = theirs
        if found:
            config = copy.deepcopy(composed("distill", model, tuple(map(str, own))))
            for key, value in found.items():
                OmegaConf.update(config, key, value)
            section = config.model
    return section, found


def _maps(recipe: Recipe, run: Run) -> dict[str, Any]:
    """Return the map of each side whose layers a run takes: its start, or what its overrides say of the side."""
    overrides, given = recipe.overrides_of(run), {}
    if any("init" in str(each) for each in overrides):
        section = model_section("distill", recipe.student.model, overrides)
        init = OmegaConf.to_container((section.get("distillation") or {}).get("init") or OmegaConf.create())
        given = {side: init[side] for side in SIDES if side in init}
    config = InitConfig(from_teacher=run.start, **given)
    return {side: layer_map for side in SIDES if (layer_map := config.map_of(side)) is not None}


def _shape(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return as plain data what of a `model` section a start hangs on.

    Raises:
        InputError: a size is none, or a value refers to one that is not there.
    """
    sides = {side: section[side] for side in SIDES}
    try:
        sides = {
            side: OmegaConf.to_container(values, resolve=True) if OmegaConf.is_config(values) else values
            for side, values in sides.items()
        }
    except OmegaConfBaseException as error:
        raise InputError(f"recipe: the overrides make no model: {error_line(error, 300)}") from error
    for side in _own_sides(sides):
        for key in _SIZES:
            value = sides[side].get(key)
            if type(value) is not int or not 0 < value <= WIDEST:
                raise InputError(f"model.{side}.{key} is {plain_text(value, 40)}, no whole number from 1 to {WIDEST}")
    return {"shared_embeddings": bool(section.get("shared_embeddings")), **sides}


def _own_sides(teacher: Mapping[str, Any]) -> list[str]:
    """Return the sides of a model that are NeMo's."""
    return [side for side in SIDES if (teacher[side].get("library") or "nemo") == "nemo"]


def _check_teacher(recipe: Recipe, given: GivenTeachers | None) -> None:
    """Make sure that a teacher is one to start from.

    Raises:
        StartError: there are several; or its encoder has no list of NeMo's layers, or another width than its decoder.
    """
    teacher = teacher_section(recipe, given)
    encoder, hidden = teacher["encoder"], [teacher[side].get("hidden_size") for side in SIDES]
    for label, run in _started(recipe).items():
        reason = None
        if len(recipe.teachers) > 1:
            reason = f"there are {len(recipe.teachers)} teachers, of which a start copies one: give one, or"
        elif "encoder" not in _maps(recipe, run):
            continue
        elif "encoder" not in _own_sides(teacher):
            reason = f"the teacher's encoder is of {encoder['library']}, without NeMo's layers, which a start copies:"
        elif (encoder.get("arch") or "seq2seq") != "seq2seq":
            reason = f"the teacher's encoder ({encoder['arch']}) has no list of layers, which a start copies:"
        elif hidden[0] != hidden[1]:
            reason = f"the teacher's encoder is {hidden[0]} wide and its decoder {hidden[1]}, so no units fit both:"
        if reason is not None:
            raise StartError(f"recipe.runs.{label}.start: got {run.start}, and {reason} {_FIX}")


def _differences(section: Mapping[str, Any], teacher: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the keys of a student with its value and the teacher's, where they differ; of heads a number that fits."""
    mine, theirs = section["shared_embeddings"], teacher["shared_embeddings"]
    if mine != theirs:
        yield "model.shared_embeddings", mine, theirs
    for side in _own_sides(teacher):
        own, other = section[side], teacher[side]
        for key, default in MEANING.items():
            values = [each.get(key, default) for each in (own, other)]
            mine, theirs = (bool(each) if isinstance(default, bool) else each for each in values)
            is_read = {
                "mask_future": side == "encoder",
                "pre_ln_final_layer_norm": bool(other.get("pre_ln")),  # others have no such norm
                "num_token_types": bool(mine and theirs),  # no translation model looks one up
            }
            if mine != theirs and is_read.get(key, True):
                yield f"model.{side}.{key}", mine, theirs
        heads = fitting_heads(own["hidden_size"], own[_HEADS], other)
        if heads not in (None, own[_HEADS]):
            yield f"model.{side}.{_HEADS}", own[_HEADS], heads


def _may_differ(key: str, mine: Any, theirs: Any) -> bool:
    """Return whether a student may have its own value, less than the teacher's is: it takes a part, or two of one."""
    return mine < theirs if key == "model.shared_embeddings" or key.endswith(".max_sequence_length") else False
