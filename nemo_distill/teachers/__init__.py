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
"""Teachers: what one says of a batch, wherever it comes from.

- `frozen`: a model that is only ever read, and what any teacher is. `ensemble`: several. `cached`: outputs on disk.
- `multilingual`: one that is told the language in front of the source.
- `agreement`: whether the teacher knows the training text.
- `opening`: the teacher that a section names. `heads`: a model run without its output head.
- `cache_format`, `cache_manifest`, `cache_arrays`, `cache_index`, `cache_records`: the files of a cache.
  `cache_coverage`: does it hold a training text?
- `cache_settings`, `cache_writer`, `cache_shards`, `cache_pairs`, `cache_text`: making one.

A teacher computes no loss: it gives signals, of the types in `losses/signals.py`, and the objective makes something of
them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
