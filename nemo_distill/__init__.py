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

Read first: `model` and `mixin` (the student), `capture` (what is read of both models), `errors`. Everything else is in
wings, one folder for each thing; `docs/architecture.md` has the picture. Public is what `__init__.pyi` names, here and
in the wings; it is imported on first use, so that `nemo-distill --help` does not wait for torch and NeMo.
"""

import lazy_loader

from nemo_distill.support.matplotlibrc import ignore_current_directory
from nemo_distill.support.megatron_jit import compile_later

__version__ = "0.1.0"

ignore_current_directory()
compile_later()

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
