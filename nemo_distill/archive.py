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
"""Open `.nemo` archives for reading: teachers, and models to evaluate."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.utils import logging
from nemo.utils.app_state import AppState
from omegaconf import DictConfig, OmegaConf

from nemo_distill.errors import InputError
from nemo_distill.files import atomic_path

CONFIG_MEMBER = "model_config.yaml"
WEIGHTS_MEMBER = "model_weights.ckpt"
DATASET_SECTIONS = ("train_ds", "validation_ds", "test_ds")


def read_archive_config(path: str | Path) -> DictConfig:
    """Return the model configuration inside a `.nemo` archive, after checking that it is one.

    Raises:
        InputError: no such file, not an archive, or an archive without configuration or weights.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}; give the path of a .nemo file")
    if not tarfile.is_tarfile(path):
        raise InputError(f"{path} is not a .nemo model: no tar archive. Give a file written by `model.save_to`")
    try:
        with tarfile.open(path) as archive:
            members = _files_by_name(archive)
            missing = {CONFIG_MEMBER, WEIGHTS_MEMBER} - set(members)
            if missing:
                raise InputError(f"{path} is not a .nemo model: it holds no {' and no '.join(sorted(missing))}")
            config = OmegaConf.create(archive.extractfile(members[CONFIG_MEMBER]).read().decode("utf-8"))
    except InputError:
        raise
    except Exception as error:  # of tarfile, of its decompressors, of YAML
        raise InputError(f"{path} is not a .nemo model: {error}. Give a file written by `model.save_to`") from error
    if not isinstance(config, DictConfig):
        raise InputError(f"{path} is not a .nemo model: its {CONFIG_MEMBER} is not a mapping")
    return config


def _files_by_name(archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    return {Path(member.name).name: member for member in archive.getmembers() if member.isfile()}


@contextmanager
def unchanged_restore_state() -> Iterator[None]:
    """Put NeMo's process-wide restore flags back on leaving, even after a failed `restore_from`.

    NeMo 1.23 leaves them set after a failure, and clears them after a success even where another model is being
    restored around it; either way the next model would silently build no dataloaders, or build them where it must not.
    """
    state = AppState()
    before = (state.is_model_being_restored, state.nemo_file_folder, state.model_restore_path)
    try:
        yield
    finally:
        state.is_model_being_restored, state.nemo_file_folder, restore_path = before
        if restore_path is not None:
            state.model_restore_path = restore_path


def restore_model(path: str | Path, map_location: str | torch.device = "cpu") -> MTEncDecModel:
    """Open a translation model for inference: in eval mode, without gradients and without datasets.

    The random state of the process is left as it was, so that opening a teacher does not change a student's run.

    Args:
        path: a `.nemo` archive of any `MTEncDecModel`. Where its recorded class cannot be imported, it is opened as
            `MTEncDecModel`.
        map_location: device of the weights.

    Raises:
        InputError: not an archive, or not the archive of a translation model.
    """
    config = read_archive_config(path)
    OmegaConf.set_struct(config, False)
    for section in DATASET_SECTIONS:
        config.pop(section, None)
    try:
        with unchanged_restore_state(), torch.random.fork_rng(devices=[]):  # models are built on the CPU
            model = MTEncDecModel.restore_from(
                str(Path(path).resolve()), override_config_path=config, map_location=torch.device(map_location)
            )
    except Exception as error:
        raise InputError(f"{path} could not be opened as a translation model: {error}") from error
    if not isinstance(model, MTEncDecModel):
        raise InputError(f"{path} holds a {type(model).__name__}; give an archive of an MTEncDecModel")
    logging.debug(f"opened {path}")
    return model.eval().requires_grad_(False)


def extract_tokenizers(path: str | Path, directory: str | Path) -> dict[str, dict[str, str]]:
    """Copy the tokenizer models out of a `.nemo` archive, so that a student can be trained with them.

    Args:
        path: a `.nemo` archive.
        directory: gets `encoder.model` and `decoder.model`.

    Returns:
        For `encoder` and `decoder`: the keys of the model section's tokenizer, `library` and `tokenizer_model`.

    Raises:
        InputError: not an archive, or one whose tokenizers are not files in it.
    """
    config = read_archive_config(path)
    found = {}
    with tarfile.open(path) as archive:
        members = _files_by_name(archive)
        for side in ("encoder", "decoder"):
            tokenizer = config[f"{side}_tokenizer"]
            member = members.get(str(tokenizer.get("tokenizer_model")).removeprefix("nemo:"))
            if member is None:
                raise InputError(
                    f"{path} holds no {side} tokenizer model (library {tokenizer.get('library')}); set "
                    f"model.{side}_tokenizer of the student by hand"
                )
            target = Path(directory) / f"{side}.model"
            with atomic_path(target) as partial:
                partial.write_bytes(archive.extractfile(member).read())
            found[side] = {"library": tokenizer.get("library", "yttm"), "tokenizer_model": str(target)}
    return found
