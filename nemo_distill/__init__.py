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
"""Distil NeMo translation models: a big teacher, a small student, and honest tables of what it cost and gained.

The public names are imported on first use, so that `nemo-distill --help` does not wait for torch and NeMo.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_PUBLIC_NAMES = {
    "DistillationModelPT": "nemo_distill.mixin",
    "DistilledMTEncDecModel": "nemo_distill.model",
    "DistillationConfig": "nemo_distill.config.section",
}
__all__ = ["__version__", *_PUBLIC_NAMES]

if TYPE_CHECKING:
    from nemo_distill.config.section import DistillationConfig
    from nemo_distill.mixin import DistillationModelPT
    from nemo_distill.model import DistilledMTEncDecModel


def __getattr__(name: str):
    if name in _PUBLIC_NAMES:
        return getattr(import_module(_PUBLIC_NAMES[name]), name)
    raise AttributeError(f"module 'nemo_distill' has no attribute '{name}'")
