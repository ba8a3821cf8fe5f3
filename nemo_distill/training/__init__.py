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
"""One training run: started, stopped, resumed, finished.

- `beginning`: what comes before NeMo is imported. `run`: one run in one directory. `directory`: what lies there,
  and whose it is. `inputs`: what it was begun with. `identity`: what of its configuration says what is run, and how.
- `trainer`: Lightning's, with safe checkpoints. `checkpoints`: when and which. `stored`: which are believed.
- `restart`, `replay`: exact restarts. `stopping`: signals and time limits. `non_finite`: NaN and infinities.
- `monitored`: by which score checkpoints are kept. `convergence`: when it has stopped improving, and its end by
  patience. `averaging`: which weights it keeps, and means of them. `origin`: what it owes to a teacher.
- `text`, `text_settings`: raw corpora processed before training.
- `ranks`: several processes. `validation`, `repairs`: faults of NeMo mended. `multilingual`: each data set of its
  own language. `reading`: how their text is read, and which pairs have positions. `attached`: for trainers of others.
  `plain_archive`: what a student leaves.

It trains any NeMo translation model, student or not, and knows no teacher.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
