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
"""What decodes each model that is evaluated, chosen before and opened when it is needed."""

from collections.abc import Sequence

import torch
from nemo.utils import logging

from nemo_distill.archives.restore import restore_model
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.engine import TextEngine
from nemo_distill.decoding.foreign_conversion import count_weights, stored_quantization
from nemo_distill.decoding.foreign_engine import open_foreign
from nemo_distill.decoding.foreign_files import check_foreign
from nemo_distill.decoding.nemo_engine import NeMoEngine
from nemo_distill.decoding.opening import choose_engine
from nemo_distill.errors import ConversionError
from nemo_distill.evaluation.inputs import ModelInput
from nemo_distill.support.threads import settle_torch_threads


def choose_engines(
    candidates: Sequence[ModelInput], engine: str, quantization: str | None, device: str
) -> dict[str, str]:
    """Return the name of each model's engine by its label, and say why."""
    names = {}
    for candidate in candidates:
        if candidate.foreign is not None:
            check_foreign([candidate.path], engine)
            stored = stored_quantization(candidate.foreign)
            names[candidate.label] = f"ctranslate2 {stored or quantization or 'float32'}"
            continue
        try:
            names[candidate.label], reason = choose_engine(candidate.config, engine, quantization, device)
        except ConversionError as error:
            raise ConversionError(f"{candidate.path}: {error}") from error
        logging.info(f"{candidate.label}: decoding with {names[candidate.label]} ({reason})")
    return names


def open_input(candidate: ModelInput, engine: str, device: str, falls_back: bool = False) -> tuple[TextEngine, int]:
    """Return the engine of a model, and the number of the model's weights.

    Args:
        candidate: the model.
        engine: what the engine is called.
        device: where to decode.
        falls_back: take NeMo's modules, and say why, where the model proves not to convert once it is open: the
            engine was not asked for.

    Raises:
        ConversionError: it does not convert, and `falls_back` is False.
    """
    _, _, quantization = engine.partition(" ")
    if candidate.foreign is not None:
        opened = open_foreign(candidate.path, candidate.languages, quantization, device, candidate.sha256)
        return opened, count_weights(opened.directory / "model.bin")
    if engine == "nemo":
        model = restore_model(candidate.path, device, sha256=candidate.sha256, languages=candidate.languages)
        settle_torch_threads([model])
        return NeMoEngine(model, candidate.languages), count_parameters(model)
    model = restore_model(candidate.path, sha256=candidate.sha256, languages=candidate.languages)
    try:
        opened = CTranslate2Engine.from_model(model, quantization, device, languages=candidate.languages)
    except ConversionError as error:
        if not falls_back:
            raise ConversionError(f"{candidate.path}: {error}") from error
        logging.info(f"{candidate.label}: decoding with nemo ({error})")
        opened = NeMoEngine(model.to(device), candidate.languages)
    return opened, count_parameters(model)


def count_parameters(model: torch.nn.Module) -> int:
    """Return the number of weights of a model; a tensor that several modules share counts once.

    Example:
        >>> count_parameters(torch.nn.Linear(3, 2))
        8
    """
    return sum(parameter.numel() for parameter in model.parameters())
