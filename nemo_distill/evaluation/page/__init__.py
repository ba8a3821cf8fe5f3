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
"""The page of a report: one HTML file that says where a student is worse than its teacher.

- `page`: all of it together. `inputs`: the texts that it is about, read and compared with their hashes.
- `words`: what a word is here, and how often the training text has it. `measures`: what each hypothesis did wrong,
  counted. `bootstrap`: intervals. `tables`: both as tables. `sentences`: the largest losses and gains.
- `curves`: scores against steps and time. `times`: when students were as good as their twins. `figures`: all that is
  drawn. `rendering`: the template, with what shows any text safely.

What is measured knows nothing of HTML, and the template computes nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
