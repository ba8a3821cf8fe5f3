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
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from types import ModuleType

NEMO_2 = int(version("nemo_toolkit").split(".")[0]) >= 2

TOKENIZER_LIBRARIES = ("sentencepiece",) if NEMO_2 else ("yttm", "sentencepiece")
"""Values of `encoder_tokenizer.library` that NeMo reads and `nemo-distill tokenizer` writes."""
DEFAULT_TOKENIZER_LIBRARY = TOKENIZER_LIBRARIES[0]
"""What NeMo takes where a configuration names none."""
NO_YTTM = "NeMo 2 has dropped YouTokenToMe; take NeMo 1.23 for this model, or train one with SentencePiece"


def lightning() -> ModuleType:
    """Return the Lightning package whose classes NeMo derives its own from: two copies of one class do not mix."""
    return importlib.import_module("lightning.pytorch" if NEMO_2 else "pytorch_lightning")


@contextmanager
def protected_loading() -> Iterator[None]:
    """Hold `torch.load` to `weights_only` inside the block, where NeMo 2 and its Lightning ask for any pickle."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
