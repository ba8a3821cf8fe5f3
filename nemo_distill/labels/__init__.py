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
"""Pseudo-labels: training text that a teacher writes.

- `teachers`: `.nemo` archives and foreign models label a text. `labelling`: a text translated, in `shards` that can be
  killed and shared; `rows`: what is in them.
- `disturbing`: sources that nobody wrote, for a teacher to translate.
- `given`: hypotheses of somebody else in place of a teacher's.
- `nbest`: the hypotheses of each line. `checks`: what a manifest says, and that no output replaces an input.
- `settings`: what to choose of them. `choosing`: one hypothesis of each line. `selection`: that done anew.
- `minimum_risk`: choice by agreement among the hypotheses.
- `filtering`: why a line is dropped.
- `agreement`: whether the teacher knows the gold text.
- `leak_check`: test sentences in training text.

Decoding itself is in `decoding/`; training on labels in `data/mixing/`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
