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
"""The `distillation` section of a model's YAML: dataclasses, and a check that reports every fault at once.

- `section`: the section itself, teacher and objective. `layers`: inner layers, a recipe's terms, initialisation.
- `mixture`: what a student trains on. `layer_map`: which teacher layer belongs to which student layer.
- `languages`: of a model's text. `reading`: dataclasses from plain data. `model_section`: whatever a recipe calls so.
  `composing`: what Hydra cannot compose of it.
- `model_keys`: which keys of the rest of `model` are read by something. `model_values`: of which values NeMo makes the
  model that they ask for, and `model_widths` of which widths. `hugging_face`: both for an encoder of Hugging Face.

Values are checked against each other here, never against files or models: importing this takes no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
