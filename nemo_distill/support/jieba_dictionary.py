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
"""Where Jieba, which tokenizes Chinese for NeMo, keeps its dictionary.

It takes seconds to make, so Jieba keeps it as a file with a fixed name in the directory of temporary files, and reads
whatever anybody has put there.
"""

import functools

from nemo_distill.support.temporary import TemporaryDirectory


@functools.cache
def keep_private() -> TemporaryDirectory:
    """Have Jieba keep it where only this user reads and writes, for the life of this process."""
    import jieba  # as NeMo does

    directory = TemporaryDirectory()
    jieba.setLogLevel("ERROR")
    jieba.dt.tmp_dir = str(directory.path)
    return directory


def load() -> None:
    """Make the dictionary now: processes that are forked then inherit it."""
    import jieba

    keep_private()
    jieba.initialize()
