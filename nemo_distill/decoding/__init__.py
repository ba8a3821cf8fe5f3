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
"""Translating: hypotheses that do not depend on the batch, in this process or deployed.

- `engine`: settings, hypotheses, the interface. `ctranslate2_engine`, `nemo_engine`: the two engines. `opening`: the
  one that fits a model. `cuda_libraries`: what CTranslate2 needs on a GPU. `search`, `sampling`: what the NeMo engine
  decodes with.
- `reading_back`: hypotheses as training reads their text. `translation`: text in, text out. `translating`: the same as
  lines come. `convertible`: what of a configuration converts to CTranslate2. `conversion`: NeMo to CTranslate2.
  `exporting`: a model to deploy.
- `foreign_files`, `foreign_text`, `foreign_conversion`, `foreign_engine`: models of CTranslate2 and `transformers`:
  what is read of them, their tokenizers and languages, their engine.
- `export_record`, `export_page`, `exported_program`: what lies beside such a model: what it is, for programs and for
  people, and the program that translates with it.

What is done with the hypotheses belongs to `labels/` and `evaluation/`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
