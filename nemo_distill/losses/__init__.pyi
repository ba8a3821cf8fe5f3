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
from .attention import ATTENTION_DISTANCES as ATTENTION_DISTANCES
from .attention import AttentionMapLoss as AttentionMapLoss
from .attention import AttentionTerm as AttentionTerm
from .divergence import DIVERGENCES as DIVERGENCES
from .divergence import NLLLoss as NLLLoss
from .divergence import WordLevelKDLoss as WordLevelKDLoss
from .hidden import DISTANCES as DISTANCES
from .hidden import HiddenStateLoss as HiddenStateLoss
from .hidden import HiddenStateTerm as HiddenStateTerm
from .objective import DistillationObjective as DistillationObjective
from .signals import HeadInput as HeadInput
from .signals import Logits as Logits
from .signals import SampledTargets as SampledTargets
from .signals import StudentLogits as StudentLogits
from .signals import StudentSignal as StudentSignal
from .signals import TeacherSignal as TeacherSignal
from .signals import TopKTargets as TopKTargets
from .term import LayerPair as LayerPair
from .term import LayerPairsTerm as LayerPairsTerm
from .term import ObjectiveInputs as ObjectiveInputs
from .term import ObjectiveTerm as ObjectiveTerm
