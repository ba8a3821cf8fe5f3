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
"""Train one model as a composed configuration says: what `examples/distill.py` and `examples/train_nmt.py` do."""

from omegaconf import DictConfig, OmegaConf

from nemo_distill.errors import reported_errors
from nemo_distill.jobs.allowed import keys_of
from nemo_distill.jobs.rates import RATE, WIDTH, fitting_rate
from nemo_distill.support.warned import warn
from nemo_distill.training.beginning import check_first


def train_student(config: DictConfig, model_class: type | None = None) -> None:
    """Train a student that learns from a teacher; what a user can mend ends the process with one line.

    Args:
        config: composed from configs/distill.yaml.
        model_class: a class of your own, `DistillationModelPT` first; None: the one of this library that fits.

    Example:
        >>> train_student(config, MyStudent)  # doctest: +SKIP
    """
    with reported_errors("distill.py"):
        check_first(config)  # torch and NeMo, which take seconds to import, come after it
        from nemo_distill.model import DistilledMTBottleneckModel, DistilledMTEncDecModel
        from nemo_distill.training.run import run_training

        warn_of_rate(config)
        fitting = DistilledMTBottleneckModel if _has_bottleneck(config) else DistilledMTEncDecModel
        run_training(config, model_class or fitting)


def train_plain(config: DictConfig) -> None:
    """Train a stock model of NeMo's: a teacher, or the plain twin of a student; errors as of `train_student`.

    Args:
        config: composed from configs/train_nmt.yaml.
    """
    with reported_errors("train_nmt.py"):
        check_first(config)
        from nemo_distill.training.run import run_training  # before NeMo, which imports matplotlib

        # isort: split
        from nemo.collections.nlp.models import MTEncDecModel
        from nemo.collections.nlp.models.machine_translation.mt_enc_dec_bottleneck_model import MTBottleneckModel

        warn_of_rate(config)
        run_training(config, MTBottleneckModel if _has_bottleneck(config) else MTEncDecModel)


def warn_of_rate(config: DictConfig) -> None:
    """Warn of an override that makes a model wider than its file says, and leaves it the learning rate of the narrower
    one, with which it may not learn.

    Args:
        config: as Hydra has composed it; from elsewhere there are no overrides, and nothing is said.
    """
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    if not (HydraConfig.initialized() and GlobalHydra.instance().is_initialized()):
        return
    hydra = HydraConfig.get()
    tasks = OmegaConf.to_container(hydra.overrides.task, resolve=False)  # a path in place of ${teacher} has no quotes
    given = {each: keys_of([each]) for each in tasks}
    others = [each for each, keys in given.items() if WIDTH not in keys]
    if len(others) == len(given) or any(RATE in keys for keys in given.values()):
        return
    as_filed, wanted = compose(hydra.job.config_name, others).model, config.model.encoder.hidden_size
    if (rate := fitting_rate(as_filed, wanted, stays=False)) is not None:
        warn(
            f"{WIDTH}={wanted} makes the model wider than its file does, {as_filed.encoder.hidden_size}, and its "
            f"learning rate is that of this width, {as_filed.optim.lr:g}: it may learn little; give {RATE}={rate:g}"
        )


def _has_bottleneck(config: DictConfig) -> bool:
    return bool(OmegaConf.select(config, "model.encoder.arch"))
