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
"""Losses of distillation: tensors and masks in, scalars out.

- `divergence`: NLL and word-level distillation. `top_k`: the same where only some words are known. `lean`: the same
  without whole logits. `hidden`, `attention`: inner layers. `latent`: what a bottleneck model adds. `masking`: the one
  normaliser.
- `signals`: what a model says of each position, whole logits or less.
- `term`: what a term of the objective is and what a step hands it. `objective`: their weighted sum. `building`: terms
  from a configuration and two models. `non_finite`: whence a NaN.

Nothing here imports NeMo, nor opens a file.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
