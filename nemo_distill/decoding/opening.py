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
"""Open the engine that fits a model: CTranslate2 where it converts, else NeMo's modules; by what its path is."""

import os
from collections.abc import Sequence

from nemo.utils import logging
from omegaconf import DictConfig

from nemo_distill.archives.restore import read_archive_config, restore_model
from nemo_distill.config.languages import Languages
from nemo_distill.data.languages import chosen_language
from nemo_distill.decoding.convertible import check_converts, config_faults
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.cuda_libraries import device_fault
from nemo_distill.decoding.engine import Engine, check_engine
from nemo_distill.decoding.foreign_engine import open_foreign
from nemo_distill.decoding.foreign_files import check_foreign, is_foreign
from nemo_distill.decoding.nemo_engine import NeMoEngine
from nemo_distill.errors import ConversionError, InputError
from nemo_distill.support.threads import settle_torch_threads


def choose_engine(
    config: DictConfig, engine: str = "auto", quantization: str | None = None, device: str = "cpu"
) -> tuple[str, str]:
    """Say what will decode a model, from its configuration alone.

    Args:
        config: the `model` section inside an archive.
        engine: one of `ENGINES`.
        quantization: for CTranslate2; by default float32.
        device: where to decode.

    Returns:
        The name of the engine, as `Engine.name`, and why.

    Raises:
        InputError: as `check_engine`.
        ConversionError: CTranslate2 is asked for and the model does not convert; lists all reasons.
    """
    check_engine(engine, quantization)
    if engine == "nemo":
        return "nemo", "as asked"
    faults = config_faults(config)
    if engine == "auto" and quantization is None and not faults and (fault := device_fault(device)):
        return "nemo", fault
    if not faults:
        return f"ctranslate2 {quantization or 'float32'}", "as asked" if engine == "ctranslate2" else "it converts"
    if engine == "ctranslate2":
        check_converts(config)
    if quantization is not None:
        raise ConversionError(
            f"quantization is '{quantization}', but the model does not convert to CTranslate2: {'; '.join(faults)}; "
            "leave the quantization out"
        )
    return "nemo", f"it does not convert to CTranslate2: {'; '.join(faults)}"


def open_engine(
    archives: str | os.PathLike | Sequence[str | os.PathLike],
    engine: str = "auto",
    quantization: str | None = None,
    device: str = "cpu",
    sha256: Sequence[str] | None = None,
    languages: Languages | None = None,
) -> Engine:
    """Open a model, or several whose probabilities are averaged, with the engine that fits.

    Args:
        archives: a `.nemo` archive, or several; or the directory of one model that is not NeMo's, see `open_foreign`.
        engine: `auto`: CTranslate2 where the model converts, else NeMo's modules; several models: NeMo's modules.
        quantization: for CTranslate2; by default float32.
        device: `cpu`, `cuda` or `cuda:N`.
        sha256: what the archives must have, one each; see `archive_sha256`; of a directory `ForeignModel.sha256`.
        languages: of the models' text, in place of what the archives say.

    Raises:
        InputError: as `choose_engine`; not an archive of a translation model; several models for CTranslate2.
        TeacherError: several models with different vocabularies.

    Example:
        >>> open_engine("teacher.nemo").name  # doctest: +SKIP
        'ctranslate2 float32'
    """
    paths = [archives] if isinstance(archives, str | os.PathLike) else list(archives)
    hashes = [None] * len(paths) if sha256 is None else list(sha256)
    check_engine(engine, quantization)
    if any(map(is_foreign, paths)):
        check_foreign(paths, engine)
        opened = open_foreign(paths[0], languages, quantization, device, hashes[0])
        logging.info(f"decoding {os.path.basename(paths[0])} with {opened.name} (the model is not NeMo's)")
        return opened
    if len(paths) != 1 and (engine == "ctranslate2" or quantization is not None):
        raise InputError(f"CTranslate2 decodes with one model, not with {len(paths)}; use the engine 'nemo'")
    for path in paths:  # refuses before much is read
        config = read_archive_config(path, languages=languages)
        choose_engine(config, "nemo" if len(paths) > 1 else engine, quantization, device)
        chosen_language(config, languages, f"'{path}'")
    if len(paths) != 1:
        opened = zip(paths, hashes, strict=True)
        models = [restore_model(path, device, sha256=each, languages=languages) for path, each in opened]
        settle_torch_threads(models)
        return NeMoEngine(models, languages)
    model = restore_model(paths[0], sha256=hashes[0], languages=languages)
    name, reason = choose_engine(model.cfg, engine, quantization, device)
    opened = None
    if name != "nemo":
        try:
            opened = CTranslate2Engine.from_model(model, quantization or "float32", device, languages=languages)
        except ConversionError as error:  # of what the configuration does not show
            if engine == "ctranslate2" or quantization is not None:
                raise
            reason = str(error)
    if opened is None:
        settle_torch_threads([model])
        opened = NeMoEngine(model.to(device), languages)
    logging.info(f"decoding {os.path.basename(paths[0])} with {opened.name} ({reason})")
    return opened
