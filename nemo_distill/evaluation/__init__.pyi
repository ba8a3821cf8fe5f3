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
from .layout import Layout as Layout
from .report import build_report as build_report
from .report import write_report as write_report
from .results import Comparison as Comparison
from .results import EvaluationResult as EvaluationResult
from .results import ModelResult as ModelResult
from .results import Score as Score
from .results import TestSetResult as TestSetResult
from .scoring import evaluate as evaluate
from .speed import measure_speed as measure_speed
from .speed_results import SpeedResult as SpeedResult
from .summary import Report as Report
