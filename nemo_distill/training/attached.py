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
"""What a student is attached to: the model class behind it, and a trainer that this library need not have built."""

from abc import ABCMeta
from collections.abc import Collection, Mapping
from typing import Any

import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_bottleneck_model import MTBottleneckModel

from nemo_distill.data.positions import Positions
from nemo_distill.errors import ConfigurationError, InputError
from nemo_distill.training.convergence import ScoreHistory
from nemo_distill.training.non_finite import NonFiniteGuard
from nemo_distill.training.reading import keep_to_positions
from nemo_distill.training.restart import ExactRestart
from nemo_distill.training.trainer import CHECKPOINT_GLOBALS, SafeCheckpointIO, pl, safe_checkpoint_globals

_OURS = "nemo_distill."
_KNOWN_STEPS = (MTEncDecModel, MTBottleneckModel)


class _MixinFirst(ABCMeta):
    """Refuses a class whose bases are in an order, or of a kind, that would train plainly without a word.

    A base class has no other way to see that it comes last: NeMo's `ModelPT.__init_subclass__` calls no other.
    """

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict) -> None:
        super().__init__(name, bases, namespace)
        ours = [isinstance(base, _MixinFirst) for base in cls.__mro__]
        model = next((base for base in cls.__mro__ if is_model(base)), None)
        if model is None:
            return
        if any(ours[cls.__mro__.index(model) :]):
            raise ConfigurationError(
                f"class {name}: {model.__name__} comes before DistillationModelPT, which would have no effect; put "
                f"DistillationModelPT first: class {name}(DistillationModelPT, {model.__name__})"
            )
        in_front = [base for base in cls.__mro__[: cls.__mro__.index(model)] if not base.__module__.startswith(_OURS)]
        if any("forward" in vars(base) for base in in_front):
            raise ConfigurationError(
                f"class {name}: its forward comes before DistillationModelPT, and archives are of {model.__name__}, "
                "which would translate without it; put it in a class behind the mixin: "
                f"class MyTranslationModel({model.__name__}), class {name}(DistillationModelPT, MyTranslationModel)"
            )
        if not issubclass(model, MTEncDecModel):
            raise ConfigurationError(
                f"class {name}: {model.__name__} is no MTEncDecModel; DistillationModelPT makes students of NeMo's "
                "MTEncDecModel and its subclasses alone, and not of Megatron models"
            )


def is_model(base: type) -> bool:
    """Return whether a base of a student is a model of its own: neither of the mixin's classes nor a helper."""
    return issubclass(base, torch.nn.Module) and not isinstance(base, _MixinFirst)


class AttachedModel(metaclass=_MixinFirst):
    """Mixin for a model that brings to any trainer what every run of this library has.

    Those are `ExactRestart`, `NonFiniteGuard`, `ScoreHistory`, and checkpoints that are whole or absent and load under
    torch >= 2.6. A trainer that has them, or a checkpoint plugin of its own, keeps its own.
    """

    def configure_callbacks(self) -> list[pl.Callback]:
        """Called by the trainer; returns the callbacks to add to it."""
        there = tuple(type(callback) for callback in self.trainer.callbacks)
        added = [
            kind()
            for kind in (ExactRestart, NonFiniteGuard, ScoreHistory)
            if not any(issubclass(each, kind) for each in there)
        ]
        own = super().configure_callbacks()
        return [*([own] if isinstance(own, pl.Callback) else own), *added]

    def setup(self, stage: str | None = None) -> None:
        """Called by the trainer before it reads a checkpoint.

        NeMo's `save_best_model` reads checkpoints by itself, so OmegaConf's types are made known to torch as data.
        """
        super().setup(stage)
        if type(self.trainer.strategy.checkpoint_io) is pl.plugins.io.TorchCheckpointIO:
            self.trainer.strategy.checkpoint_io = SafeCheckpointIO()
        torch.serialization.add_safe_globals(CHECKPOINT_GLOBALS)

    def keep_to_positions(self, teacher: Positions) -> None:
        """Leave out the training pairs that a teacher has no positions for, see `keep_to_positions`."""
        keep_to_positions(self, teacher)

    @classmethod
    def load_from_checkpoint(cls, *args, **kwargs):
        """As in Lightning; the configuration inside is read under torch's `weights_only` protection."""
        with safe_checkpoint_globals():
            return super().load_from_checkpoint(*args, **kwargs)


def check_learnt(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Make sure that a checkpoint has what the terms of an objective learn, such as projections between widths.

    Raises:
        InputError: it has not, or has it for other terms.
    """
    own, others = ({name for name in state if name.startswith("objective.")} for state in (wanted, found))
    if own != others:
        shown = [", ".join(sorted(names)[:3]) or "nothing" for names in (own - others, others - own)]
        raise InputError(
            f"the checkpoint is of a run with another objective: it lacks {shown[0]}, and has {shown[1]} beside; give "
            "the terms of distillation.objective that it was made with, or start from its weights alone "
            "(distillation.init.from_nemo, with an archive)"
        )


def check_own_weights(student: torch.nn.Module, kept: Collection[str]) -> None:
    """Make sure that a student has no weights that the class behind the mixin, which archives name, has not.

    Args:
        student: with what its objective learns, which archives leave out.
        kept: names of the weights that the class behind the mixin has.

    Raises:
        ConfigurationError: it has.
    """
    own = [name for name in student.state_dict() if name not in kept and not name.startswith("objective.")]
    if own:
        name = type(student).__name__
        raise ConfigurationError(
            f"{name} has weights of its own, {', '.join(own[:3])}, that an archive of "
            f"{student.plain_class().__name__} has no place for; make them in a class behind the mixin: "
            f"class {name}(DistillationModelPT, MyTranslationModel)"
        )


def check_training_step(student: type) -> None:
    """Make sure that the objective takes the place of no training step but NeMo's.

    Raises:
        ConfigurationError: a class behind the mixin has a step of its own, and the student's does not say which of
            them is meant.
    """
    owner, behind = [base for base in student.__mro__ if "training_step" in vars(base)][:2]
    if owner.__module__ == "nemo_distill.mixin" and behind not in _KNOWN_STEPS:
        raise ConfigurationError(
            f"{behind.__name__} has a training_step of its own, in whose place the objective would be computed; make "
            "what it adds to the loss a term (distillation.objective.terms), and say so in the class: "
            f"class {student.__name__}(...): training_step = DistillationModelPT.training_step"
        )
