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
"""Training data mixed from several corpora with given probabilities.

- `dataset`: the mixture and its order. `components`: one corpus as batches. `noise`: a noisy source for the student.
- `tarred`: the batches of NeMo's tarred sets. `tarred_dataset`: such a set by itself, without a mixture.

What the shares are is read and checked in `config/mixture.py`; making pseudo-labels is in `labels/`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
