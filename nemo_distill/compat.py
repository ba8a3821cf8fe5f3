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
"""What differs between the lines of NeMo that this library runs on: 1.23, and 2.x with 2.4 as the one tested.

NeMo 2.4 is the last line with `MTEncDecModel`. Nothing heavy is imported here at the top.
"""

import importlib
from importlib.metadata import version
from types import ModuleType

NEMO_2 = int(version("nemo_toolkit").split(".")[0]) >= 2

TOKENIZER_LIBRARIES = ("sentencepiece",) if NEMO_2 else ("yttm", "sentencepiece")
"""Values of `encoder_tokenizer.library` that NeMo reads and `nemo-distill tokenizer` writes, the default first."""


def lightning() -> ModuleType:
    """Return the Lightning package whose classes NeMo derives its own from: two copies of one class do not mix."""
    return importlib.import_module("lightning.pytorch" if NEMO_2 else "pytorch_lightning")
