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
"""What decides the content of a cache, beside teacher and text. Importing this takes no torch."""

import math
from dataclasses import dataclass
from typing import Any

from nemo_distill.config.section import PRECISIONS
from nemo_distill.errors import InputError
from nemo_distill.teachers.cache_manifest import LARGEST_TEMPERATURE


@dataclass(frozen=True)
class CacheSettings:
    """What decides the content of a cache, beside teacher and text."""

    top_k: int = 24
    """Words kept of each distribution."""
    temperatures: tuple[float, ...] = (1.0,)
    """Temperatures that a student can be trained at."""
    precision: str = "fp32"
    """What the teacher computes in: `fp32`, `bf16` or `fp16`."""
    max_seq_length: int | None = None
    """Longer pairs are left out, counted with BOS and EOS, as `train_ds.clean` does; by default what the teacher can
    take."""
    shard_tokens: int = 1_000_000
    """Target tokens of a shard, about."""
    sampled: int = 0
    """Words drawn from the others of each distribution, see `cache_records`."""

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise InputError(f"top k is {self.top_k}; give at least 1")
        if self.sampled < 0:
            raise InputError(f"sampled is {self.sampled}; give 0 or more")
        bad = [each for each in self.temperatures if not (math.isfinite(each) and 0 < each < LARGEST_TEMPERATURE)]
        if bad or not self.temperatures:
            raise InputError(f"temperatures are {list(self.temperatures)}; give finite numbers above 0, such as 1 2")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is '{self.precision}'; give one of {', '.join(PRECISIONS)}")
        for name in ("max_seq_length", "shard_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; give at least 1")

    def request(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        temperatures = sorted({float(each) for each in self.temperatures})
        return {**vars(self), "temperatures": temperatures}
