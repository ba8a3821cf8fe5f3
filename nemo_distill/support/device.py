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
"""Where to compute."""

import os
import re

from nemo_distill.errors import InputError
from nemo_distill.support.share import local_rank

_BOUND = re.compile(r"(^|[+/])(gpu|shard):(?!(verbose,)?none)")
"""In SLURMD_TRES_BIND, by which slurmd tells each task of its step's binding, whichever option asked for it:
`gres/gpu:per_task:1`, of older releases `gpu:single:1`."""


def choose_device(device: str | None = None) -> str:
    """Return the device asked for; else a GPU if there is one, each process under torchrun or srun its own.

    A task that Slurm has bound to GPUs (`--gpus-per-task`, `--gpu-bind`) sees these alone, numbered from 0.

    Raises:
        InputError: there is no such device, or there are more processes than GPUs on this machine.
    """
    import torch

    if device is not None:
        try:
            kind = torch.device(device).type
        except RuntimeError as error:
            raise InputError(f"device is '{device}'; give cpu, cuda or cuda:N") from error
        if kind == "cuda" and not torch.cuda.is_available():
            raise InputError(f"device is '{device}', but torch finds no GPU here; give cpu")
        return device
    if not torch.cuda.is_available():
        return "cpu"
    found = local_rank()
    if found is None:
        return "cuda"
    (name, place), count = found, torch.cuda.device_count()
    if name == "SLURM_LOCALID" and _BOUND.search(os.environ.get("SLURMD_TRES_BIND", "")):
        place %= count
    if place >= count:
        raise InputError(
            f"{name} is {place}, but the GPUs that this process sees are {count}; start one process for each GPU, or "
            "give --device, cuda where each sees its own alone or several share one"
        )
    return f"cuda:{place}"
