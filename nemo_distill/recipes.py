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
"""What NeMo's own training scripts need to train a student: the classes that they name, with a `distillation` section.

`enc_dec_nmt.py`, `enc_dec_nmt_finetune.py` and `enc_dec_nmt-bottleneck.py` merge their YAML into dataclasses, which
take no key that they do not name. `docs/recipe.md` shows the three lines to change in each script.
"""

from dataclasses import dataclass
from typing import Any

from nemo.collections.nlp.models.machine_translation.mt_enc_dec_config import (
    AAYNBaseConfig,
    MTBottleneckModelConfig,
    MTEncDecModelConfig,
)

from nemo_distill.model import DistilledMTBottleneckModel, DistilledMTEncDecModel

__all__ = [
    "DistilledAAYNBaseConfig",
    "DistilledMTBottleneckModel",
    "DistilledMTBottleneckModelConfig",
    "DistilledMTEncDecModel",
    "DistilledMTEncDecModelConfig",
]


@dataclass
class DistilledMTEncDecModelConfig(MTEncDecModelConfig):
    """NeMo's `MTEncDecModelConfig` with the section of a student."""

    distillation: Any = None
    """A mapping, see `DistillationConfig`, which checks it; `Any`, so that OmegaConf leaves that to it."""


@dataclass
class DistilledAAYNBaseConfig(AAYNBaseConfig):
    """NeMo's `AAYNBaseConfig` with the section of a student."""

    distillation: Any = None
    """As in `DistilledMTEncDecModelConfig`."""


@dataclass
class DistilledMTBottleneckModelConfig(MTBottleneckModelConfig):
    """NeMo's `MTBottleneckModelConfig` with the section of a student."""

    distillation: Any = None
    """As in `DistilledMTEncDecModelConfig`."""
