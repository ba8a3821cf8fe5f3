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
"""The students that need no recipe of their own."""

from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_bottleneck_model import MTBottleneckModel

from nemo_distill.mixin import DistillationModelPT


class DistilledMTEncDecModel(DistillationModelPT, MTEncDecModel):
    """NeMo's encoder-decoder translation model as a student; see `DistillationModelPT`.

    Example:
        >>> # cfg.model.distillation names the teacher
        >>> student = DistilledMTEncDecModel(cfg.model, trainer=trainer)  # doctest: +SKIP
        >>> trainer.fit(student)  # doctest: +SKIP
        >>> student.save_to("student.nemo")  # opens as a stock MTEncDecModel  # doctest: +SKIP
    """


class DistilledMTBottleneckModel(DistillationModelPT, MTBottleneckModel):
    """NeMo's translation model with a latent representation between encoder and decoder, as a student.

    `encoder.arch` is one of `seq2seq`, `bridge`, `perceiver`, `max_pool` and `avg_pool`. With `model_type` `mim` or
    `vae`, what NeMo's loss has of the latent variable stays a term of the objective, `latent`, of weight 1.
    """
