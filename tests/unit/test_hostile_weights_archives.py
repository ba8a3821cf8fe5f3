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
"""Weights that are no weights: refused when an archive is opened, with the name of the tensor."""

import pytest
import torch
from damage import rebuilt_archive

from nemo_distill.archives.restore import restore_model
from nemo_distill.errors import ArchiveError

NAME = "decoder._decoder.layers.1.layer_norm_3.bias"


def one(value: float):
    """Return a change of one number of one tensor."""

    def change(state: dict) -> None:
        state[NAME][3] = value

    return change


def kind(dtype: torch.dtype):
    """Return a change of the type of one tensor."""

    def change(state: dict) -> None:
        state[NAME] = state[NAME].to(dtype)

    return change


def beyond_float32(state: dict) -> None:
    state[NAME] = state[NAME].double()
    state[NAME][0] = 1e300


BAD = {
    "nan": (one(float("nan")), "has values that are not finite"),
    "infinity": (one(float("inf")), "has values that are not finite"),
    "minus infinity": (one(float("-inf")), "has values that are not finite"),
    "beyond float32": (beyond_float32, "has values that are not finite"),
    "int64": (kind(torch.int64), "is of type int64, no floating-point type"),
    "int8": (kind(torch.int8), "is of type int8, no floating-point type"),
    "bool": (kind(torch.bool), "is of type bool, no floating-point type"),
    "complex": (kind(torch.complex64), "is of type complex64, no floating-point type|no file of plain tensors"),
    "float8": (kind(torch.float8_e4m3fn), "is of type float8_e4m3fn, no floating-point|no file of plain tensors"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_weights(name, tiny_teacher_path, tmp_path):
    change, message = BAD[name]
    path = rebuilt_archive(tiny_teacher_path, tmp_path / "bad.nemo", weights=change)
    with pytest.raises(ArchiveError, match=message) as caught:
        restore_model(path)
    assert NAME in str(caught.value) or "plain tensors" in str(caught.value)
    if name in ("nan", "infinity", "complex"):
        with pytest.raises(ArchiveError, match=message):
            restore_model(path, trust=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_of_weights_open(dtype, tiny_teacher_path, tmp_path):
    def change(state: dict) -> dict:
        return {name: tensor.to(dtype) for name, tensor in state.items()}

    path = rebuilt_archive(tiny_teacher_path, tmp_path / "good.nemo", weights=change)
    stock, model = restore_model(tiny_teacher_path), restore_model(path)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    for name, tensor in stock.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor.to(dtype).float()), name


def test_whole_numbers_in_a_class_of_ones_own(tiny_teacher_path, tmp_path):
    """A buffer that the stock class lacks: with trust it is not the type that is wrong."""
    path = rebuilt_archive(
        tiny_teacher_path, tmp_path / "own.nemo", weights=lambda state: state.update(count=torch.zeros(3).long())
    )
    with pytest.raises(ArchiveError, match="'count' is of type int64"):
        restore_model(path)
    with pytest.raises(ArchiveError, match="could not be opened as a translation model: .*Unexpected key.*'count'"):
        restore_model(path, trust=True)


def test_the_values_are_looked_at_fast():
    """600 MB take about a second."""
    import time

    from nemo_distill.archives.weights import _wrong_numbers

    weights = {str(number): torch.zeros(1 << 22) for number in range(4)}
    start = time.process_time()
    assert not list(_wrong_numbers(weights, trust=False))
    assert time.process_time() - start < 0.5
