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
"""By which score checkpoints are kept, and which of two values of it is the better one."""

import re
from collections.abc import Mapping
from typing import Any

from nemo_distill.errors import InputError

WHERE = "exp_manager.checkpoint_callback_params"
MONITOR = "val_loss"
"""NeMo's, where a section names none."""
_BETTER = {"max": re.compile(r"val_sacreBLEU(_.+)?"), "min": re.compile(r"(val|train)_loss(_.+)?")}
_WORDS = {"max": "larger", "min": "smaller"}
_AFTER_VALIDATIONS = {
    "every_n_train_steps": "trainer.val_check_interval says how often; last_every_n_steps writes `last` in between",
    "every_n_epochs": "trainer.val_check_interval and trainer.check_val_every_n_epoch say how often",
    "save_on_train_epoch_end": "trainer.val_check_interval says how often",
}


def mode_of(params: Mapping[str, Any]) -> str:
    """Return whether a score is kept by its largest (`max`) or its smallest value (`min`).

    Args:
        params: `exp_manager.checkpoint_callback_params`.

    Raises:
        InputError: `mode` says that of two losses the larger is better, or of two BLEU scores the smaller.

    Example:
        >>> mode_of({"monitor": "val_sacreBLEU"}), mode_of({"monitor": "val_loss_avg"}), mode_of({"monitor": "mine"})
        ('max', 'min', 'min')
    """
    monitor, given = str(params.get("monitor") or MONITOR), params.get("mode")
    known = next((mode for mode, pattern in _BETTER.items() if pattern.fullmatch(monitor)), None)
    if given is None:
        return known or "min"
    if known not in (None, given):
        raise InputError(
            f"{WHERE}.mode: got {ascii(given)[:80]}, and of {monitor} the {_WORDS[known]} is the better; give {known}"
        )
    return given


def check_moments(params: Mapping[str, Any]) -> None:
    """Refuse keys of Lightning's by which checkpoints are not written after each validation, with its score.

    Args:
        params: `exp_manager.checkpoint_callback_params`.

    Raises:
        InputError: as above; the message has the key to give in its place.
    """
    if params.get("dirpath") is not None:
        raise InputError(
            f"{WHERE}.dirpath: checkpoints lie in log/checkpoints of output_dir, where a run looks for them when it "
            "goes on; leave it out, or make that directory a link to another disk"
        )
    if params.get("save_weights_only"):
        raise InputError(f"{WHERE}.save_weights_only: a run that stopped could not go on; leave it out")
    for key, instead in _AFTER_VALIDATIONS.items():
        is_each = params.get(key) in (None, False, *([1] if key == "every_n_epochs" else ()))
        if not is_each and str(params.get("monitor") or MONITOR).startswith("val_"):
            raise InputError(
                f"{WHERE}.{key}: checkpoints are written after each validation, with its score; leave it out: "
                f"{instead}"
            )
