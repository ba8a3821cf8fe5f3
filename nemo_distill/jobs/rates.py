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
"""Learning rates where a training is of another width or schedule than its model's file is for.

Those of the small models in configs/model are for a rate that falls to 0 within some thousand steps. With one that
stays there, and in a wider model, a plain student learns late and little, and a table would show its learning rate
rather than what its teacher gives (docs/results.md, "Learning rates").
"""

from collections.abc import Mapping
from typing import Any

from nemo_distill.config.reading import inner_section

WIDTH = "model.encoder.hidden_size"
RATE = "model.optim.lr"
_HIGHEST = 0.2
"""A rate that stays, times the width, at most."""


def fitting_rate(model: Mapping[str, Any], wanted: Any, stays: bool) -> float | None:
    """Return the learning rate of a model whose file is for another width or schedule; None: that of its file fits.

    Of a wider model it is in proportion to 1 / width, with which an update of Adam changes a layer's outputs as much
    (Yang et al. 2022, arXiv:2203.03466); rounded to three digits.

    Args:
        model: what a file of configs/model says.
        wanted: the width that it gets; narrower ones keep the rate of the file.
        stays: its rate stays at its peak after the warm-up, where that of the file falls to 0.

    Example:
        >>> fitting_rate({"encoder": {"hidden_size": 64}, "optim": {"lr": 0.006}}, 96, stays=False)
        0.004
    """
    width, rate = inner_section(model, "encoder").get("hidden_size"), inner_section(model, "optim").get("lr")
    if not (isinstance(wanted, int) and isinstance(width, int) and isinstance(rate, float)) or wanted < 1:
        return None
    found = min(rate, rate * width / wanted, *([_HIGHEST / wanted] if stays else []))
    return None if found == rate else float(f"{found:.3g}")
