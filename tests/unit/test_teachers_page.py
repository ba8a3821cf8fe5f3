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
"""The page on teachers names tests that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/teachers.md").read_text("utf-8")
FILES = dict(re.findall(r"\b([A-Z]) `((?:unit|functional)/[\w/.]+)`", PAGE))
CELLS = sorted(set(re.findall(r"`([A-Z])::(\w+)`", PAGE)))


@pytest.mark.parametrize(("letter", "test"), CELLS, ids="::".join)
def test_cells_name_tests(letter, test):
    assert f"\ndef {test}(" in (ROOT / "tests" / FILES[letter]).read_text("utf-8")


def test_the_table_has_cells():
    assert len(CELLS) > 40
    assert len({letter for letter, _ in CELLS}) == len(FILES)
