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
"""What a model owes to a teacher: what it learnt from, and what it started from."""

import dataclasses

from nemo.core.classes import ModelPT

from nemo_distill.config.layers import InitConfig

_LONGEST = 200


def is_taught(model: ModelPT) -> bool:
    """Return whether a model learns from a teacher: a term of its objective reads one, or labels of one are mixed in.

    Text that a teacher wrote is not told from other text in `train_ds`.
    """
    config = getattr(model, "distillation", None)
    if config is None:
        return False
    labels = config.mixture.components.values() if config.mixture else ()
    return model.objective.needs_teacher or any(each.made_by is not None for each in labels)


def start_of(model: ModelPT) -> str:
    """Return how a model started: `random`, or what its `distillation.init` says beside the defaults.

    Example:
        >>> start_of(student)  # doctest: +SKIP
        'from_teacher: every_nth, width: project'
    """
    init = getattr(getattr(model, "distillation", None), "init", None)
    if init is None:
        return "random"
    said = {each.name: getattr(init, each.name) for each in dataclasses.fields(InitConfig)}
    default = dataclasses.asdict(InitConfig())
    said = {key: value for key, value in said.items() if value != default[key] and key != "trust_archive"}
    return ", ".join(f"{key}: {value}" for key, value in said.items())[:_LONGEST]
