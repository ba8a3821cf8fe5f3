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
"""An engine without a model; models that are not NeMo's."""

import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

WORD_ENGINE = Path(__file__).parent / "labels/word_engine.py"
FOREIGN_MODELS = Path(__file__).parent / "decoding/foreign_models.py"


@pytest.fixture(scope="session")
def word_engine() -> type:
    """The class of an engine without a model; `word_engine.script` labels a text with it."""
    engine = runpy.run_path(str(WORD_ENGINE))["WordEngine"]
    engine.script = WORD_ENGINE
    return engine


@pytest.fixture(scope="session")
def foreign_model(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """A function that returns the directory of a tiny model of `transformers`: `foreign_model("marian")`."""
    models = runpy.run_path(str(FOREIGN_MODELS))
    texts = [line for side in ("de", "en") for line in (tiny_corpus / f"train.{side}").read_text("utf-8").splitlines()]
    place = tmp_path_factory.mktemp("foreign")
    return cache(lambda family: models["build"](family, place / family, texts))
