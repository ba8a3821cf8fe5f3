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
"""The hardened reader of `.nemo` archives: what is in one is checked in memory before any of it is used.

- `reader`: the members of the tar file. `config`: its configuration, as plain data. `values`: what is used
  of it, types and ranges. `generations`: what an older NeMo meant by it. `weights`: its tensors.
- `restore`: a model opened from the three. `multilingual`: the language tokens of old ones.
- `ngc`: archives by name, fetched.

Whatever reads an archive goes through here. Which model is a teacher, and whether it fits, is not decided here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
