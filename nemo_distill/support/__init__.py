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
"""What every wing may use and no user needs: the machine, the file system, the two lines of NeMo.

- `incoming`: the one way in for files from elsewhere; `tokenizer_guard` for tokenizer models, `torch_zip` for
  what torch writes, `records` for our own.
- `text_files`: text read strictly. `files`: files written so that no reader sees half of one, and their hashes.
  `remembered`: what is found out of a large file once. `compressed`: gzip and zstd. `texts`: several files as one.
  `numbered`: files of so many lines each. `composed`: text whose letters are decomposed.
- `manifest`: the mark of a finished output directory; how one is claimed. `lock`: one process at a time in it.
  `shard_directory`: where shards of labels and evaluations lie until they are merged.
  `finished_run`: what a training run notes at its end; `validations`: how good it was on its way.
- `quoting`: text from elsewhere inside of Markdown and plots. `isolated`: Python without the current directory.
  `progress_bar`: how far long work is, and how long it will take. `warned`: this library's warnings, told from others.
- `share`: which part of a job this process does. `device`: where it computes. `temporary`: directories that a killed
  process does not leave for long. `threads`: how many. `memory`: how much.
  `children`: processes that end with the one that started them.
  `workers`: a stream of work done by several. `seen`: a set that is larger than memory.
- `jieba_dictionary`: of the tokenizer of Chinese, out of other users' reach.
- `compat`: what differs between NeMo 1.23 and 2, Lightning's name among it. `matplotlibrc`: no settings for plots from
  the current directory. `megatron_jit`: NeMo's import without torch's compiler.

Nothing here knows sentences, models or losses. Import the module that you need: this door names nothing.
"""
