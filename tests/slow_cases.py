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
"""Cases of a test that only `make test-all` runs: `parametrize("kind", ["one", *slow("another", "a third")])`."""

from collections.abc import Iterable

import pytest


def slow(*cases) -> list:
    """Mark cases as slow; a tuple is a case of several parameters."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases]


def quick(cases: Iterable, *chosen) -> list:
    """Mark all cases as slow but the chosen ones, which must be among them."""
    cases = list(cases)
    assert set(chosen) <= set(cases), f"no such case: {set(chosen) - set(cases)}"
    return [case if case in chosen else slow(case)[0] for case in cases]
