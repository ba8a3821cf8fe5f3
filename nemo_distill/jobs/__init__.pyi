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
from .allowed import config_faults as config_faults
from .allowed import corpus_faults as corpus_faults
from .allowed import language_faults as language_faults
from .allowed import seed_faults as seed_faults
from .allowed import setting as setting
from .running import verb_command as verb_command
from .stages import Stage as Stage
from .stages import run_stages as run_stages
from .sweep_plan import Plan as Plan
from .sweep_plan import Size as Size
from .sweep_plan import layout_of as layout_of
from .sweep_plan import read_plan as read_plan
