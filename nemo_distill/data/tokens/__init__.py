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
"""Training text as token ids, in memory or on disk, and its sentence pairs cut into batches.

- `text`: the ids of a text's lines. `store`: the same on disk, made once and shared by all processes.
- `pairs`: which sentence pairs of a corpus are read, and their batches. `cleaning`: those of good lengths.
  `fraction`: a part of them. `packing`: batches from lengths alone.

Which text and how much of it is said by the configuration; the order of the batches is in `mixing/` and `samplers`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
