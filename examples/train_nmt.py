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

from nemo_distill.errors import reported_errors, say_interrupts

say_interrupts("train_nmt.py")

# isort: split

from omegaconf import DictConfig, OmegaConf

from nemo_distill.training import check_first, hydra_main


@hydra_main(config_path="../configs", config_name="train_nmt")
def main(config: DictConfig) -> None:
    """Train as the composed configuration says."""
    with reported_errors("train_nmt.py"):
        check_first(config)  # torch and NeMo, which take seconds to import, come after it
        from nemo_distill.training import run_training  # before NeMo, which imports matplotlib

        # isort: split
        from nemo.collections.nlp.models import MTEncDecModel
        from nemo.collections.nlp.models.machine_translation.mt_enc_dec_bottleneck_model import MTBottleneckModel

        has_bottleneck = OmegaConf.select(config, "model.encoder.arch")
        run_training(config, MTBottleneckModel if has_bottleneck else MTEncDecModel)


if __name__ == "__main__":
    main()
