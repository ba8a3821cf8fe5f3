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
"""Parts of the `distillation` section: terms on inner layers, terms of a recipe, initialisation."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nemo_distill.config.layer_map import map_faults
from nemo_distill.config.reading import name_faults, nearest, weight_faults

DISTANCE_NAMES = ("cosine", "mse")
ATTENTION_DISTANCE_NAMES = ("kl", "mse")
TERM_NAMES = ("nll", "word_kd", "hidden", "attention", "latent")


@dataclass
class HiddenConfig:
    """Hidden-state transfer: the student's layers give what the teacher's layers give, token by token."""

    weight: float = 0.0
    """Weight of the term in the loss; 0 leaves it out."""
    distance: str = "cosine"
    """`cosine` or `mse`."""
    encoder: str | list | None = "uniform"
    """Map from student to teacher encoder layers: `uniform`, `first`, `last`, `every_nth`, the teacher layer of each
    student layer ([7, 15, 23]), pairs ([[0, 7], [-1, -1]]), or null for none."""
    decoder: str | list | None = "uniform"
    """The same for the decoder."""
    projection: bool = False
    """Where the widths differ, learn a linear map from the student's to the teacher's; dropped from the saved
    student."""

    def faults(self, where: str, given: Mapping[str, Any]) -> list[str]:
        """Return one line for each fault."""
        faults = weight_faults(self.weight, f"{where}.weight")
        faults += name_faults(self.distance, DISTANCE_NAMES, f"{where}.distance")
        return faults + _maps_faults(self, ("encoder", "decoder"), where)


@dataclass
class AttentionConfig:
    """Attention-map transfer: the student looks where the teacher looks, averaged over heads."""

    weight: float = 0.0
    """Weight of the term in the loss; 0 leaves it out."""
    distance: str = "kl"
    """`kl` or `mse`."""
    encoder: str | list | None = "uniform"
    """Map from student to teacher layers for the encoder's self-attention, as in `hidden`; null for none."""
    decoder: str | list | None = "uniform"
    """The same for the decoder's self-attention."""
    cross: str | list | None = "uniform"
    """The same for the decoder's attention to the source."""

    def faults(self, where: str, given: Mapping[str, Any]) -> list[str]:
        """Return one line for each fault."""
        faults = weight_faults(self.weight, f"{where}.weight")
        faults += name_faults(self.distance, ATTENTION_DISTANCE_NAMES, f"{where}.distance")
        return faults + _maps_faults(self, ("encoder", "decoder", "cross"), where)


@dataclass
class InitConfig:
    """How the student starts, instead of at random: from one of two sources, layer by layer."""

    from_teacher: str | list | None = None
    """Start from the teacher; the value is the layer map of encoder and decoder: `every_nth` (0, 8, 16 of 24),
    `every_nth_last` (7, 15, 23), `first`, `last`, or as `encoder` below."""
    from_nemo: str | None = None
    """Start from the `.nemo` archive at this path, a pre-trained student. Its layers are taken as by `every_nth`, one
    to one where both are equally deep, unless `encoder` and `decoder` say otherwise."""
    encoder: str | list | None = "same"
    """`same` as above; another map for the encoder alone: a name, the teacher layer of each student layer
    ([0, 8, 16]) or pairs ([[0, 0], [2, 23]]); null leaves these layers at random."""
    decoder: str | list | None = "same"
    """The same for the decoder."""
    embeddings: bool = True
    """Copy what is not in a layer too: embeddings, positions, norms, the head and its bias."""
    trust_archive: bool = False
    """The archive of `from_nemo` is your own, as `teacher.trust_archive`."""
    width: str | None = None
    """null: both models have the same sizes. `project`: a slimmer student takes the directions, heads and feed-forward
    neurons of the wide model that weigh most. (`select` is of earlier versions, and starts no student any more.)"""

    def faults(self, where: str, given: Mapping[str, Any]) -> list[str]:
        """Return one line for each fault."""
        if (self.from_teacher is None) == (self.from_nemo is None):
            got = "neither" if self.from_teacher is None else "both"
            return [f"{where}: got {got} of from_teacher and from_nemo; give exactly one of them, or init: null"]
        known = (None, "project", "select")  # archives of earlier versions say `select`
        faults = [] if self.width in known else [f"{where}.width: got '{self.width}'; give project or null"]
        if self.from_teacher is not None:
            faults += map_faults(self.from_teacher, f"{where}.from_teacher")
        elif not self.from_nemo.strip():
            faults.append(f"{where}.from_nemo: is empty; give the path of a .nemo file")
        sides = [side for side in ("encoder", "decoder") if getattr(self, side) != "same"]
        return faults + _maps_faults(self, sides, where, required=False)

    def map_of(self, side: str) -> str | list | None:
        """Return the map of one side, `encoder` or `decoder`; None: leave its layers alone."""
        own = getattr(self, side)
        if own != "same":
            return own
        return self.from_teacher if self.from_teacher is not None else "every_nth"


@dataclass(frozen=True)
class RecipeTerm:
    """One entry of `objective.terms`, checked."""

    target: str
    name: str
    weight: float
    settings: dict[str, Any]


def read_recipe_terms(entries: list, where: str, faults: list[str]) -> list[RecipeTerm]:
    """Read `objective.terms`: mappings with `_target_`, and optionally `weight`, `name` and the term's own settings.

    Args:
        entries: what stands under the key.
        where: its place, for the messages.
        faults: gets one line for each fault.
    """
    terms = []
    for index, entry in enumerate(entries):
        place = f"{where}[{index}]"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("_target_"), str):
            near = nearest("_target_", map(str, entry)) if isinstance(entry, Mapping) else ""
            faults.append(f"{place}: got {entry!r}; give a mapping with `_target_: my.module.MyTerm`{near}")
            continue
        settings = dict(entry)
        target, weight = settings.pop("_target_"), settings.pop("weight", 1.0)
        name = settings.pop("name", _snake_case(target.rpartition(".")[2]))
        if "." not in target:
            faults.append(f"{place}._target_: got '{target}'; give the class with its module, as my.module.MyTerm")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or abs(weight) > 1e300:
            faults.append(f"{place}.weight: got {weight!r}; give a finite number of at least 0")
        else:
            faults += weight_faults(float(weight), f"{place}.weight")
        if not (isinstance(name, str) and name.isidentifier()):
            faults.append(
                f"{place}.name: got {name!r}; give letters, digits and underscores: it is logged as train_NAME"
            )
        elif _is_of_modules(name):
            faults.append(f"{place}.name: torch's modules have something called '{name}'; give another `name`")
        elif name in (*TERM_NAMES, "loss", *(term.name for term in terms)):
            faults.append(f"{place}.name: '{name}' is taken by another term; give this one a `name` of its own")
        terms.append(RecipeTerm(target, name, weight, settings))
    return terms


def _is_of_modules(name: str) -> bool:
    """Return whether a module of several by their names can have none of this name."""
    from torch.nn import ModuleDict  # which nothing else here needs

    return hasattr(ModuleDict, name) or hasattr(ModuleDict(), name)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _maps_faults(config: Any, sides: tuple[str, ...] | list[str], where: str, required: bool = True) -> list[str]:
    """Faults of the maps of some sides; where `required`, a weight above 0 needs at least one."""
    maps = {side: getattr(config, side) for side in sides}
    if required and config.weight > 0 and all(layer_map is None for layer_map in maps.values()):
        return [f"{where}: {' and '.join(sides)} are null, so the term is empty; give a map, or weight 0"]
    return [
        fault
        for side, layer_map in maps.items()
        if layer_map is not None
        for fault in map_faults(layer_map, f"{where}.{side}")
    ]
