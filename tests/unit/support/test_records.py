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

import math
from dataclasses import dataclass, field

import pytest

from nemo_distill.errors import InputError
from nemo_distill.support.records import read_record


@dataclass
class Part:
    name: str
    share: float = 0.5


@dataclass
class Whole:
    count: int
    parts: list[Part]
    by_name: dict[str, float] = field(default_factory=dict)
    note: str | None = None
    sizes: tuple[int, ...] = ()
    part: Part | None = None


GOOD = {"count": 2, "parts": [{"name": "a", "share": 1}], "by_name": {"x": 2}, "sizes": [1, 2], "part": {"name": "b"}}


def test_a_good_record():
    whole = read_record(Whole, GOOD, "file")
    assert whole == Whole(2, [Part("a", 1.0)], {"x": 2.0}, None, (1, 2), Part("b"))
    assert isinstance(whole.parts[0].share, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": True}, "count is True, no whole number"),
        ({"count": 1.0}, "count is 1.0, no whole number"),
        ({"count": None}, "count is None, no whole number"),
        ({"parts": {}}, "parts is a dict, no list"),
        ({"parts": [{"name": 1}]}, r"parts\[0\].name is 1, no text"),
        ({"parts": [{"name": "a", "share": math.nan}]}, r"parts\[0\].share is nan, no finite number"),
        ({"parts": [{"name": "a", "share": 10**400}]}, r"parts\[0\].share is 10"),
        ({"parts": [{}]}, r"parts\[0\].name is missing"),
        ({"by_name": {"x": "y"}}, "by_name.x is 'y', no finite number"),
        ({"by_name": {1: 2.0}}, "by_name is a dict, no mapping"),
        ({"note": 1}, "note is 1, no text or null"),
        ({"sizes": [1, "2"]}, r"sizes\[1\] is '2'"),
        ({"part": []}, "part is a list, no Part or null"),
        ({"more": 1}, "more is unknown"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(InputError, match=f"'file' is damaged: {message}.*; write it again"):
        read_record(Whole, GOOD | change, "file")


@pytest.mark.parametrize("content", [None, 1, "x", [], {}])
def test_no_record(content):
    with pytest.raises(InputError, match="'file' is damaged"):
        read_record(Whole, content, "file")
