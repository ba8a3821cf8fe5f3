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
"""`DistillationModelPT`: put it in front of a NeMo translation model, and the model learns from a teacher."""

from collections.abc import Callable

import torch
from nemo.utils import logging
from nemo.utils.app_state import AppState
from nemo.utils.get_rank import is_global_rank_zero
from omegaconf import DictConfig, OmegaConf

from nemo_distill.archives.restore import unchanged_restore_state
from nemo_distill.capture import CaptureSpec, ForwardCapture
from nemo_distill.config.model_keys import check_model_keys
from nemo_distill.config.model_section import as_model_config, as_override
from nemo_distill.config.section import DistillationConfig
from nemo_distill.data.checks import check_model_files
from nemo_distill.data.encoders import is_latent, target_log_probs
from nemo_distill.data.languages import language_tokens
from nemo_distill.data.mixing.dataset import build_mixture_loader, mixture_of
from nemo_distill.errors import CaptureError, ConfigurationError, NonFiniteError, TeacherError
from nemo_distill.losses.building import build_layer_terms, build_recipe_terms, merged_captures
from nemo_distill.losses.latent import LatentTerm
from nemo_distill.losses.non_finite import name_non_finite
from nemo_distill.losses.objective import DistillationObjective
from nemo_distill.losses.signals import HeadInput, Logits, StudentLogits, StudentSignal, TeacherSignal
from nemo_distill.losses.term import ObjectiveInputs
from nemo_distill.students.layer_init import check_init_source, initialise
from nemo_distill.support import jieba_dictionary
from nemo_distill.support.warned import warn
from nemo_distill.teachers.agreement import check_training_text
from nemo_distill.teachers.cached import CachedTeacher
from nemo_distill.teachers.frozen import Teacher, TeacherOutputs
from nemo_distill.teachers.heads import head_input, is_of_head, linear_head
from nemo_distill.teachers.opening import (
    check_cached_terms,
    check_distillation,
    check_restored,
    fit_teacher,
    open_start,
    open_teacher,
)
from nemo_distill.training.attached import check_own_weights, check_training_step
from nemo_distill.training.multilingual import set_up_by_language
from nemo_distill.training.plain_archive import PlainArchive
from nemo_distill.training.ranks import mean_over_processes, token_factors
from nemo_distill.training.reading import forget_positions, positions_of
from nemo_distill.training.repairs import repair_model
from nemo_distill.training.restart import reads_own_data
from nemo_distill.training.text_settings import warn_of_raw_text


class DistillationModelPT(PlainArchive):
    """Mixin that turns any subclass of `MTEncDecModel` into a student.

    Put it first among the bases: `class MyStudent(DistillationModelPT, MyTranslationModel)`. The model's configuration
    gets a `distillation` section (see `DistillationConfig`), which this mixin owns; it is read before any data, and
    wired after the model is built.

    Attributes it adds:
        distillation (DistillationConfig | None): the checked section; None in a model restored for inference.
        objective (DistillationObjective): the weighted terms; `print(model.objective)` shows the formula. What its
            terms learn, such as projections between widths, is trained and kept in checkpoints.
        on_non_finite: what gets the message about a loss that is NaN or infinite; None: it is raised.

    The teacher is held beside the module tree: no checkpoint, archive or optimizer sees it, and neither `.train()` nor
    `.to()` of the student reaches it. `save_to` writes an archive of the model class behind the mixin, without the
    objective and the `distillation` section, so that NeMo opens it where this library is not installed.

    Raises:
        ConfigurationError: the section is missing or has faults, `model` has a key that nothing reads (those that a
            class of your own reads: `extra_keys`, see `check_model_keys`), or data are missing, empty or unequal.
        TeacherError: the teacher cannot be opened, or has other vocabularies than the student.
        CaptureError: a path under `distillation.capture` matches no module.
    """

    on_non_finite: Callable[[str], None] | None = None

    def __init__(self, cfg: DictConfig, trainer=None) -> None:
        self._teacher: Teacher | None = None
        check_training_step(type(self))
        cfg = as_model_config(cfg)
        self._is_restored = restoring = AppState().is_model_being_restored
        distillation = None
        if not restoring:
            distillation = DistillationConfig.from_section(cfg.get("distillation"))
            plain = OmegaConf.to_container(cfg, resolve=True)
            check_model_keys(plain, type(self))
            if distillation.names_teacher:
                check_distillation(distillation, cfg)
            check_init_source(distillation.init)
            check_model_files(cfg, distillation.mixture)
            if is_global_rank_zero():
                warn_of_raw_text(plain)
        self.distillation = distillation  # building the data reads it
        jieba_dictionary.keep_private()
        super().__init__(cfg=cfg, trainer=trainer)
        repair_model(self)
        self._kept_state = set(self.state_dict())  # of the class behind the mixin, which archives name
        if distillation is not None:
            self.setup_distillation(distillation)

    def setup_distillation(self, config: DistillationConfig, teacher: Teacher | None = None) -> None:
        """Wire teacher, captures and objective; called by `__init__`, and by hand to train a restored model on.

        Args:
            config: a checked section, see `DistillationConfig.from_section`.
            teacher: use this one rather than the one that `config` names.
        """
        label_smoothing = self.cfg.get("label_smoothing") or 0.0
        if label_smoothing > 0:
            warn(
                f"model.label_smoothing is {label_smoothing}: a smoothed target blurs what the teacher tells "
                "(Müller et al. 2019); set it to 0 while distilling"
            )
        if config.init is not None and self._is_restored:
            raise ConfigurationError(
                "distillation.init: this model was restored, and its weights would be lost; leave init out "
                "(config.init = None), or build the student anew"
            )
        if config.init is not None:
            self._initialise(config)
        recipe_terms = build_recipe_terms(config.objective.terms)
        check_cached_terms(config, recipe_terms)
        if self._teacher is not None:  # of an earlier section
            self._teacher = None
            forget_positions(self)
        if config.objective.names_teacher or any(term.needs_teacher for _, term in recipe_terms.values()):
            self._teacher = open_teacher(config, self) if teacher is None else fit_teacher(teacher, config, self)
        layer_terms = build_layer_terms(config, self, self._teacher.model if self._teacher else None)
        terms = layer_terms | recipe_terms | self._latent_term()
        self.objective = DistillationObjective(config.objective, label_smoothing, terms)
        self._student_capture = ForwardCapture(self, {"logits": CaptureSpec(config.capture.student_logits)})
        self._inner_capture = ForwardCapture(self, merged_captures(self.objective.terms, "student"))
        if self._teacher:
            self._teacher.capture(merged_captures(self.objective.terms, "teacher"))
        self._lean = self._choose_lean(config)
        self.distillation = config
        logging.info(f"distillation objective: {self.objective}")
        if config.objective.hybrid is not None:
            logging.info(str(config.objective.hybrid))

    def setup_training_data(self, train_data_config: DictConfig) -> None:
        """Build the training data: those of `distillation.mixture`, where there is one, else as NeMo does."""
        if self.distillation is None or self.distillation.mixture is None:
            set_up_by_language(self, "train_ds", super().setup_training_data, train_data_config)
        else:
            self._train_dl = build_mixture_loader(
                self.distillation.mixture,
                train_data_config,
                self.encoder_tokenizer,
                self.decoder_tokenizer,
                self.global_rank,
                self.world_size,
                language_tokens(self),
                positions_of(self),
            )
            self._train_ds = self._train_dl.dataset
        if isinstance(self._teacher, CachedTeacher):
            self._teacher.check_coverage(getattr(self, "_train_ds", None))

    def on_fit_start(self) -> None:
        """Called by the trainer before the first validation.

        Raises:
            ConfigurationError: the student is not wired, or the trainer reads other data than its mixture.
            TeacherError: the teacher knows nothing of the training text, see `nemo_distill.data.agreement`.
        """
        self._check_ready()
        if self.distillation.mixture is not None and not reads_own_data(self.trainer, self):
            raise ConfigurationError(
                "distillation.mixture: nothing would read it, since trainer.fit was given a loader or a data module, "
                f"or {type(self).__name__} has a train_dataloader of its own; leave one of the two out"
            )
        super().on_fit_start()
        try:
            fault = self._text_fault() if is_global_rank_zero() else None
        except Exception as error:
            self.trainer.strategy.broadcast(f"the first process failed to look at the training text: {error!r}")
            raise
        if fault := self.trainer.strategy.broadcast(fault):
            raise TeacherError(
                f"distillation.teacher: {fault}. To train all the same: distillation.teacher.on_disagreement: warn "
                "(+model.distillation.teacher.on_disagreement=warn on the command line)"
            )

    def _text_fault(self) -> str | None:
        if self._teacher is None or not self.objective.needs_teacher:
            return None
        dataset = getattr(self, "_train_ds", None) if reads_own_data(self.trainer, self) else None
        tokenizers = (self.encoder_tokenizer, self.decoder_tokenizer)
        go_on = self.distillation.teacher.on_disagreement == "warn"
        return check_training_text(self._teacher, dataset, tokenizers, self.device, go_on)

    def _check_ready(self) -> None:
        if self.distillation is None:
            given = "model.cfg.distillation" if self.cfg.get("distillation") else "..."
            raise ConfigurationError(
                "this student was restored without a `distillation` section; call "
                f"model.setup_distillation(DistillationConfig.from_section({given})) before training, without init"
            )
        if self._teacher is None and self.objective.needs_teacher:
            raise ConfigurationError(
                "distillation.teacher: the last call of setup_distillation failed, and the student has no teacher; "
                "call it once more, with a section that can be used"
            )
        check_own_weights(self, self._kept_state)
        if (mixture := mixture_of(self)) != self.distillation.mixture:
            raise ConfigurationError(
                "distillation.mixture: the training data were set up before setup_distillation, "
                f"{'without it' if mixture is None else 'from another one'}; call "
                "model.setup_training_data(model.cfg.train_ds) once more"
            )

    def setup_validation_data(self, val_data_config: DictConfig) -> None:
        """Build the validation data as NeMo does, each set of its own language."""
        set_up_by_language(self, "validation_ds", super().setup_validation_data, val_data_config)

    def setup_test_data(self, test_data_config: DictConfig) -> None:
        """Build the test data as NeMo does, each set of its own language."""
        set_up_by_language(self, "test_ds", super().setup_test_data, test_data_config)

    def _latent_term(self) -> dict[str, tuple[float, LatentTerm]]:
        """Return the term that a bottleneck model with a latent variable adds to its loss, with NeMo's weight."""
        if not is_latent(self) or self.model_type == "nll":
            return {}

        def warmup() -> float:
            trainer, steps = self._trainer, self.non_recon_warmup_batches
            return min(trainer.global_step / steps, 1.0) if trainer is not None and steps > 0 else 1.0

        return {"latent": (1.0, LatentTerm(self.model_type, self.min_logv, self.recon_per_token, warmup))}

    def _choose_lean(self, config: DistillationConfig) -> bool:
        """Return whether the loss is computed from the heads' input, see `ObjectiveConfig.computation`."""
        readers = [
            name
            for name, term in self.objective.terms.items()
            if term.needs_logits or any(map(is_of_head, (*term.student_captures, *term.teacher_captures)))
        ]
        hindrance = None
        if linear_head(self, config.capture.student_logits) is None:
            hindrance = "the student has a forward or an output head of its own"
        elif self._teacher and not self._teacher.can_be_lean:
            hindrance = "the teacher is an ensemble, or has a forward or an output head of its own"
        elif readers:
            hindrance = f"{', '.join(readers)} reads whole logits"
        computation = config.objective.computation
        if computation == "lean" and hindrance:
            raise ConfigurationError(
                f"distillation.objective.computation is lean, but {hindrance}; give auto or plain"
            )
        return computation != "plain" and hindrance is None

    def _initialise(self, config: DistillationConfig) -> None:
        """Start from another model, opened for this alone: the teacher may run in half precision, or not at all."""
        source = open_start(config, self)
        logging.info(f"initialisation: {initialise(self, source, config.init, config.capture)}")

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> dict:
        """Compute the objective on one batch; logs `train_loss`, `lr` and `train_<term>` for every term.

        With several processes the values logged are those over all of them.
        """
        self._check_ready()
        # The loader adds a dimension of size 1 in front of the already batched tensors.
        batch = [item.squeeze(0) if item.ndim == 3 else item for item in batch]
        terms = self.distillation_terms(batch)
        logs = {f"train_{name}": value for name, value in mean_over_processes(terms).items()}
        return {"loss": terms["loss"], "log": {"lr": self._optimizer.param_groups[0]["lr"], **logs}}

    def distillation_terms(self, batch: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run both models on one batch.

        Args:
            batch: source ids [B, S], source mask [B, S], target ids [B, T], target mask [B, T], labels [B, T].

        Returns:
            `loss`, the weighted sum, and every term unweighted; scalars. With several processes they are scaled so
            that their mean over processes is the mean over all tokens, see `token_factors`.

        Raises:
            CaptureError: a path under `distillation.capture` gives something else than logits.
            NonFiniteError: the loss is NaN or infinite; the message says which model brought it. In a training run of
                this library `NonFiniteGuard` gets the message instead, since all processes must stop together.
        """
        inputs = self._run_models(batch)
        terms = self.objective(inputs)
        if not torch.isfinite(terms["loss"]):
            reason = name_non_finite(inputs, terms, self.global_step)
            if self.on_non_finite is None:
                raise NonFiniteError(reason)
            self.on_non_finite(reason)
        return terms

    def _run_models(self, batch: list[torch.Tensor]) -> ObjectiveInputs:
        """Run the teacher and the student; return what the objective reads: logits, or the input of both heads."""
        labels = batch[4]
        teacher = self._teacher.outputs(batch, self._lean) if self.objective.needs_teacher else TeacherOutputs()
        with self._inner_capture as captures:
            student = self._run_student(batch)
        self._check_signals(student, teacher.signal)
        mask, source_mask = labels != self.decoder_tokenizer.pad_id, batch[1].bool()
        return ObjectiveInputs(
            labels=labels,
            mask=mask,
            student=student,
            teacher=teacher.signal,
            source_mask=source_mask,
            factors=token_factors({"source": source_mask, "target": mask, "sentence": mask.any(dim=1)}),
            student_captures=captures,
            teacher_captures=teacher.captures,
        )

    def _run_student(self, batch: list[torch.Tensor]) -> StudentSignal:
        *inputs, _ = batch
        if self._lean:
            return head_input(self, self.get_submodule(self.distillation.capture.student_logits), *inputs)
        with self._student_capture as captured:
            log_probs = target_log_probs(self(*inputs))
        return StudentLogits(captured["logits"], log_probs)

    def _check_signals(self, student: StudentSignal, teacher: TeacherSignal | None) -> None:
        """Make sure that both models speak of one vocabulary, spare rows counted, and that logits have their shape."""
        if isinstance(student, HeadInput):
            if isinstance(teacher, HeadInput) and len(teacher.weight) != len(student.weight):
                raise CaptureError(
                    f"the student's output layer has {len(student.weight)} rows, the teacher's {len(teacher.weight)}; "
                    "give the student as many"
                )
            return
        for key, signal in (("student_logits", student), ("teacher_logits", teacher)):
            if isinstance(signal, Logits) and signal.values.shape != student.log_probs.shape:
                raise CaptureError(
                    f"distillation.capture.{key} = {getattr(self.distillation.capture, key)} gives the shape "
                    f"{tuple(signal.values.shape)}, but logits have {tuple(student.log_probs.shape)}; name the last "
                    "layer before the softmax"
                )

    @classmethod
    def restore_from(
        cls,
        restore_path: str,
        override_config_path=None,
        map_location=None,
        strict=True,
        return_config=False,
        *args,
        **kwargs,
    ):
        """As in NeMo; with a `distillation` section in `override_config_path`, the student goes on learning by it.

        Raises:
            ConfigurationError: the section has faults or asks for an `init`, or the archive's class is no student's.
            TeacherError: the teacher cannot be opened, or has other vocabularies than the student.
        """
        override = as_override(override_config_path)
        section = None if return_config or override is None else override.get("distillation")
        distillation = None if section is None else check_restored(section, override, restore_path)
        with unchanged_restore_state():
            restored = super().restore_from(
                restore_path, override, map_location, strict, return_config, *args, **kwargs
            )
        if return_config:
            return restored
        if not isinstance(restored, DistillationModelPT):
            raise ConfigurationError(
                f"{restore_path} holds a {type(restored).__name__}, and {cls.__name__} is a student of the class "
                f"{cls.plain_class().__name__}; put DistillationModelPT in front of {type(restored).__name__}"
            )
        if distillation is not None:
            restored.setup_distillation(distillation)
        return restored
