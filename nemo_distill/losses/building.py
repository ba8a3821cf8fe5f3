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
"""Build the terms of the objective that read inner layers of both models, and those that a recipe brings along."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from nemo_distill.capture import CaptureSpec, layer_paths, split_item
from nemo_distill.config.layer_map import LayerMap, layer_pairs
from nemo_distill.config.layers import AttentionConfig, HiddenConfig, RecipeTerm
from nemo_distill.config.section import CaptureConfig, DistillationConfig
from nemo_distill.errors import ConfigurationError
from nemo_distill.losses.attention import AttentionTerm
from nemo_distill.losses.hidden import HiddenStateTerm
from nemo_distill.losses.term import MEANS, LayerPair, ObjectiveTerm

WeightedTerms = dict[str, tuple[float, ObjectiveTerm]]


def build_layer_terms(config: DistillationConfig, student: nn.Module, teacher: nn.Module | None) -> WeightedTerms:
    """Build the terms on hidden states and attention maps that have a weight.

    Args:
        config: the checked section.
        student: the student's model.
        teacher: the teacher's model; None where the teacher is not one model that runs.

    Raises:
        ConfigurationError: a layer map or the widths do not fit the two models, or there is no teacher to look into.
        CaptureError: a path under `distillation.capture` matches nothing.
    """
    objective, capture = config.objective, config.capture
    wanted = [name for name in ("hidden", "attention") if getattr(objective, name).weight > 0]
    if wanted and teacher is None:
        raise ConfigurationError(
            f"distillation.objective.{wanted[0]} reads inner layers of the teacher, which needs one teacher that runs "
            f"beside the student; give teacher.model_path or model_name, or set {wanted[0]}.weight to 0"
        )
    for name in wanted:
        _refuse_other_positions(name, getattr(objective, name), {"student": student, "teacher": teacher})
    terms: WeightedTerms = {}
    if "hidden" in wanted:
        terms["hidden"] = (objective.hidden.weight, _hidden_term(objective.hidden, capture, student, teacher))
    if "attention" in wanted:
        term = _attention_term(objective.attention, capture, student, teacher)
        terms["attention"] = (objective.attention.weight, term)
    return terms


def _refuse_other_positions(
    name: str, config: HiddenConfig | AttentionConfig, models: Mapping[str, nn.Module]
) -> None:
    """Refuse to compare what a bottleneck model has at positions that are not those of the source's tokens.

    Raises:
        ConfigurationError: a map asks for it.
    """
    parts = [part for part in ("encoder", "cross") if getattr(config, part, None) is not None]
    for owner, model in models.items():
        arch = getattr(getattr(model, "encoder", None), "arch", None)
        if parts and arch not in (None, "", "seq2seq"):
            raise ConfigurationError(
                f"distillation.objective.{name}.{parts[0]}: the {owner}'s encoder (arch: {arch}) has positions that "
                f"are no source tokens, so they cannot be compared; set {name}.{f' and {name}.'.join(parts)} to null"
            )


def _hidden_term(
    config: HiddenConfig, capture: CaptureConfig, student: nn.Module, teacher: nn.Module
) -> HiddenStateTerm:
    maps = {"encoder": config.encoder, "decoder": config.decoder}
    widths = {}
    for part, layer_map in maps.items():
        sizes = getattr(student, part).hidden_size, getattr(teacher, part).hidden_size
        if layer_map is not None and sizes[0] != sizes[1]:
            widths[part] = sizes
    if widths and not config.projection:
        unequal = ", ".join(f"{part} {sizes[0]} against the teacher's {sizes[1]}" for part, sizes in widths.items())
        raise ConfigurationError(
            f"distillation.objective.hidden: the models have different widths: {unequal}; set hidden.projection: true "
            "to learn a linear map between them, or give the student the teacher's hidden_size"
        )
    pairs = [
        LayerPair(part, *places)
        for part, layer_map in maps.items()
        for places in _places("hidden", part, layer_map, capture, student, teacher, partial(_state, capture, part))
    ]
    with torch.random.fork_rng(devices=[]):  # data and dropout are drawn as without a projection
        return HiddenStateTerm(config.distance, pairs, widths)


def _attention_term(
    config: AttentionConfig, capture: CaptureConfig, student: nn.Module, teacher: nn.Module
) -> AttentionTerm:
    pairs = []
    for part in ("encoder", "decoder", "cross"):

        def place(model: nn.Module, owner: str, layer: str, last: bool, part: str = part) -> CaptureSpec:
            kind = "cross" if part == "cross" else "self"
            inside = getattr(capture, f"{owner}_{kind}_attention")
            if part == "encoder":
                inside = getattr(capture, f"{owner}_encoder_attention") or inside
            return CaptureSpec(f"{layer}.{inside}", "input")

        places = _places("attention", part, getattr(config, part), capture, student, teacher, place)
        pairs += [LayerPair(part, *place) for place in places]
    return AttentionTerm(config.distance, pairs)


def _places(
    term: str, part: str, layer_map: LayerMap | None, capture: CaptureConfig, student, teacher, place
) -> Iterator[tuple[str, CaptureSpec, CaptureSpec]]:
    """Yield the label, the student's and the teacher's place of each pair of layers of one part."""
    if layer_map is None:
        return
    models = {"student": student, "teacher": teacher}
    stack = "encoder" if part == "encoder" else "decoder"
    layers = {
        owner: layer_paths(model, getattr(capture, f"{owner}_{stack}_layers")) for owner, model in models.items()
    }
    counts = {owner: len(paths) for owner, paths in layers.items()}
    where = f"distillation.objective.{term}.{part}"
    for pair in layer_pairs(layer_map, counts["student"], counts["teacher"], where):
        last = all(index == count - 1 for index, count in zip(pair, counts.values(), strict=True))
        specs = [
            place(model, owner, layers[owner][index], last)
            for (owner, model), index in zip(models.items(), pair, strict=True)
        ]
        yield (f"{pair[0]}→{pair[1]}", *specs)


def _state(capture: CaptureConfig, part: str, model: nn.Module, owner: str, layer: str, last: bool) -> CaptureSpec:
    """Two last layers are compared as the rest of the model reads them: after the final norm, where there is one."""
    stack = layer.rpartition(".")[0].rpartition(".")[0]  # encoder._encoder.layers.2 -> encoder._encoder
    has_final_norm = last and getattr(model.get_submodule(stack), "final_layer_norm", None) is not None
    if has_final_norm:
        return CaptureSpec(f"{stack}.final_layer_norm".lstrip("."))
    return CaptureSpec(layer, item=split_item(getattr(capture, f"{owner}_{part}_layers"))[1])


def build_recipe_terms(entries: Sequence[RecipeTerm]) -> WeightedTerms:
    """Build the terms of `objective.terms` that have a weight.

    Raises:
        ConfigurationError: a class cannot be imported, is no `ObjectiveTerm`, or refuses its settings.
    """
    return {entry.name: (entry.weight, _recipe_term(entry)) for entry in entries if entry.weight > 0}


def _recipe_term(entry: RecipeTerm) -> ObjectiveTerm:
    where = f"distillation.objective.terms: _target_ {entry.target}"
    module, _, name = entry.target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{where} cannot be imported: {error}; is its module on PYTHONPATH?") from error
    if not (isinstance(found, type) and issubclass(found, ObjectiveTerm)):
        raise ConfigurationError(f"{where} is no class of terms; let it subclass nemo_distill.losses.ObjectiveTerm")
    try:
        term = found(**entry.settings)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{where} refuses its settings {entry.settings}: {error}") from error
    if term.mean_over not in (None, *MEANS):
        raise ConfigurationError(f"{where}: mean_over is {term.mean_over!r}; give {', '.join(MEANS)} or None")
    if term.teacher_captures and not term.needs_teacher:
        raise ConfigurationError(
            f"{where}: its teacher_captures read the teacher, but it does not say so; give it `needs_teacher = True`"
        )
    return term


def merged_captures(terms: Mapping[str, ObjectiveTerm], owner: str) -> dict[CaptureSpec, CaptureSpec]:
    """Return what all terms read of one model, `student` or `teacher`, each place once."""
    return {spec: spec for term in terms.values() for spec in getattr(term, f"{owner}_captures")}
