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
"""Parallel text: where it comes from, and how it is cleaned and split.

- `corpus`: cleaning, a split that no near-copy crosses, the directory that results.
- `ui_strings`, `multi30k`, `own`: one file for each source of text; a new one brings its reader alone. `wheel`: the
  package that `ui_strings` reads.

No tokenizer and no model here: a corpus is text and a manifest.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
