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
from .beginning import check_first as check_first
from .beginning import hydra_main as hydra_main
from .checkpoints import RunCheckpoint as RunCheckpoint
from .checkpoints import newest_checkpoint as newest_checkpoint
from .non_finite import NonFiniteGuard as NonFiniteGuard
from .repairs import repair_model as repair_model
from .restart import ExactRestart as ExactRestart
from .run import run_training as run_training
from .stopping import StopOnSignal as StopOnSignal
from .trainer import SafeCheckpointIO as SafeCheckpointIO
from .trainer import build_trainer as build_trainer
from .trainer import safe_checkpoint_globals as safe_checkpoint_globals
from .trainer import seed_everything as seed_everything
