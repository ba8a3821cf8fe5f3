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
from . import corpora as corpora
from . import mixing as mixing
from . import tokenizer as tokenizer
from .checks import check_model_files as check_model_files
from .text import TextPipeline as TextPipeline
from .tokenizer import library_of as library_of
from .vocabulary import check_vocabularies as check_vocabularies
