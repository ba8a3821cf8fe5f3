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
"""Overrides that Hydra cannot compose: what was meant is told, by the example scripts too."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from nemo_distill.config.composing import composition_fault
from nemo_distill.jobs.running import CONFIGS

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
CASES = [
    (
        "data.tokeniser=x",
        "Could not override 'data.tokeniser' (did you mean 'tokenizer'?); known keys are dir, source, ",
    ),
    ("trainer.max_step=3", "Could not override 'trainer.max_step' (did you mean 'max_steps'?); known keys are "),
    (
        "model.optim.momentum=1",
        "Could not override 'model.optim.momentum'; known keys are name, lr, betas, weight_decay, sched; +",
    ),
    ("modle=small_3x3", "Could not override 'modle' (did you mean 'model'?); known keys are model, data, trainer, "),
    ("model=smal_3x3", "In 'distill': Could not find 'model/smal_3x3'; model: got 'smal_3x3'; give one of base, "),
    ("~data.nothing", "Could not delete from config. 'data.nothing' does not exist"),
    ("data.dir=[", "'data.dir=[': no viable alternative at input '['; give key=value, and quote brackets and spaces"),
]


@pytest.mark.parametrize(("override", "said"), CASES)
def test_what_is_meant_is_said(override, said):
    with initialize_config_dir(str(CONFIGS), version_base=None), pytest.raises(HydraException) as raised:
        compose("distill", [override])
    assert composition_fault(raised.value).startswith(said)


@pytest.mark.parametrize("script", ["distill.py", "train_nmt.py"])
def test_the_examples_say_it(script, tmp_path):
    """Hydra's own advice would be `+data.tokeniser=x`, which is refused next."""
    command = [sys.executable, "-P", str(EXAMPLES / script), "data.tokeniser=x"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{script}: {CASES[0][1]}")
    assert len(done.stderr.splitlines()) == 1
