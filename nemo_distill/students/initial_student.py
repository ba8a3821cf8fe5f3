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
"""`nemo-distill init`: write a student that starts from its teacher's layers, without training it."""

import tempfile
from dataclasses import fields
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.modules.common.token_classifier import TokenClassifierConfig
from nemo.collections.nlp.modules.common.transformer.transformer import (
    NeMoTransformerDecoderConfig,
    NeMoTransformerEncoderConfig,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_distill.archives.restore import DATASET_SECTIONS, extract_tokenizers, restore_model
from nemo_distill.config.layers import InitConfig
from nemo_distill.config.reading import nearest
from nemo_distill.errors import InputError
from nemo_distill.students.layer_init import InitReport, initialise
from nemo_distill.support.files import atomic_path

# Of the teacher's own configuration: what belongs to its training, not to what it is.
_NOT_TAKEN = (*DATASET_SECTIONS, "target", "nemo_version", "distillation")
_PARTS = {
    "encoder": NeMoTransformerEncoderConfig,
    "decoder": NeMoTransformerDecoderConfig,
    "head": TokenClassifierConfig,
}


def write_initial_student(
    teacher: str | Path, student: str | Path, output: str | Path, config: InitConfig, seed: int = 1
) -> InitReport:
    """Build a student, set what `config` says from the teacher, and save it.

    Args:
        teacher: a `.nemo` archive; its tokenizers become the student's.
        student: a YAML file: a model section, or anything with a `model` section, whose keys are laid over the
            teacher's configuration. A file with hydra's `defaults` is composed in its directory.
        output: path of the `.nemo` archive to write, of a plain `MTEncDecModel`.
        config: layer maps and the rest; `from_teacher` is given.
        seed: of what stays random.

    Returns:
        What came from where.

    Raises:
        InputError: a file cannot be read, the configuration gives no model, or it cannot start from this teacher.
    """
    given = read_model_section(student)
    source = restore_model(teacher)
    section = OmegaConf.create(OmegaConf.to_container(source.cfg, resolve=True))
    for key in _NOT_TAKEN:
        section.pop(key, None)
    faults = _unknown_keys(given, section)
    if faults:
        raise InputError(f"{student}: {'; '.join(faults)}")
    section = OmegaConf.merge(section, given)
    with tempfile.TemporaryDirectory() as directory:
        for side, tokenizer in extract_tokenizers(teacher, directory).items():
            section[f"{side}_tokenizer"].update(tokenizer)
        torch.manual_seed(seed)
        try:
            model = MTEncDecModel(section)
        except Exception as error:  # of NeMo, whatever the section holds
            raise InputError(f"{student} gives no model: {error}") from error
        report = initialise(model, source, config, where="init")
        with atomic_path(output) as partial:
            model.save_to(str(partial))
    return report


def _unknown_keys(given: DictConfig, teacher: DictConfig) -> list[str]:
    """Return a fault for each key that NeMo would pass over in silence."""
    faults = [
        f"unknown key {key}{nearest(key, _PARTS)}" for key in given if key not in teacher and nearest(key, _PARTS)
    ]
    for part, defaults in _PARTS.items():
        known = sorted({field.name for field in fields(defaults)} | set(teacher.get(part) or {}))
        faults += [
            f"unknown key {part}.{key}{nearest(key, known)}; known are {', '.join(known)}"
            for key in given.get(part) or {}
            if key not in known
        ]
    return faults


def read_model_section(path: str | Path) -> DictConfig:
    """Return the model section of a YAML file, without data sets, tokenizers and distillation, every value known.

    Raises:
        InputError: no such file, no YAML mapping, or a value that cannot be resolved.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is no file; give the YAML file of the student's model")
    try:
        config = OmegaConf.load(path)
        if not isinstance(config, DictConfig):
            raise InputError(f"{path} is no mapping; give a model section, such as `encoder: {{num_layers: 3}}`")
        if "defaults" in config:
            with initialize_config_dir(str(path.parent.resolve()), version_base=None):
                config = compose(path.stem)
        plain = OmegaConf.to_container(config)  # without hydra's flags
        whole = OmegaConf.create(plain if "model" in plain else {"model": plain})
        for key in (*_NOT_TAKEN, "encoder_tokenizer", "decoder_tokenizer"):
            whole.model.pop(key, None)
        return OmegaConf.create(OmegaConf.to_container(whole.model, resolve=True, throw_on_missing=True))
    except InputError:
        raise
    except (OmegaConfBaseException, ValueError) as error:
        raise InputError(f"{path} has no value for a key: {error}") from error
    except Exception as error:  # of YAML, of hydra
        raise InputError(f"{path} cannot be read as a configuration: {error}") from error
