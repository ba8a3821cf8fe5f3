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
"""The `model` section as recipes hand it over: OmegaConf, a dataclass of NeMo's, plain data or a YAML file."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_distill.errors import ConfigurationError
from nemo_distill.support.incoming import read_yaml_text
from nemo_distill.support.quoting import error_line


def as_model_config(config: Any) -> DictConfig:
    """Return a `model` section as OmegaConf.

    Args:
        config: a `DictConfig`, which is returned as it is; a dataclass such as NeMo's `AAYNBaseConfig`; a mapping.

    Raises:
        ConfigurationError: it is none of these, or holds a value that OmegaConf cannot.
    """
    if isinstance(config, DictConfig):
        return config
    try:
        if dataclasses.is_dataclass(config):
            return OmegaConf.structured(config)
        if isinstance(config, Mapping):
            return OmegaConf.create(dict(config))
    except OmegaConfBaseException as error:
        raise ConfigurationError(f"the model's configuration cannot be read: {error_line(error)}") from error
    raise ConfigurationError(
        f"the model's configuration: got a {type(config).__name__}; give OmegaConf's DictConfig, a mapping, or one of "
        "NeMo's dataclasses"
    )


def as_override(config: Any) -> DictConfig | None:
    """Return the `model` section in what `restore_from` takes as `override_config_path`.

    Args:
        config: as for `as_model_config`, or the path of a YAML file; either may hold the section under `model`.

    Raises:
        InputError: the file cannot be read.
        ConfigurationError: as `as_model_config`.
    """
    if config is None:
        return None
    if isinstance(config, str | os.PathLike):
        try:
            config = yaml.safe_load(read_yaml_text(Path(config), error=ConfigurationError))
        except yaml.YAMLError as error:
            raise ConfigurationError(f"'{config}' is not YAML: {error_line(error)}") from error
    section = as_model_config(config)
    return as_model_config(section.model) if "model" in section else section
