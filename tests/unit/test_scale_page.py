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
"""The table of docs/scale.md is what its script makes of raw results; its simulation agrees with its arithmetic."""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(DOCS / "scale_table.py"))


def test_the_table_of_the_documentation(script):
    assert "\n".join(script["table"]()) in (DOCS / "scale.md").read_text("utf-8")


@pytest.mark.parametrize("gpus", [1, 8, 32])
def test_shares_are_even_up_to_one_shard(script, gpus):
    """The slowest process has at most one shard of 5,000 lines more, and lengths that even out: five deviations."""
    pairs, seconds = 10**7, 0.003
    found = script["simulated_labels"](pairs, gpus, seconds) - script["IMPORTS"]
    own = pairs / gpus
    assert own * seconds * 0.999 <= found <= (own + 5000 + 5 * 0.37 * own**0.5) * seconds
