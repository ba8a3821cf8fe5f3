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
"""The forward pass of a teacher whose layers `torch.compile` has compiled, against the same one as it is."""

import itertools
import os
import statistics
import time
from collections.abc import Callable

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill.config.section import CaptureConfig
from nemo_distill.teachers.frozen import FrozenTeacher

ROUNDS = int(os.environ.get("BENCHMARK_ROUNDS", 30))


@pytest.mark.slow
def test_compiled_teacher(model_config: Callable, precision: Callable, capsys) -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # the other tests keep to one
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = MTEncDecModel(model_config("teacher"))
    twin = MTEncDecModel(model_config("teacher"))
    twin.load_state_dict(model.state_dict())
    teachers = {"eager": FrozenTeacher(model), "compiled": FrozenTeacher(twin)}
    paths = CaptureConfig()
    teachers["compiled"].compile((paths.teacher_encoder_layers, paths.teacher_decoder_layers))
    seconds: dict[str, list[float]] = {name: [] for name in teachers}
    for batch in itertools.islice(itertools.cycle(model._train_dl), ROUNDS + 3):
        batch = [tensor.squeeze(0).to(device) for tensor in batch]
        states = {}
        for name, teacher in teachers.items():
            start = time.perf_counter()
            with precision(device):
                states[name] = teacher.outputs(batch, lean=True).signal.states
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
        if states["eager"].dtype == torch.float32:
            torch.testing.assert_close(states["compiled"], states["eager"], rtol=1e-4, atol=1e-4)
    ratio = statistics.median(a / b for a, b in list(zip(seconds["compiled"], seconds["eager"], strict=True))[3:])
    with capsys.disabled():
        print(f"\nteacher forward on {device}, {ROUNDS} rounds: compiled / eager {ratio:.2f}")
        print(f"  the first three batches of the compiled one: {sum(seconds['compiled'][:3]):.0f} s")
