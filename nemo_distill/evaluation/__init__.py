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
"""What models are worth: scores, sizes, speeds, tables.

- `scoring`: test sets translated and scored. `inputs`: what is asked for, checked first. `test_sets`: those that are
  files. `named_sets`: those that sacreBLEU knows by name. `engines`: what decodes each model. `shared`: the sentences
  that several processes share.
- `results`: what was measured. `score_records`: the scores of each pair on the disk, taken over or removed.
  `significance`: whether two models differ by more than chance.
- `gap`: how much of the teacher's lead a student takes, and from which row.
- `report`: results as tables and pictures. `rows`: models over their seeds. `summary`, `layout`, `tables`, `plot`: the
  tables and pictures. `notes`: what must be known to read them. `page/`: where students are worse.
- `speed`: engines side by side, `speed_results`, `speed_rows`; `serving`: what a process needs that only translates,
  `serving_process`.

Decoding itself is in `decoding/`; nothing here trains or changes a model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
