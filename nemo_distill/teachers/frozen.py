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
"""Teachers: frozen, in eval mode, outside the student's module tree."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from nemo.collections.nlp.models import MTEncDecModel
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed

from nemo_distill.archives.restore import read_archive_config, restore_model
from nemo_distill.capture import CaptureSpec, ForwardCapture, layer_paths
from nemo_distill.config.mixture import as_list
from nemo_distill.config.section import LOGITS_PATH, TeacherConfig
from nemo_distill.errors import ConfigurationError, InputError, TeacherError
from nemo_distill.losses.signals import Logits, TeacherSignal
from nemo_distill.teachers.heads import head_input, linear_head, without_log_softmax

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""source ids [B, S], source mask [B, S], target ids [B, T], target mask [B, T], labels [B, T]"""


_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class TeacherOutputs:
    """What a teacher says of one batch, without a gradient."""

    signal: TeacherSignal | None = None
    """What it says of each target position: logits, or what they are made of; None: nobody asked."""
    captures: Mapping[CaptureSpec, torch.Tensor] = field(default_factory=dict)
    """The inner tensors that were asked for with `capture`."""


class Teacher(Protocol):
    """What the student's training step needs of a teacher, whatever stands behind it."""

    model: nn.Module | None
    """The model, where one model runs beside the student."""
    can_be_lean: bool
    """Whether `outputs` can give the head's input in place of logits."""

    def capture(self, specs: Iterable[CaptureSpec]) -> None:
        """Have `outputs` bring these inner tensors along."""
        ...

    def outputs(self, batch: Batch, lean: bool = False) -> TeacherOutputs:
        """Return what the teacher says of every target position: logits, or with `lean` the head's input."""
        ...


class FrozenTeacher:
    """A trained model that is only ever read.

    It is not an `nn.Module`, so a student that holds it does not take it into its parameters, state dict, checkpoints,
    optimizer or DDP. It follows the batch to its device by itself.

    Args:
        model: any `MTEncDecModel`; put into eval mode and frozen, its weights are never changed.
        logits_path: module of `model` whose output is its logits.
        precision: `fp32`, `bf16` or `fp16`; the weights are converted once, here.

    Raises:
        CaptureError: `logits_path` matches no module.
    """

    def __init__(self, model: nn.Module, logits_path: str = LOGITS_PATH, precision: str = "fp32") -> None:
        self.model = model.eval().requires_grad_(False).to(_DTYPES[precision])
        self._capture = ForwardCapture(model, {"logits": CaptureSpec(logits_path)})
        self._inner_capture, self._captures = ForwardCapture(model, {}), False
        self._compiled: list[str] = []
        self._head = linear_head(model, logits_path)
        self.can_be_lean = self._head is not None

    def compile(self, layer_lists: Iterable[str], backend: str = "inductor") -> None:
        """Compile the forward of every layer with `torch.compile`, for batches of any size.

        Layers of one kind share what is compiled. It happens in the first calls of `outputs`. Hooks on the layers stay
        outside what is compiled, so that their hidden states can be captured as before.

        Args:
            layer_lists: paths of the lists of layers, such as `encoder._encoder.layers`.
            backend: one of `torch.compiler.list_backends()`.

        Raises:
            CaptureError: a path is no list of layers.
        """
        self._compiled = [path for paths in layer_lists for path in layer_paths(self.model, paths)]
        for path in self._compiled:
            layer = self.model.get_submodule(path)
            layer.forward = torch.compile(layer.forward, backend=backend, dynamic=True)

    def capture(self, specs: Iterable[CaptureSpec]) -> None:
        """Have `outputs` bring these inner tensors along, in place of any asked for earlier.

        Raises:
            CaptureError: a path matches no module.
            ConfigurationError: a module is inside a compiled layer, whose hooks do not run.
        """
        specs = list(specs)
        hidden = [spec.path for spec in specs if any(spec.path.startswith(f"{layer}.") for layer in self._compiled)]
        if hidden:
            raise ConfigurationError(
                f"distillation.teacher.compile: {hidden[0]} is inside a compiled layer and cannot be read; set "
                "compile to null, or leave out the term that reads it"
            )
        wanted = {spec: spec for spec in specs}
        self._inner_capture, self._captures = ForwardCapture(self.model, wanted), bool(wanted)

    def logits(self, batch: Batch) -> torch.Tensor:
        """Return the teacher's logits for `batch`, [B, T, V], before the softmax."""
        return self.outputs(batch).signal.values

    def outputs(self, batch: Batch, lean: bool = False) -> TeacherOutputs:
        """Run the teacher on `batch`, once.

        Eval mode and frozen parameters are made sure of at every call, since NeMo's own search flips both.
        """
        *inputs, _ = batch
        self.model.eval().requires_grad_(False)
        if next(self.model.parameters()).device != inputs[0].device:
            self.model.to(inputs[0].device)
        try:
            return self._run(inputs, lean)
        except BackendCompilerFailed as error:
            raise TeacherError(
                f"distillation.teacher.compile: torch could not compile the teacher: {error.inner_exception}; most "
                "backends need a C++ compiler; or set compile to null"
            ) from error

    def _run(self, inputs: list[torch.Tensor], lean: bool) -> TeacherOutputs:
        # what autograd may keep for the backward pass of a term must not come from inference mode
        with torch.inference_mode() if lean and not self._captures else torch.no_grad(), self._inner_capture as inner:
            if lean:
                return TeacherOutputs(head_input(self.model, self._head, *inputs), captures=inner)
            with self._capture as captured, without_log_softmax(self.model):
                self.model(*inputs)
        return TeacherOutputs(Logits(captured["logits"]), captures=inner)


def check_teacher(config: TeacherConfig) -> None:
    """Make sure that there is such a teacher, without opening it: quick enough to come before the data are read.

    Raises:
        TeacherError: none is given, the file is no `.nemo` archive, or NGC has no translation model of that name.
    """
    if not config.is_given:
        raise TeacherError(
            "distillation.teacher: got none of model_path, model_name and cache, and a term reads the teacher"
        )
    for path in config.model_paths:
        try:
            read_archive_config(path, config.trust_archive or None, languages=config.languages)
        except InputError as error:
            raise TeacherError(f"distillation.teacher.model_path: {error}") from error
    if config.model_name is None:
        return
    known = MTEncDecModel.get_available_model_names()
    if config.model_name not in known:
        raise TeacherError(
            f"distillation.teacher.model_name: NGC has no translation model '{config.model_name}'; "
            f"known are {', '.join(known)}"
        )


def load_teacher_model(config: TeacherConfig) -> MTEncDecModel:
    """Open the one model that the configuration names: a `.nemo` file, or a model of NGC by name.

    Raises:
        TeacherError: it cannot be opened, or several are named; the message says what to do.
    """
    check_teacher(config)
    key, paths = "model_path", config.model_paths
    if config.model_name is not None:
        key, paths = "model_name", [_fetch(config)]
    if len(paths) != 1:
        raise TeacherError(f"distillation.teacher.model_path: one model is needed here, and {len(paths)} are given")
    hashes = as_list(config.sha256) or [None]
    try:
        trust = config.trust_archive or None
        return restore_model(paths[0], trust=trust, sha256=hashes[0], languages=config.languages)
    except InputError as error:
        raise TeacherError(f"distillation.teacher.{key}: {error}") from error


def _fetch(config: TeacherConfig) -> str:
    """Return the path of an archive of NGC, fetched once."""
    try:
        return MTEncDecModel._get_ngc_pretrained_model_info(model_name=config.model_name)[1]
    except Exception as error:
        raise TeacherError(
            f"distillation.teacher.model_name: '{config.model_name}' could not be fetched from NGC: {error} Check the "
            "network, or fetch the .nemo file elsewhere and give distillation.teacher.model_path"
        ) from error
