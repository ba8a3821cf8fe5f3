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
    with pytest.raises(
        InputError,
        match="LOCAL_RANK is 2, but the GPUs that this process sees are 2; start one process for each GPU, or give",
    ):
        choose_device()


@pytest.fixture
def task(two_gpus, monkeypatch):
    """A function that makes this process a task of srun that sees some GPUs, bound as said."""

    def choose(place: int, count: int, binding: str | None) -> str:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        for name in ("SLURM_PROCID", "SLURM_LOCALID"):
            monkeypatch.setenv(name, str(place))
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
        monkeypatch.delenv("SLURMD_TRES_BIND", raising=False)
        if binding is not None:
            monkeypatch.setenv("SLURMD_TRES_BIND", binding)
        return choose_device()

    return choose


@pytest.mark.parametrize(
    "binding",
    [
        "gres/gpu:per_task:1",
        "gpu:single:1",
        "gres/gpu:verbose,closest",
        "gres/nic:none+gres/gpu:map:0,1",
        "gpu:mask:1",
    ],
)
def test_a_task_that_slurm_binds_takes_what_it_sees(task, binding):
    assert [task(place, 1, binding) for place in range(4)] == ["cuda:0"] * 4
    assert [task(place, 2, binding) for place in range(4)] == ["cuda:0", "cuda:1"] * 2


@pytest.mark.parametrize(
    "binding", [None, "gres/gpu:none", "gpu:verbose,none", "gres/nic:closest", "gres/nogpu:map:0"]
)
def test_tasks_that_are_not_bound_do_not_share_a_gpu(task, binding):
    assert task(0, 1, binding) == "cuda:0"
    with pytest.raises(
        InputError, match="SLURM_LOCALID is 1, but the GPUs that this process sees are 1; .* --device, cuda"
    ):
        task(1, 1, binding)


def test_processes_of_torchrun_in_a_bound_task_do_not_share_it(task, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(InputError, match="LOCAL_RANK is 1, but the GPUs that this process sees are 1"):
        task(0, 1, "gres/gpu:per_task:1")


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device() == "cpu"
    with pytest.raises(InputError, match="device is 'cuda:1', but torch finds no GPU here; give cpu"):
        choose_device("cuda:1")
    with pytest.raises(InputError, match="device is 'gpu'; give cpu, cuda or cuda:N"):
        choose_device("gpu")
