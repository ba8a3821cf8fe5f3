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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nemo_distill.config.reading import fault_list
from nemo_distill.errors import InputError
from nemo_distill.jobs.architecture import StartError, start_faults, student_section, teacher_section
from nemo_distill.jobs.recipe import Recipe
from nemo_distill.jobs.running import CONFIGS
from nemo_distill.jobs.teachers import GivenTeachers

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Of a weight, by the type of the export; of all others one: biases and norms, which stay wider, are few."""
_BY_NAME_ALONE = ("base", "deep_")
"""How those of configs/model begin that no target chooses.

The weights of a deep encoder with a shallow decoder do not say how it compares with the others."""


@dataclass(frozen=True)
class Timing:
    """What was measured of a size."""

    latency_ms: float
    """Median (p50) of one sentence."""
    source_tokens: int
    target_tokens: int
    threads: int


def parameters_of(section: Mapping[str, Any], vocabularies: tuple[int, int]) -> int:
    """Return the number of weights of NeMo's encoder-decoder, as `evaluate` counts them: shared ones once.

    Args:
        section: its `model` section, with `encoder` and `decoder` of NeMo's library.
        vocabularies: tokens of the source and target tokenizer; NeMo rounds each up to a multiple of 8.

    Example:
        >>> side = {"hidden_size": 8, "inner_size": 16, "num_layers": 1, "pre_ln": True}
        >>> parameters_of({"encoder": side, "decoder": side, "shared_embeddings": True}, (100, 100))
        2536
    """
    rounded = [-(-size // 8) * 8 for size in vocabularies]
    total = rounded[1]  # biases of the head; its matrix is that of the target's embeddings
    for name, attentions, vocabulary in (("encoder", 1, rounded[0]), ("decoder", 2, rounded[1])):
        side = section[name]
        hidden, inner = side["hidden_size"], side["inner_size"]
        norm = 2 * hidden
        layer = attentions * (4 * hidden * (hidden + 1) + norm) + 2 * hidden * inner + inner + hidden + norm
        total += side["num_layers"] * layer + norm  # the norm of the embeddings
        total += norm if side.get("pre_ln") and side.get("pre_ln_final_layer_norm", True) else 0
        total += side.get("max_sequence_length", 512) * hidden if side.get("learn_positional_encodings") else 0
        total += (side.get("num_token_types", 2) or 0) * hidden
        total += vocabulary * hidden if name == "decoder" or not section.get("shared_embeddings") else 0
    return total


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


def fitting_sizes(
    recipe: Recipe,
    given: GivenTeachers | None,
    sections: Mapping[str, Mapping[str, Any]],
    vocabularies: tuple[int, int],
    most: float | None,
) -> dict[str, int]:
    """Return the weights of the sizes, by name, that have no more of them than a limit.

    Where runs start from their teacher, those are left out that cannot, as all that are somewhere larger.

    Args:
        recipe: whose student it is.
        given: its teachers, where they are given.
        sections: of all sizes.
        vocabularies: of its students.
        most: weights that a student may have.

    Raises:
        InputError: there is none; the message names the smallest.
    """
    sizes = {name: parameters_of(section, vocabularies) for name, section in sections.items()}
    faults = {name: start_faults(recipe, given, section) for name, section in sections.items()}
    if all(faults.values()):
        smallest = min(sizes, key=sizes.get)
        raise StartError(
            "recipe.student: none of configs/model can start from this teacher, as runs with a start do, not even "
            f"{smallest}:\n{fault_list(faults[smallest])}\n  Give student.model and overrides of at most the "
            "teacher's sizes, or leave start out"
        )
    sizes = {name: size for name, size in sizes.items() if not faults[name]}
    fitting = {name: size for name, size in sizes.items() if most is None or size <= most}
    if not fitting:
        smallest = min(sizes, key=sizes.get)
        raise InputError(
            f"recipe.student: the target leaves room for {most:,.0f} weights, and the smallest of "
            f"configs/model, {smallest}, has {sizes[smallest]:,}; ask for less, or give student.model and "
            "overrides, such as [model.encoder.hidden_size=32]"
        )
    return fitting


def chosen_student(recipe: Recipe, given: GivenTeachers | None) -> str:
    """Return the name in configs/model of a recipe's students: as it says, else the largest that its targets allow.

    Where one of these is a latency, `nemo_distill.jobs.latency` chooses.

    Raises:
        InputError: none is small enough, or the teacher's weights cannot be counted; the message names the smallest.
    """
    if not recipe.student.has_target:
        return recipe.student.model
    vocabularies = vocabularies_of(recipe, given)
    most = most_weights(recipe, given, vocabularies)
    fitting = fitting_sizes(recipe, given, student_sections(recipe, given), vocabularies, most)
    return max(fitting, key=lambda name: (fitting[name], name))
