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
from .languages import Languages as Languages
from .layer_map import layer_pairs as layer_pairs
from .layers import AttentionConfig as AttentionConfig
from .layers import HiddenConfig as HiddenConfig
from .layers import InitConfig as InitConfig
from .mixture import ComponentConfig as ComponentConfig
from .mixture import HybridConfig as HybridConfig
from .mixture import MixtureConfig as MixtureConfig
from .mixture import NoiseConfig as NoiseConfig
from .section import CaptureConfig as CaptureConfig
from .section import DistillationConfig as DistillationConfig
from .section import NLLConfig as NLLConfig
from .section import ObjectiveConfig as ObjectiveConfig
from .section import TeacherConfig as TeacherConfig
from .section import WordKDConfig as WordKDConfig
