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
"""Random numbers and the order of data, by place."""

import random

import numpy as np
import pytest
import torch

from nemo_distill.training.replay import seed_generators


def draws() -> tuple:
    return random.random(), np.random.random(), torch.rand(1).item()


def test_generators_follow_from_the_place_alone():
    seed_generators(1, 0, 2, 3)
    first = draws()
    draws()
    seed_generators(1, 0, 2, 3)
    assert draws() == first


@pytest.mark.parametrize("place", [(2, 0, 2, 3), (1, 1, 2, 3), (1, 0, 3, 2), (1, 0, 2, 4), (1, 0, 2)])
def test_other_places_draw_other_numbers(place):
    seed_generators(1, 0, 2, 3)
    first = draws()
    seed_generators(*place)
    assert not set(draws()) & set(first)
