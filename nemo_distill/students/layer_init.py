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
"""Start a student from layers of another model: of its teacher, or of a pre-trained student.

Source: DistilBERT (Sanh et al. 2019, arXiv:1910.01108) takes one of every n teacher layers, and the embeddings too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from nemo_distill.archives.restore import read_archive_config
from nemo_distill.capture import layer_paths
from nemo_distill.config.layer_map import layer_pairs
from nemo_distill.config.layers import InitConfig
from nemo_distill.config.section import CaptureConfig
from nemo_distill.errors import CaptureError, ConfigurationError, InputError
from nemo_distill.students.width_projection import WidthProjection

_SIDES = ("encoder", "decoder")
# What the weights of a layer mean depends on these; their values in a section that does not give them.
_MEANING = {"pre_ln": False, "hidden_act": "relu", "num_attention_heads": 1}
_OF_ENCODERS = {"mask_future": True}  # those of a decoder see no later word in any case
_OF_EMBEDDINGS = {"learn_positional_encodings": False}
_FINAL_NORM = ".final_layer_norm."
_WAVES = "position_embedding.pos_enc"
_POSITIONS = (_WAVES, "position_embedding.weight")
_WORDS = ("token_embedding.weight", "log_softmax.mlp.layer0.weight", "log_softmax.mlp.layer0.bias")


@dataclass
class InitReport:
    """Where each tensor of a student came from; `str(report)` is a table."""

    copied: dict[str, str] = field(default_factory=dict)
    """The source's tensor of each tensor that was set."""
    kept: dict[str, str] = field(default_factory=dict)
    """Why each other tensor was left as it was."""
    shapes: dict[str, list[int]] = field(default_factory=dict)
    """Shape of each tensor of the student."""
    source_shapes: dict[str, list[int]] = field(default_factory=dict)
    """Shape of each tensor of the source."""

    def __str__(self) -> str:
        wide = max(map(len, self.shapes), default=0)
        lines = [f"{len(self.copied)} of {len(self.shapes)} tensors of the student are set (student <- source):"]
        for name, origin in self.copied.items():
            shapes = self.shapes[name], self.source_shapes[origin]
            lines.append(f"  {name:{wide}} <- {origin}  {shapes[0] if shapes[0] == shapes[1] else shapes}")
        lines += [f"  {name:{wide}} as it was: {reason}" for name, reason in self.kept.items()]
        return "\n".join(lines)


def check_init_source(config: InitConfig | None) -> None:
    """Make sure that the archive of `init.from_nemo` is one, without opening it.

    Raises:
        ConfigurationError: it is not.
    """
    if config is not None and config.from_nemo is not None:
        try:
            read_archive_config(config.from_nemo, config.trust_archive or None)
        except InputError as error:
            raise ConfigurationError(f"distillation.init.from_nemo: {error}") from error


def initialise(
    student: nn.Module,
    source: nn.Module,
    config: InitConfig,
    capture: CaptureConfig | None = None,
    where: str = "distillation.init",
) -> InitReport:
    """Set the student's tensors from those of `source`, in place, so that tied weights stay tied.

    Either all that the configuration asks for is set, or nothing.

    Args:
        student: an `MTEncDecModel`; changed in place.
        source: a trained `MTEncDecModel` with the same vocabularies; not changed.
        config: layer maps, and what else to take.
        capture: where the layers are; the source's are the teacher's paths.
        where: place of `config`, for messages.

    Returns:
        What came from where.

    Raises:
        InputError: a map does not fit the numbers of layers, or sizes, structure or tied weights differ; the message
            lists every difference.
    """
    if config.width == "select":
        raise InputError(
            f"{where}.width: `select` is of earlier versions; give `project`, whose students start better "
            "(docs/initialisation.md)"
        )
    capture = capture or CaptureConfig()
    targets, origins = student.state_dict(keep_vars=True), source.state_dict()
    report = InitReport(
        shapes={name: list(tensor.shape) for name, tensor in targets.items()},
        source_shapes={name: list(tensor.shape) for name, tensor in origins.items()},
    )
    broken = [name for name, tensor in origins.items() if not tensor.isfinite().all()]
    if broken:
        raise InputError(f"{where}: the source's {broken[0]} holds numbers that are not finite; give another archive")
    faults = list(_meaning_faults(student, source, config))
    _plan(student, source, config, capture, where, report, faults)
    values = {}
    if not (config.width and faults):  # else sizes differ that would not
        try:
            projection = WidthProjection(student, source) if config.width else None
            for name, origin in report.copied.items():
                value = projection.take(name, origin) if projection and origin in origins else origins.get(origin)
                values[name] = _first_rows(name, targets[name], value)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    faults += _shape_faults(values, targets, report.copied)
    faults += _tie_faults(values, targets) if not faults else []
    if faults:
        hint = ", or `width: project` (`init --width project`) where it is slimmer" if config.width is None else ""
        shown = faults[:12] + ([f"and {len(faults) - 12} more"] if len(faults) > 12 else [])
        raise InputError(
            f"{where}: the student cannot start from this model:\n"
            + "\n".join(f"  {fault}" for fault in shown)
            + f"\n  Give the student the source's sizes and structure{hint}"
        )
    with torch.no_grad():
        for name, value in values.items():
            targets[name].copy_(value)
    return report


def _plan(student, source, config: InitConfig, capture, where: str, report: InitReport, faults: list[str]) -> None:
    """Fill in the report: what gets what, and what stays as it is."""
    inside = {}  # path of each student layer -> path of the source's layer, or None
    for side in _SIDES:
        layer_map = config.map_of(side)
        if layer_map is None:
            inside |= dict.fromkeys(_layers_left_alone(student, side, getattr(capture, f"student_{side}_layers")))
            continue
        mine = layer_paths(student, getattr(capture, f"student_{side}_layers"))
        theirs = layer_paths(source, getattr(capture, f"teacher_{side}_layers"))
        pairs = layer_pairs(layer_map, len(mine), len(theirs), f"{where}.{side}")
        inside |= dict.fromkeys(mine)
        for student_layer, source_layer in pairs:
            if inside[mine[student_layer]] is not None:
                faults.append(f"{side}: student layer {student_layer} is given two layers; give it one")
            inside[mine[student_layer]] = theirs[source_layer]
    for name in report.shapes:
        layer = next((path for path in inside if name.startswith(f"{path}.")), None)
        if layer is not None and inside[layer] is None:
            report.kept[name] = "its layer is not in the map"
        elif layer is not None:
            report.copied[name] = inside[layer] + name.removeprefix(layer)
        elif not config.embeddings:
            report.kept[name] = "embeddings: false"
        elif name not in report.source_shapes:
            report.kept[name] = "the source has no such tensor"
        elif name.endswith(_WAVES) and report.shapes[name][1:] != report.source_shapes[name][1:]:
            report.kept[name] = "sines and cosines of the student's own width"
        else:
            report.copied[name] = name
    for layer, origin in inside.items():
        here = {name for name in report.source_shapes if origin and name.startswith(f"{origin}.")}
        faults += [
            f"{name} has no place in the student's {layer}" for name in sorted(here - {*report.copied.values()})
        ]
    mapped = tuple(f"{side}." for side in _SIDES if config.map_of(side) is not None)
    norms = [
        {name for name in shapes if _FINAL_NORM in name and name.startswith(mapped)}
        for shapes in (report.shapes, report.source_shapes)
    ]
    if config.embeddings:
        faults += [f"{name} is in one of the two models only" for name in sorted(norms[0] ^ norms[1])]


def _layers_left_alone(student: nn.Module, side: str, path: str) -> list[str]:
    """Return the student's layers of a side without a map; all of the side's stack where it has no list of layers."""
    try:
        return layer_paths(student, path)
    except CaptureError:
        return [f"{side}._{side}"]


def _meaning_faults(student: nn.Module, source: nn.Module, config: InitConfig) -> Iterator[str]:
    """Yield settings that differ, so that the same weights would compute something else."""
    for side in _SIDES:
        if config.map_of(side) is None:
            continue
        mine, theirs = student.cfg.get(side) or {}, source.cfg.get(side) or {}
        meaning = (
            _MEANING | (_OF_ENCODERS if side == "encoder" else {}) | (_OF_EMBEDDINGS if config.embeddings else {})
        )
        for key, default in meaning.items():
            values = mine.get(key, default), theirs.get(key, default)
            may_shrink = key == "num_attention_heads" and config.width == "project"
            if values[0] != values[1] and not may_shrink:
                yield f"{side}.{key} is {values[0]} in the student and {values[1]} in the source"


def _first_rows(name: str, target: torch.Tensor, value: torch.Tensor | None) -> torch.Tensor | None:
    """A table of positions may be longer in the source; a longer one in the student must go on in the same way.

    A table of words may be longer in the source, by tokens of languages behind the student's last word.
    """
    if value is None or not name.endswith(_POSITIONS + _WORDS) or value.shape[1:] != target.shape[1:]:
        return value
    if name.endswith(_WORDS):
        return value[: len(target)]
    if len(value) < len(target) and torch.equal(target[: len(value)].cpu(), value.cpu()):
        return target.detach()
    return value[: len(target)]


def _shape_faults(values: Mapping, targets: Mapping, origins: Mapping[str, str]) -> Iterator[str]:
    for name, value in values.items():
        if value is None:
            yield f"{name} would come from {origins[name]}, which the source does not have"
        elif value.shape != targets[name].shape:
            yield f"{name} is {list(targets[name].shape)}, but {origins[name]} is {list(value.shape)} in the source"


def _tie_faults(values: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> Iterator[str]:
    """Yield weights that are one tensor in the student, such as shared embeddings, but not in the source."""
    first: dict[int, str] = {}
    for name, value in values.items():
        other = first.setdefault(id(targets[name]), name)
        if not torch.equal(values[other], value):
            yield f"{other} and {name} are one tensor in the student and two in the source (shared_embeddings)"
