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
"""What in a configuration does not convert to CTranslate2, told without importing NeMo, which takes seconds."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from nemo_distill.archives.config import is_bottleneck
from nemo_distill.errors import ConversionError
from nemo_distill.support import compat

TOKENIZERS = ("yttm", "sentencepiece")
ACTIVATIONS = ("relu", "gelu")
LATENT = "a bottleneck model, whose decoder reads a latent representation in place of the encoder's states"
DEEP_HEAD = "CTranslate2 has one between the decoder and the softmax"


def config_faults(config: DictConfig) -> list[str]:
    """Return why a model with this `model` section does not convert; empty if nothing there speaks against it."""
    faults = [f"target: {LATENT}"] if is_bottleneck(config) else []
    for side in ("encoder", "decoder"):
        section = config[side]
        library = value_of(section, "library", "nemo")
        if library != "nemo":
            faults.append(f"{side}.library: {library}; only NeMo's own Transformers convert")
        if value_of(section, "arch"):
            faults.append(f"{side}.arch: {section.arch}; bottleneck and perceiver models have no counterpart")
        elif library == "nemo" and side == "encoder" and value_of(section, "mask_future", True):
            faults.append("encoder.mask_future: true (NeMo's default); CTranslate2's encoders see the whole source")
        if value_of(section, "hidden_act", "relu") not in ACTIVATIONS:
            faults.append(f"{side}.hidden_act: {section.hidden_act}; known are {', '.join(ACTIVATIONS)}")
        library = value_of(config[f"{side}_tokenizer"], "library") or compat.DEFAULT_TOKENIZER_LIBRARY
        if library not in TOKENIZERS:
            faults.append(f"{side}_tokenizer.library: {library}; known are {', '.join(TOKENIZERS)}")
    if not value_of(config.head, "log_softmax", True):
        faults.append("head.log_softmax: false; the search needs log-probabilities")
    if (layers := value_of(config.head, "num_layers", 1)) != 1:
        faults.append(f"head.num_layers: {layers}; {DEEP_HEAD}")
    return faults


def value_of(section: DictConfig, key: str, default: Any = None) -> Any:
    """Return what a section has under a key, or the default.

    `section.get` of a key that is not there leaves an exception that refers to itself, and keeps the variables of all
    callers, an engine among them, until the garbage collector comes by.
    """
    return OmegaConf.select(section, key, default=default)


def check_converts(config: DictConfig) -> None:
    """Refuse a model whose `model` section shows that it does not convert.

    Raises:
        ConversionError: lists all reasons.
    """
    if faults := config_faults(config):
        raise ConversionError(f"the model does not convert to CTranslate2: {'; '.join(faults)}; use the engine 'nemo'")
