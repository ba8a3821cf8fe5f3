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
"""Train a stock MTEncDecModel, as a stage of a job: a teacher, or a plain twin; see `examples/train_nmt.py`."""

from omegaconf import DictConfig

from nemo_distill.jobs.running import CONFIGS
from nemo_distill.jobs.trainings import train_plain
from nemo_distill.training.beginning import hydra_main


@hydra_main(config_path=str(CONFIGS), config_name="train_nmt")
def main(config: DictConfig) -> None:
    """Train as the composed configuration says."""
    train_plain(config)


if __name__ == "__main__":
    main()
