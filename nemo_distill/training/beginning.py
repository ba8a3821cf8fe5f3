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
"""What a training script does before torch and NeMo are imported: the configuration is read, its paths are tried.

Nothing heavy is imported at the top.
"""

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_distill.archives.ngc import check_archive
from nemo_distill.config.composing import composition_fault
from nemo_distill.config.mixture import as_list, path_faults
from nemo_distill.config.reading import inner_section, with_home
from nemo_distill.data.checks import check_model_files
from nemo_distill.data.mixing.tarred import is_tarred
from nemo_distill.errors import InputError, reported_errors
from nemo_distill.support.children import end_with_parent
from nemo_distill.support.files import check_no_file
from nemo_distill.support.incoming import check_directory, check_file
from nemo_distill.support.quoting import is_legible, plain_text
from nemo_distill.support.threads import settle_openmp

# These say how to run, not what is run.
_RUN_KEYS = ("output_dir", "overwrite", "on_non_finite")
KEPT = ("best", "last", "average")
# Asked for only where another key refers to them, as ${teacher}: not every objective does.
_READ_BY_SOME = ("teacher", "pseudo", "cache")
# Which process this is, by torchrun and Slurm.
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
# What NeMo adds to OmegaConf: a configuration with one of these is read once NeMo is there.
_RESOLVERS_OF_NEMO = re.compile(r"\$\{(gpu_name|multiply|sum)\b")
_TEXT_KEYS = ("src_file_name", "tgt_file_name")


def hydra_main(config_path: str, config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[..., None]]:
    """Make a script of a function of one configuration, as NeMo's `hydra_runner` does, and without NeMo.

    Args:
        config_path: folder of the YAML files, from the script's own.
        config_name: of the file there.

    Returns:
        A decorator. The script takes overrides, `--config-path`, `--config-name`, `--cfg job` and `--help`; what it
        returns can be called with a configuration, too.
    """

    def decorate(function: Callable[[DictConfig], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def script(config: DictConfig | None = None) -> None:
            import hydra
            from hydra.errors import ConfigCompositionException, OverrideParseException

            end_with_parent()  # also while NeMo is imported
            given = list(sys.argv)

            @functools.wraps(function)
            def task(composed: DictConfig) -> None:
                sys.argv[:] = given  # from which Lightning starts further processes
                function(composed)

            with reported_errors(Path(given[0]).name):
                settle_openmp()
                os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises what it would print
                if config is None:  # where files go is said by `output_dir`; logs go to standard output
                    sys.argv += ["hydra.output_subdir=null", "hydra/job_logging=stdout", "hydra.run.dir=."]
                try:
                    hydra.main(version_base=None, config_path=config_path, config_name=config_name)(task)(config)
                except (ConfigCompositionException, OverrideParseException) as error:
                    raise InputError(composition_fault(error)) from error

        return script

    return decorate


def check_first(config: DictConfig) -> None:
    """Look for missing values and wrong paths of a run; `run_training` looks at all else, once NeMo is imported.

    Args:
        config: as for `run_training`.

    Raises:
        InputError: a value is missing, or a file or directory is not there or cannot be opened.
    """
    check_ranks()
    data = with_home(OmegaConf.to_container(config))
    if _RESOLVERS_OF_NEMO.search(str(data)):
        return
    model = plain_config(OmegaConf.create(data))["model"]
    if not all(map(os.path.isfile, _files(model))):
        check_model_files(model)  # which lists all that is wrong
    places = [(check_archive, ("distillation", "teacher"), "model_path")]
    places += [(check_archive, ("distillation", "init"), "from_nemo")]
    places += [(check_directory, ("distillation", "teacher"), "cache"), (check_file, ("train_ds",), "metadata_file")]
    for name in inner_section(model, "distillation", "mixture", "components"):
        place = ("distillation", "mixture", "components", name)
        places += [(check_directory, place, "directory")]
        places += [(check_file, place, key) for key in ("source", "target", "metadata_file")]
    for check, place, key in places:
        where = f"{'.'.join(map(str, place))}.{key}"
        for path in as_list(inner_section(model, *place).get(key)):
            if not path_faults(path, where):  # else all faults of the section are told together
                try:
                    check(path)
                except InputError as error:
                    raise type(error)(f"{where}: {error}") from error


def _files(model: Mapping[str, Any]) -> Iterator[str]:
    """Yield the files of plain text and tokenizers that a `model` section names, not those in archives and tars."""
    for section in ("encoder_tokenizer", "decoder_tokenizer"):
        path = inner_section(model, section).get("tokenizer_model")
        if isinstance(path, str) and path and not path.startswith("nemo:"):
            yield path
    for section in ("train_ds", "validation_ds", "test_ds"):
        dataset = inner_section(model, section)
        if not is_tarred(dataset):
            for value in map(dataset.get, _TEXT_KEYS):
                yield from (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str))


def check_ranks() -> None:
    """Refuse variables that tell which process this is and are no numbers.

    Raises:
        InputError: the message names the first.
    """
    for name in RANKS:
        if not re.fullmatch(r"[0-9]{1,9}", os.environ.get(name, "0")):
            raise InputError(f"environment variable {name} is '{plain_text(os.environ[name], 80)}'; unset it")


def plain_config(config: DictConfig) -> dict[str, Any]:
    """Return what is run as plain data, every value known; without what `_READ_BY_SOME` names and no key reads.

    Raises:
        InputError: a value is missing, or is not of its kind; or the output directory is a file.
    """
    unresolved = OmegaConf.to_container(config)
    unread = [key for key in _READ_BY_SOME if f"${{{key}}}" not in str(unresolved)]
    missing = [key for key in _missing_keys(unresolved) if key not in unread]
    if missing:
        raise InputError(f"no value for {', '.join(missing)}; give {' '.join(f'{key}=...' for key in missing)}")
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(f"the configuration cannot be resolved: {error}") from error
    if config.keep not in KEPT:
        raise InputError(f"keep: got '{config.keep}'; give {', '.join(KEPT[:-1])} or {KEPT[-1]}")
    _check_endings(plain)
    if not isinstance(config.overwrite, bool):
        raise InputError(f"overwrite: got {str(config.overwrite)[:80]!r}; give true or false")
    if not isinstance(config.seed, int) or isinstance(config.seed, bool) or not 0 <= config.seed < 1 << 32:
        raise InputError(f"seed: got {str(config.seed)[:80]!r}; give a whole number from 0 to {(1 << 32) - 1}")
    if not isinstance(config.output_dir, str | int) or not is_legible(str(config.output_dir)):
        raise InputError(f"output_dir: got {str(config.output_dir)[:80]!r}; give a directory")
    if os.path.expandvars(str(config.output_dir)) != str(config.output_dir):  # TensorBoard's logger does so
        raise InputError(
            f"output_dir: '{plain_text(config.output_dir, 200)}' names a variable of the environment, and logs would "
            "go to a directory with its value in that place; give one without '$'"
        )
    try:
        check_no_file(Path(str(config.output_dir)))
    except InputError as error:
        raise InputError(f"output_dir: {error}") from error
    for key in ("model", "trainer", "exp_manager"):
        if not OmegaConf.is_dict(config.get(key)):
            raise InputError(f"{key}: got {str(config.get(key))[:80]!r}; give a section")
    return {key: value for key, value in plain.items() if key not in {*_RUN_KEYS, *unread}}


def _check_endings(plain: Mapping[str, Any]) -> None:
    """Make sure of the values that say when a run ends, and of which weights its result is the mean."""
    for key, least in (("patience", 1), ("average", 2)):
        value = plain.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise InputError(f"{key}: got {str(value)[:80]!r}; give a whole number of at least {least}, or null")
    ema = plain.get("ema")
    if ema is not None and (not isinstance(ema, float) or not 0 < ema < 1):
        raise InputError(f"ema: got {str(ema)[:80]!r}; give a number above 0 and below 1, such as 0.999, or null")


def _missing_keys(section: Any, where: str = "") -> list[str]:
    """Return the dotted keys whose value is still `???`; interpolations to them are not listed."""
    if isinstance(section, dict):
        return [found for key, item in section.items() for found in _missing_keys(item, f"{where}.{key}".lstrip("."))]
    return [where] if section == "???" else []
