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
"""`nemo-distill VERB`: one file for each group of verbs, named after the wing that does the work.

- `parser`: all of them together, and the exit status. `options`: options that verbs share; `slurm`: those of `run` for
  Slurm. `first_steps`: what is said where no verb is given.

Only options are read and results printed here. Nothing heavy is imported at the top, so that `--help` is quick.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
