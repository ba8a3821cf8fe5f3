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
from .conversion import convert as convert
from .ctranslate2_engine import CTranslate2Engine as CTranslate2Engine
from .engine import Engine as Engine
from .engine import Hypothesis as Hypothesis
from .engine import SearchSettings as SearchSettings
from .exporting import export as export
from .exporting import open_export as open_export
from .nemo_engine import NeMoEngine as NeMoEngine
from .opening import open_engine as open_engine
from .translation import Translations as Translations
from .translation import translate as translate
