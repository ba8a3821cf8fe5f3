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
"""Layer maps: each name for each depth, explicit maps, and what does not fit."""

import pytest

from nemo_distill.config.layer_map import MAP_NAMES, layer_pairs
from nemo_distill.errors import ConfigurationError


def teachers_of(layer_map, students: int, teachers: int) -> list[int]:
    pairs = layer_pairs(layer_map, students, teachers, "map")
    assert [student for student, _ in pairs] == list(range(students))
    return [teacher for _, teacher in pairs]


@pytest.mark.parametrize(
    ("layer_map", "students", "teachers", "wanted"),
    [
        ("every_nth", 3, 24, [0, 8, 16]),  # as published
        ("every_nth", 3, 6, [0, 2, 4]),
        ("every_nth", 3, 7, [0, 2, 4]),  # three does not divide seven
        ("every_nth", 5, 24, [0, 4, 9, 14, 19]),
        ("every_nth", 1, 24, [0]),
        ("every_nth_last", 3, 24, [7, 15, 23]),
        ("uniform", 3, 24, [7, 15, 23]),
        ("uniform", 3, 7, [1, 3, 6]),
        ("uniform", 2, 3, [0, 2]),
        ("uniform", 1, 6, [5]),
        ("first", 3, 24, [0, 1, 2]),
        ("first", 3, 7, [0, 1, 2]),
        ("last", 3, 24, [21, 22, 23]),
        ("last", 2, 7, [5, 6]),
        ([0, 8, 23], 3, 24, [0, 8, 23]),
        ([5, -1], 2, 12, [5, 11]),
    ],
)
def test_which_teacher_layers(layer_map, students, teachers, wanted):
    assert teachers_of(layer_map, students, teachers) == wanted


@pytest.mark.parametrize("layer_map", MAP_NAMES)
def test_equal_depth_is_one_to_one(layer_map):
    assert teachers_of(layer_map, 4, 4) == [0, 1, 2, 3]


def test_pairs():
    assert layer_pairs([[0, 7], [0, 8], [-1, -1]], 3, 24, "map") == [(0, 7), (0, 8), (2, 23)]


@pytest.mark.parametrize(
    ("layer_map", "students", "teachers", "message"),
    [
        ("every_nth", 6, 3, "no more layers than the teacher, but 6 are more than 3; give the student fewer"),
        ("first", 4, 3, "no more layers than the teacher, but 4 are more than 3"),
        ("last", 4, 3, "no more layers than the teacher, but 4 are more than 3"),
        ([[0, 24]], 3, 24, r"the pair \[0, 24\] is out of range: the teacher has 24 layers, so give 0 to 23, or -24"),
        ([[3, 0]], 3, 24, r"the pair \[3, 0\] is out of range: the student has 3 layers, so give 0 to 2, or -3 to -1"),
        ([[-4, 0]], 3, 24, r"the pair \[-4, 0\] is out of range: the student has 3"),
        ([0, 8], 3, 24, r"got 2 teacher layers, \[0, 8\], for 3 student layers; give one for each, or pairs"),
        ([0, 8, 30], 3, 24, r"the pair \[2, 30\] is out of range"),
    ],
)
def test_what_does_not_fit(layer_map, students, teachers, message):
    with pytest.raises(ConfigurationError, match=message):
        layer_pairs(layer_map, students, teachers, "init.encoder")
