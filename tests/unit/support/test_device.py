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
"""Which device is chosen."""

import pytest
import torch

from nemo_distill.errors import InputError
from nemo_distill.support.device import choose_device


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine that says it has two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.mark.parametrize(("rank", "device"), [(None, "cuda"), ("0", "cuda:0"), ("1", "cuda:1")])
def test_each_process_takes_its_own_gpu(two_gpus, monkeypatch, rank, device):
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert choose_device() == device
    assert choose_device("cpu") == "cpu"
    assert choose_device("cuda:0") == "cuda:0"


def test_more_processes_than_gpus(two_gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="LOCAL_RANK is 2, but this machine has 2 GPUs; start one process for each"):
        choose_device()


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device() == "cpu"
    with pytest.raises(InputError, match="device is 'cuda:1', but torch finds no GPU here; give cpu"):
        choose_device("cuda:1")
    with pytest.raises(InputError, match="device is 'gpu'; give cpu, cuda or cuda:N"):
        choose_device("gpu")
