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
r"""Train a stock `MTEncDecModel` from YAML: a teacher, or the plain twin of a student.

python examples/train_nmt.py model=small_1x1 data.dir=data/ui \
        data.tokenizer=data/ui/tokenizer/tokenizer.model output_dir=runs/teacher name=teacher
"""

from nemo_distill.errors import say_interrupts

say_interrupts("train_nmt.py")

# isort: split


from omegaconf import DictConfig

from nemo_distill.jobs import train_plain
from nemo_distill.training import hydra_main


@hydra_main(config_path="../configs", config_name="train_nmt")
def main(config: DictConfig) -> None:
    """Train as the composed configuration says."""
    train_plain(config)


if __name__ == "__main__":
    main()
