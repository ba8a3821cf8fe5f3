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
"""An engine without a model."""

import runpy
from pathlib import Path

import pytest

WORD_ENGINE = Path(__file__).parent / "labels/word_engine.py"


@pytest.fixture(scope="session")
def word_engine() -> type:
    """The class of an engine without a model; `word_engine.script` labels a text with it."""
    engine = runpy.run_path(str(WORD_ENGINE))["WordEngine"]
    engine.script = WORD_ENGINE
    return engine
