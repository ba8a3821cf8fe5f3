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
"""Jobs of several commands, as a recipe says.

- `recipe`, `recipe_sections`, `grid`: what a job does, in YAML; without a recipe: `defaults`; `settings`: `--set`.
  `allowed`: what one may ask for.
  `rates`: learning rates of other widths and schedules than those of configs/model.
- `graph`: from a recipe to commands. `teachers`: those that are given; a `foreign_teacher` is none of NeMo's.
  `paying`: caches that are worth their time, and dropout. `twins`: the plain run that a run is compared with.
  `texts`: those of a job, read first; `values`: what runs learn by, too.
  `sizes`: the student that a target allows, of `widths` between those of configs/model too; of a `latency`, by
  measuring an `untrained` one. `architecture`: built as the teacher that it starts from.
- `stages`: what has finished is not repeated, what does not need each other runs side by side; how many that are:
  `side_by_side`; which of the GPUs each sees: `devices`.
- `noted`: what is known of stages, and so which have finished.
- `slurm`: each stage a job of Slurm, by a script of `slurm_scripts`; `slurm_records`: what is known of these, and
  `slurm_taken`: what of it a job takes over.
- `running`: one command, which ends with the job. `progress`: how far the job is.
- `planning`: what a recipe will cost, by `short_runs`, one of them in `measuring`, and sums in `costs`.
- `distill`, `train_nmt`: the commands that train one model; `trainings`: what they do.

A stage is a command line; no model is opened here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
