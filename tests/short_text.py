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
"""A test set of a few lines, for tests of evaluations."""

from pathlib import Path


def short_test_set(corpus: Path, directory: Path, count: int, split: str = "test") -> str:
    """Write the first lines of a split of a corpus into a directory; return them as `name:source:target`."""
    for language in ("de", "en"):
        lines = (corpus / f"{split}.{language}").read_text("utf-8").splitlines()[:count]
        (directory / f"{split}.{language}").write_text("\n".join(lines) + "\n", "utf-8")
    return f"{split}:{directory}/{split}.de:{directory}/{split}.en"
