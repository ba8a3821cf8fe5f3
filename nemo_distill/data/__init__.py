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
"""What models train on and read: corpora, text as tokens, mixtures.

- `corpora/`: getting, cleaning and splitting parallel text. `mixing/`: gold and pseudo data by share.
- `tokenizer`: training one vocabulary. `text`: raw text to token ids and back. `vocabulary`: whether two models mean
  the same by an id. `languages`: the pairs of languages of a model. `agreement`: whether the sides of a text belong
  together. `samples`: some pairs of a training set. `words`: lengths of text in any script.
- `bleu_tokenizer`: which of sacreBLEU's tokenizers fits a text.
- `processors`: NeMo's, which normalize and tokenize. `processing`: files of raw text through them. `forms`: whether
  text is raw or processed.
- `tokens/`: training text as ids and batches, in memory or in a store on disk.
- `encoders`: what differs between the encoders of models. `positions`: how many tokens they have room for.
  `line_dataset`: text files as training data.
- `checks`: the files that a configuration names. `samplers`: an epoch that can start in the middle.

No model runs here: what needs one to make text is in `decoding/` and `labels/`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
