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
"""A text of 120 lines, which the engine of words labels in shards of seven lines, with three hypotheses of each."""

from pathlib import Path
from typing import Any

from nemo_distill.decoding.engine import SearchSettings
from nemo_distill.labels.labelling import label
from nemo_distill.labels.settings import SelectionSettings

LINES = ["eine kurze Zeile", "", "anna otto", "Hallo {name} da", "noch eine lange Zeile", "und eine"] * 20
OPTIONS = {"teacher": {"teachers": ["words"]}, "shard_lines": 7, "progress": False}


def write_lines(path: Path) -> Path:
    """Write the text."""
    path.write_text("".join(f"{line}\n" for line in LINES))
    return path


def label_lines(engine: Any, text: Path, directory: Path, settings: SelectionSettings, **options: Any):
    """Label it; return what `label` does."""
    return label(engine, text, directory, SearchSettings(num_hypotheses=3), settings, **OPTIONS, **options)
