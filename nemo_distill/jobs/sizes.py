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
"""The weights of a model by arithmetic, and which of configs/model a target leaves room for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nemo_distill.config.reading import fault_list
from nemo_distill.errors import InputError
from nemo_distill.jobs.allowed import values_of
from nemo_distill.jobs.architecture import (
    StartError,
    start_faults,
    started_sides,
    student_section,
    teacher_section,
)
from nemo_distill.jobs.recipe import Recipe
from nemo_distill.jobs.running import CONFIGS
from nemo_distill.jobs.teachers import SIDES, GivenTeachers
from nemo_distill.jobs.widths import FINE, WIDTH, Candidate, parameters_of, resized, widths_between

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Of a weight, by the type of the export; of all others one: biases and norms, which stay wider, are few."""
_TEACHERS = "teacher_"
"""How those begin whose depth no student gets."""
_BY_NAME_ALONE = ("base", "deep_")
"""How those of configs/model begin that no target chooses.

The weights of a deep encoder with a shallow decoder do not say how it compares with the others."""

_DEPTH = 3
"""Layers of a side that a student should have: of as many weights one of one layer is worse, and one of six."""
_ABOUT_AS_LARGE = 0.8
"""Of the most weights: what differs by less does so by the steps between widths."""


@dataclass(frozen=True)
class Timing:
    """What was measured of a size."""

    latency_ms: float
    """Median (p50) of one sentence."""
    source_tokens: int
    target_tokens: int
    threads: int


def vocabularies_of(recipe: Recipe, given: GivenTeachers | None) -> tuple[int, int]:
    """Return the tokens of the source and target tokenizer that a recipe's models have."""
    return (recipe.vocab_size, recipe.vocab_size) if given is None else given.vocabulary_sizes()


def student_sections(recipe: Recipe, given: GivenTeachers | None) -> dict[str, Mapping[str, Any]]:
    """Return the `model` sections of the sizes that a target may choose, as a recipe's students have them.

    Raises:
        InputError: a run is to start from a teacher that nothing can start from.
    """
    names = sorted(
        path.stem for path in (CONFIGS / "model").glob("*.yaml") if not path.stem.startswith(_BY_NAME_ALONE)
    )
    return {name: student_section(recipe, given, name) for name in names}


def teacher_weights(recipe: Recipe, given: GivenTeachers | None, vocabularies: tuple[int, int]) -> int | None:
    """Return the number of weights of a recipe's (first) teacher; None: those of such a model are not counted."""
    if given is None and not recipe.trains_teacher:  # of another kind than NeMo's
        return None
    section = teacher_section(recipe, given)
    if (section["encoder"].get("library") or "nemo") != "nemo" or section["encoder"].get("arch"):
        return None
    return parameters_of(section, vocabularies)


def most_weights(recipe: Recipe, given: GivenTeachers | None, vocabularies: tuple[int, int]) -> float | None:
    """Return the weights that `compression` and `size_mb` leave room for; None: neither is given.

    Raises:
        InputError: the teacher's weights cannot be counted.
    """
    student, limits = recipe.student, []
    if student.compression is not None:
        weights = teacher_weights(recipe, given, vocabularies)
        if weights is None:
            raise InputError(
                "student.compression: the weights of such a teacher are not counted; give size_mb or model"
            )
        limits.append(weights / student.compression)
    if student.size_mb is not None:
        limits.append(student.size_mb * 1e6 / _BYTES.get(recipe.export or "float32", 1))
    return min(limits, default=None)


def _targets_for(recipe: Recipe, given: GivenTeachers | None, parameters: int) -> str:
    """Return what to give in place of a recipe's targets, so that they leave room for so many weights; "": nothing."""
    student, targets = recipe.student, []
    if student.compression is not None:
        weights = teacher_weights(recipe, given, vocabularies_of(recipe, given))
        most = math.floor(100 * weights / parameters) / 100
        if most < 1:
            return ""
        targets.append(f"student.compression={most:g} or less")
    if student.size_mb is not None:
        least = math.ceil(100 * parameters * _BYTES.get(recipe.export or "float32", 1) / 1e6) / 100
        targets.append(f"student.size_mb={least:g} or more")
    return f"{' and '.join(targets)}, or " if targets else ""


def allowed_sizes(
    recipe: Recipe,
    given: GivenTeachers | None,
    sizes: Sequence[Candidate],
    sections: Mapping[str, Mapping[str, Any]],
    most: float | None,
) -> list[Candidate]:
    """Return the sizes that have no more weights than a student may have.

    Where runs start from their teacher, those are left out that cannot, as all that are somewhere larger.

    Args:
        recipe: whose student it is.
        given: its teachers, where they are given.
        sizes: to choose from.
        sections: of all models of configs/model.
        most: weights that a student may have; None: any number.

    Raises:
        InputError: there is none; the message names the smallest.
    """
    faults = {size: start_faults(recipe, given, size.section(sections[size.model])) for size in sizes}
    starting = [size for size in sizes if not faults[size]]
    smallest = min(starting or sizes, key=lambda each: each.parameters)
    if not starting:
        raise StartError(
            "recipe.student: none of configs/model can start from this teacher, as runs with a start do, not even "
            f"{smallest.words()}:\n{fault_list(faults[smallest])}\n  Give student.model and overrides of at most the "
            "teacher's sizes, or leave start out"
        )
    fitting = [size for size in starting if most is None or size.parameters <= most]
    if not fitting:
        raise InputError(
            f"recipe.student: the target leaves room for {most:,.0f} weights, and the smallest that a target chooses "
            f"is {smallest.words()}; give {_targets_for(recipe, given, smallest.parameters)}student.model and "
            "overrides, such as [model.encoder.hidden_size=16]"
        )
    return fitting


def is_allowed(
    recipe: Recipe, given: GivenTeachers | None, size: Candidate, section: Mapping[str, Any], most: float | None
) -> bool:
    """Return whether a student may have a size: no more weights than it may, and it can start as the runs do.

    Args:
        recipe: whose student it is.
        given: its teachers, where they are given.
        size: which it would have.
        section: `model` section of the size's file in configs/model.
        most: weights that a student may have; None: any number.
    """
    return (most is None or size.parameters <= most) and not start_faults(recipe, given, size.section(section))


def wanted_heads(recipe: Recipe) -> list[int | None]:
    """Return the heads of attention that a recipe's overrides give its students, of encoder and decoder; None: they
    say nothing of them.
    """
    given = values_of([*recipe.overrides, *recipe.student.overrides])
    wanted = [given.get(f"model.{side}.{WIDTH[-1]}") for side in SIDES]
    return [each if isinstance(each, int) else None for each in wanted]  # it may refer to another value


def _depth_for(sides: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """Return the layers of a student on each side: three, four or two where they divide its teacher's, else three.

    Example:
        >>> _depth_for([{"num_layers": 24}, {"num_layers": 8}, {"num_layers": 7}])
        (3, 4, 3)
    """
    near = [_DEPTH, _DEPTH + 1, _DEPTH - 1]
    layers = [side["num_layers"] for side in sides]
    return tuple(next((each for each in near if count % each == 0), min(_DEPTH, count)) for count in layers)


def _sizes(
    recipe: Recipe,
    sides: Sequence[Mapping[str, Any]],
    sections: Mapping[str, Mapping[str, Any]],
    vocabularies: tuple[int, int],
) -> list[Candidate]:
    """Return the sizes between which a target looks for a student: those of configs/model, the narrowest in half its
    width, and, where students start from their teacher, narrow ones of about three layers on a side, or of as many as
    one that has none so narrow. What the user gives, a width or layers, stays as it is.

    A narrow model that starts from three of its teacher's layers is better than a wide one of as many weights that
    starts from one of them (docs/studies.md, "Shapes").
    """
    given = values_of([*recipe.overrides, *recipe.student.overrides])
    sizes = [Candidate.of_section(name, section, vocabularies) for name, section in sections.items()]
    if f"model.encoder.{WIDTH[0]}" not in given:
        least = min(sizes, key=lambda each: (each.hidden_size, each.parameters))
        inner = least.inner_size if f"model.encoder.{WIDTH[1]}" in given else least.inner_size // 2
        section, heads = sections[least.model], wanted_heads(recipe)
        half = resized(least, least.hidden_size // 2, inner, section, vocabularies, sides, heads)
        sizes += [] if half is None else [half]
    if sides and not any(f"model.{side}.num_layers" in given for side in SIDES):
        students = [each for each in sizes if not each.model.startswith(_TEACHERS)]
        depths = {each.layers for each in students} | ({_depth_for(sides)} if len(sides) == 2 else set())
        for layers in depths - {(1, 1)}:
            narrowest = min((each.hidden_size for each in students if each.layers == layers), default=math.inf)
            sizes += [
                each.changed(sections[each.model], vocabularies, layers=layers, is_deepened=True)
                for each in students
                if each.layers == (1, 1) and each.hidden_size < narrowest
            ]
    return sizes


def chosen_student(recipe: Recipe, given: GivenTeachers | None) -> Candidate | None:
    """Return the largest student that a recipe's targets allow, of a size in configs/model or a width between two.

    Of those that have four fifths of the most weights or more it is the deepest. Where one of the targets is a
    latency, `nemo_distill.jobs.latency` chooses.

    Returns:
        It; None: the recipe has no target, and says which model.

    Raises:
        InputError: none is small enough, or the teacher's weights cannot be counted; the message names the smallest.
    """
    if not recipe.student.has_target:
        return None
    vocabularies = vocabularies_of(recipe, given)
    most, sections = most_weights(recipe, given, vocabularies), student_sections(recipe, given)
    sides, heads = started_sides(recipe, given), wanted_heads(recipe)
    sizes = _sizes(recipe, sides, sections, vocabularies)
    found = allowed_sizes(recipe, given, sizes, sections, most)

    def may_be(size: Candidate) -> bool:
        return is_allowed(recipe, given, size, sections[size.model], most)

    for layers in {each.layers for each in found}:
        alike = [each for each in sizes if each.layers == layers]
        alike.sort(key=lambda each: (each.hidden_size, each.parameters))
        low = [each for each in alike if each in found][-1]
        high = next((each for each in alike if each.hidden_size > low.hidden_size), None)
        if high is not None and most is not None:
            between = widths_between(low, high, sections[low.model], vocabularies, sides, FINE, heads)
            found += filter(may_be, between)
    heaviest = max(each.parameters for each in found)
    large = [each for each in found if each.parameters >= _ABOUT_AS_LARGE * heaviest]
    return max(large, key=lambda each: (sum(each.layers), each.parameters, each.model))
