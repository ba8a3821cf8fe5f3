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
"""Open `.nemo` archives: teachers, and models to evaluate.

An archive may come from anywhere. Its members are checked in memory, its configuration is read as plain data, its
weights without unpickling, and the model is built from these parts; NeMo's own `restore_from` never sees the file.
"""

import hashlib
import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_bottleneck_model import MTBottleneckModel
from nemo.utils import logging
from nemo.utils.app_state import AppState
from nemo.utils.model_utils import import_class_by_path
from omegaconf import DictConfig, OmegaConf

from nemo_distill.archives.config import BOTTLENECK, KNOWN_CLASSES, STOCK, read_config
from nemo_distill.archives.multilingual import known_language_ids
from nemo_distill.archives.reader import is_trusted, read_parts
from nemo_distill.archives.weights import check_sizes, read_weights
from nemo_distill.config.languages import Languages
from nemo_distill.config.model_widths import HUGGING_FACE
from nemo_distill.errors import ArchiveError, InputError
from nemo_distill.support import compat, jieba_dictionary
from nemo_distill.support.files import atomic_path, reported_storage
from nemo_distill.support.quoting import error_line, plain_text
from nemo_distill.support.temporary import TEMPORARY_ADVICE, TemporaryDirectory, temporary_place
from nemo_distill.support.tokenizer_guard import vocabulary_size
from nemo_distill.support.warned import warn

_WEIGHTS_FROM = ("pretrained", "checkpoint_file")
_CLASSES = {STOCK: MTEncDecModel, BOTTLENECK: MTBottleneckModel}


def read_archive_config(
    path: str | Path, trust: bool | None = None, sha256: str | None = None, languages: Languages | None = None
) -> DictConfig:
    """Return the model configuration inside a `.nemo` archive, after checking that it is one.

    Args:
        path: a `.nemo` archive.
        trust: see `restore_model`.
        sha256: what the file must have, see `archive_sha256`; the whole file is read then.
        languages: see `restore_model`.

    Raises:
        ArchiveError: no such file, not an archive, without configuration or weights, or what `restore_model` refuses
            as far as the configuration shows it.
    """
    trust = is_trusted(trust)
    parts = read_parts(path, weights=False, sha256=sha256)
    config = read_config(path, parts, trust).model
    _set_languages(path, config, languages)
    return config


def _set_languages(path: str | Path, config: DictConfig, languages: Languages | None) -> None:
    """Put the languages that the user gives in the place of the archive's.

    Raises:
        InputError: a model of several languages has not the one that is asked for.
    """
    languages = languages or Languages()
    if faults := languages.model_faults(config):
        raise InputError(f"{path}: {'; '.join(faults)}")
    languages.apply(config)


@contextmanager
def unchanged_restore_state() -> Iterator[None]:
    """Put NeMo's process-wide restore flags back on leaving, even after a failure.

    NeMo 1.23 leaves them set after a failure, and clears them after a success even where another model is being
    restored around it; either way the next model would silently build no dataloaders, or build them where it must not.
    """
    state = AppState()
    before = (state.is_model_being_restored, state.nemo_file_folder, state.model_restore_path)
    try:
        yield
    finally:
        state.is_model_being_restored, state.nemo_file_folder, restore_path = before
        if restore_path is not None and restore_path != state.model_restore_path:
            state.model_restore_path = restore_path


def restore_model(
    path: str | Path,
    map_location: str | torch.device = "cpu",
    trust: bool | None = None,
    sha256: str | None = None,
    languages: Languages | None = None,
) -> MTEncDecModel:
    """Open a translation model for inference: in eval mode, without gradients and without datasets.

    The random state of the process is left as it was, so that opening a teacher does not change a student's run. The
    file is not needed any more afterwards, not even to save the model again.

    Args:
        path: a `.nemo` archive of an `MTEncDecModel`.
        map_location: device of the weights.
        trust: the archive is the user's own: it may name any importable subclass of `MTEncDecModel`, tokenizers and
            transformers of other libraries, and hold further files; a class that cannot be imported is opened as
            `MTEncDecModel`. By default as `trusted_archives` says.
        sha256: what the file must have.
        languages: of its text, in place of what the archive says; a multilingual model must know them.

    Raises:
        InputError: a multilingual model has not such a language.
        ArchiveError: not an archive, damaged, not that of a translation model, with weights or values that none has,
            or with anything in it that could write, fetch or run something. Nothing has been written then.
        StorageError: no room for the tokenizers in the directory of temporary files.
    """
    trust = is_trusted(trust)
    parts = read_parts(path, sha256=sha256)
    read = read_config(path, parts, trust)
    config, named = read.model, read.named
    libraries = [(config.get(f"{side}_tokenizer") or {}).get("library") for side in ("encoder", "decoder")]
    if "yttm" in libraries and "yttm" not in compat.TOKENIZER_LIBRARIES:
        raise ArchiveError(f"{path} reads text with YouTokenToMe, but {compat.NO_YTTM}")
    OmegaConf.set_struct(config, False)
    _set_languages(path, config, languages)
    _take_weights_of_the_archive(config)
    model_class = _model_class(path, config)
    weights = read_weights(path, parts.weights, trust)
    parts.weights = None
    if not trust:
        check_sizes(path, config, weights, _vocabulary_sizes(path, config, named, parts.artifacts))
    local = _with_local_files(config, named, _read_files(parts.artifacts, named, trust))
    jieba_dictionary.keep_private()
    try:
        with (
            unchanged_restore_state(),
            known_language_ids(),
            torch.random.fork_rng(devices=[]),
        ):  # models are built on the CPU
            model = _build(model_class, local)
            _load_weights(model, weights)
            _refuse_other_ids(model, config)
    except Exception as error:
        reason = error_line(error, 400)  # torch lists every tensor that is missing
        raise ArchiveError(f"{path} could not be opened as a translation model: {reason}{_fetched(config)}") from error
    for note in read.notes:
        logging.info(f"{path}: {plain_text(note, 300)}")
    logging.debug(f"opened {path}")
    return model.to(torch.device(map_location)).eval().requires_grad_(False)


def _take_weights_of_the_archive(config: DictConfig) -> None:
    """Have an encoder of Hugging Face built without other weights, which those of the archive would replace."""
    encoder = config.get("encoder")
    if OmegaConf.is_dict(encoder) and encoder.get("library") == HUGGING_FACE:
        encoder.update({key: None if key == "checkpoint_file" else False for key in _WEIGHTS_FROM if encoder.get(key)})


def _fetched(config: DictConfig) -> str:
    """Return what to do where a model cannot be built whose encoder's configuration NeMo fetches."""
    encoder = config.get("encoder") or {}
    if encoder.get("library") != HUGGING_FACE or not encoder.get("model_name"):
        return ""
    name = plain_text(encoder.get("model_name"))
    return (
        f". NeMo fetches the configuration of its encoder, {name}, from Hugging Face: it must be a name that this "
        "NeMo lists, and the network or transformers' cache must have it"
    )


def _model_class(path: str | Path, config: DictConfig) -> type[MTEncDecModel]:
    """Return the class that the archive names; another than those that are known only where that was allowed."""
    target = config.get("target")
    if target is None:
        return MTEncDecModel
    if str(target) in KNOWN_CLASSES:
        return _CLASSES[KNOWN_CLASSES[str(target)]]
    try:
        found = import_class_by_path(str(target))
    except (ImportError, AttributeError, ValueError) as error:
        warn(
            f"{path} names the class {plain_text(target)}, which cannot be imported ({plain_text(error)}): opened as "
            "MTEncDecModel"
        )
        return MTEncDecModel
    if not (inspect.isclass(found) and issubclass(found, MTEncDecModel)):
        raise ArchiveError(
            f"{path} names {plain_text(target)}, which is no translation model; give one of an MTEncDecModel"
        )
    return found


def _vocabulary_sizes(
    path: str | Path, config: DictConfig, named: dict[str, str], artifacts: dict[str, bytes]
) -> dict[str, int]:
    """Return the number of pieces on each side, after checking the tokenizers.

    Raises:
        ArchiveError: one is damaged.
    """
    sizes = {}
    for side in ("encoder", "decoder"):
        name = named.get(f"{side}_tokenizer.tokenizer_model")
        if name is None:
            continue
        try:
            library = config[f"{side}_tokenizer"].get("library", compat.DEFAULT_TOKENIZER_LIBRARY)
            sizes[side] = vocabulary_size(library, artifacts[name])
        except ValueError as error:
            raise ArchiveError(
                f"{path} is damaged: its {side} tokenizer cannot be read ({plain_text(error)})"
            ) from error
    return sizes


def _build(model_class: type[MTEncDecModel], config: DictConfig) -> MTEncDecModel:
    state = AppState()
    state.is_model_being_restored, state.nemo_file_folder = True, None
    OmegaConf.set_struct(config, True)
    return model_class(cfg=config)


def _load_weights(model: MTEncDecModel, weights: dict[str, torch.Tensor]) -> None:
    """Load all weights, and no others than the model has, which NeMo 2 would leave aside."""
    known = model.state_dict()
    spare = sorted(name for name in weights if name not in known and "position_ids" not in name)  # NeMo drops these
    if spare and type(model) in _CLASSES.values():  # a class of the user's own may load its weights in its own way
        raise ValueError(f"Unexpected key(s) in its weights: {', '.join(ascii(name)[:80] for name in spare[:5])}")
    model.load_state_dict({name: weights[name] for name in weights if name in known}, strict=not spare)


def _read_files(artifacts: dict[str, bytes], named: dict[str, str], trust: bool) -> dict[str, bytes]:
    """Return the files of an archive that a model reads: its tokenizers, and what a class of one's own may read."""
    return artifacts if trust else {name: artifacts[name] for name in named.values()}


def _refuse_other_ids(model: MTEncDecModel, config: DictConfig) -> None:
    """Refuse a one-to-many model whose language tokens have other ids here than where it was trained.

    NeMo 1 adds a missing start, end or padding token in front of those of the languages, NeMo 2 behind them.
    """
    line = str(config.get("nemo_version") or "").partition(".")[0]
    tokenizer = model.encoder_tokenizer
    added = [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id] if getattr(tokenizer, "legacy", False) else []
    size = getattr(tokenizer, "original_vocab_size", 0)
    tokens = getattr(model, "multilingual_lang_to_id", None) or {}
    if tokens and line.isdigit() and (line == "1") == compat.NEMO_2 and any(each >= size for each in added):
        raise ValueError(
            f"its tokens of {', '.join(tokens)} have other ids in this NeMo than in {config.nemo_version}, with which "
            f"it was saved; open it with NeMo {line}"
        )


def _with_local_files(config: DictConfig, named: dict[str, str], artifacts: dict[str, bytes]) -> DictConfig:
    """Write the tokenizers where the model finds them, also when it is saved; return a configuration with their paths.

    The directory is that of this process: it may be used by several models, and goes when the process ends.
    """
    paths = {}
    with reported_storage(temporary_place(), TEMPORARY_ADVICE):
        for name, content in artifacts.items():
            directory = _private_directory().path / hashlib.sha256(content).hexdigest()[:32]
            directory.mkdir(mode=0o700, exist_ok=True)
            paths[name] = directory / re.sub(r"^([0-9a-f]{32}_)+", "", name)  # what NeMo puts in front at each saving
            with atomic_path(paths[name]) as partial:  # another model may have it open
                partial.write_bytes(content)
    config = OmegaConf.create(_with_paths(OmegaConf.to_container(config), paths))
    for key, name in named.items():
        OmegaConf.update(config, key, str(paths[name]))
    return config


def _with_paths(value: Any, paths: dict[str, Path]) -> Any:
    """Return plain data in which every `nemo:NAME` is the path of that file."""
    if isinstance(value, dict):
        return {key: _with_paths(item, paths) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_paths(item, paths) for item in value]
    if isinstance(value, str) and value.removeprefix("nemo:") in paths and value.startswith("nemo:"):
        return str(paths[value.removeprefix("nemo:")])
    return value


@cache
def _private_directory() -> TemporaryDirectory:
    """Return a directory that only this user reads, for the life of this process."""
    return TemporaryDirectory()


def extract_tokenizers(
    path: str | Path, directory: str | Path, trust: bool | None = None, sha256: str | None = None
) -> dict[str, dict[str, str]]:
    """Copy the tokenizer models out of a `.nemo` archive, so that a student can be trained with them.

    Args:
        path: a `.nemo` archive.
        directory: gets `encoder.model` and `decoder.model`.
        trust: see `restore_model`.
        sha256: what the file must have, see `archive_sha256`.

    Returns:
        For `encoder` and `decoder`: the keys of the model section's tokenizer, `library` and `tokenizer_model`.

    Raises:
        ArchiveError: as `read_archive_config`.
        InputError: the archive's tokenizers are not files in it.
    """
    trust = is_trusted(trust)
    parts = read_parts(path, weights=False, sha256=sha256)
    read = read_config(path, parts, trust)
    config, named = read.model, read.named
    if not trust:
        _vocabulary_sizes(path, config, named, parts.artifacts)
    tokenizers = {}
    for side in ("encoder", "decoder"):
        tokenizer = config.get(f"{side}_tokenizer") or {}
        name = named.get(f"{side}_tokenizer.tokenizer_model")
        if name is None:
            raise InputError(
                f"{path} holds no {side} tokenizer model (library {plain_text(tokenizer.get('library'))}); set "
                f"model.{side}_tokenizer of the student by hand"
            )
        tokenizers[side] = (tokenizer.get("library", compat.DEFAULT_TOKENIZER_LIBRARY), parts.artifacts[name])
    found = {}
    for side, (library, content) in tokenizers.items():
        target = Path(directory) / f"{side}.model"
        with reported_storage(target), atomic_path(target) as partial:
            partial.write_bytes(content)
        found[side] = {"library": library, "tokenizer_model": str(target)}
    return found
