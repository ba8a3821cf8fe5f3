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
"""Losses of distillation. They know tensors and masks, never NeMo models."""

from nemo_distill.losses.attention import ATTENTION_DISTANCES, AttentionMapLoss, AttentionTerm
from nemo_distill.losses.divergence import DIVERGENCES, NLLLoss, WordLevelKDLoss
from nemo_distill.losses.hidden import DISTANCES, HiddenStateLoss, HiddenStateTerm
from nemo_distill.losses.lean import HeadInput
from nemo_distill.losses.objective import DistillationObjective
from nemo_distill.losses.term import LayerPair, LayerPairsTerm, ObjectiveInputs, ObjectiveTerm
from nemo_distill.losses.top_k import TopKTargets

__all__ = [
    "ATTENTION_DISTANCES",
    "DISTANCES",
    "DIVERGENCES",
    "AttentionMapLoss",
    "AttentionTerm",
    "DistillationObjective",
    "HeadInput",
    "HiddenStateLoss",
    "HiddenStateTerm",
    "LayerPair",
    "LayerPairsTerm",
    "NLLLoss",
    "ObjectiveInputs",
    "ObjectiveTerm",
    "TopKTargets",
    "WordLevelKDLoss",
]
