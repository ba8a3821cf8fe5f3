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
"""What an archive's configuration and tokenizers may say: plain data that describes one translation model."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader

from nemo_distill.archives.generations import TOKENIZER_SECTIONS, latents_look_back, member_of, say_old_meanings
from nemo_distill.archives.reader import CONFIG_MEMBER, ArchiveParts
from nemo_distill.archives.values import hugging_face_faults, used, value_faults
from nemo_distill.config.model_widths import HUGGING_FACE
from nemo_distill.errors import ArchiveError
from nemo_distill.support import compat
from nemo_distill.support.incoming import check_yaml
from nemo_distill.support.quoting import plain_text

STOCK, BOTTLENECK = "MTEncDecModel", "MTBottleneckModel"
_PLACE = "nemo.collections.nlp.models"
# Every name that one of these classes was ever saved by, and what opens it.
KNOWN_CLASSES = {
    f"{_PLACE}.MTEncDecModel": STOCK,
    f"{_PLACE}.machine_translation.MTEncDecModel": STOCK,
    f"{_PLACE}.machine_translation.mt_enc_dec_model.MTEncDecModel": STOCK,
    f"{_PLACE}.MTBottleneckModel": BOTTLENECK,
    f"{_PLACE}.machine_translation.MTBottleneckModel": BOTTLENECK,
    f"{_PLACE}.machine_translation.mt_enc_dec_bottleneck_model.MTBottleneckModel": BOTTLENECK,
    "nemo_distill.DistilledMTEncDecModel": STOCK,
    "nemo_distill.model.DistilledMTEncDecModel": STOCK,
    "nemo_distill.DistilledMTBottleneckModel": BOTTLENECK,
    "nemo_distill.model.DistilledMTBottleneckModel": BOTTLENECK,
}
DATASET_SECTIONS = ("train_ds", "validation_ds", "test_ds")
"""What is never read of an archive: whoever opens a model brings data of their own."""
_LIBRARIES = ("yttm", "sentencepiece", "byte-level")
_ARTIFACT_KEYS = ("tokenizer_model", "vocab_file")
_RUNNABLE = {"_target_", "cls", "params"}
_INTERPOLATED = 16 << 10
"""Most characters of all interpolations of an archive that is trusted."""
_TRUST = ". If you made this file yourself, say so: trust_archive: true, or --trust-archive"


@dataclass
class ArchiveConfig:
    """What an archive says of its model."""

    model: DictConfig
    """The `model` section: of an archive that is not trusted, what is used of it and nothing else."""
    named: dict[str, str]
    """The member behind each key that names one, as `encoder_tokenizer.tokenizer_model`."""
    notes: list[str] = field(default_factory=list)
    """For the log: what was taken where the archive does not say it, or says it in another release's words."""


def read_config(path: Any, parts: ArchiveParts, trust: bool) -> ArchiveConfig:
    """Read a model configuration as plain data.

    What neither NeMo nor this library reads of it, the optimizer and the data of its training among it, cannot do
    anything, and is dropped before anything is checked. What older releases of NeMo left unsaid is said.

    Args:
        path: of the archive, for messages.
        parts: of the archive.
        trust: whether it may name classes to instantiate and interpolations to resolve; they may refer to, and a
            class of one's own may read, all but `DATASET_SECTIONS`.

    Raises:
        ArchiveError: no YAML mapping; tags, anchors; a value of a wrong type or out of its range, see `values`; a
            tokenizer that is not in the archive; a model that no newer NeMo computes as the one that wrote it;
            without trust: anything that NeMo or hydra would run.
    """
    try:
        decoded = parts.config.decode("utf-8")
        check_yaml(decoded)
        plain = yaml.load(decoded, Loader=get_yaml_loader())  # a safe one, to which 1e-5 is a number
    except Exception as error:  # of YAML, of recursion
        raise _unreadable(path, error) from error
    if not isinstance(plain, dict):
        raise ArchiveError(f"{path} is not a .nemo model: its {CONFIG_MEMBER} is not a mapping")
    notes = say_old_meanings(plain, parts.artifacts, is_bottleneck(plain))
    plain = {key: value for key, value in plain.items() if key not in DATASET_SECTIONS} if trust else used(plain)
    _drop_unread_files(plain)
    # before OmegaConf sees them, which takes a second for 16 KB of interpolations
    faults = _long_interpolations(plain) if trust else configuration_faults(plain)
    if faults:
        raise ArchiveError(f"{path} is refused: in its {CONFIG_MEMBER}, {_shown(faults)}{'' if trust else _TRUST}")
    try:
        config = OmegaConf.create(plain)
    except Exception as error:  # of OmegaConf's grammar
        raise _unreadable(path, error) from error
    plain = _resolved(config, plain) if trust else plain
    _check_values(path, plain)
    if latents_look_back(plain):
        raise ArchiveError(
            f"{path} is refused: NeMo up to 1.5, which wrote it, let each latent of a perceiver see earlier ones "
            "only, and newer NeMo computes otherwise; use it with NeMo 1.5, or train it anew"
        )
    return ArchiveConfig(config, name_artifacts(path, config, parts.artifacts), notes)


def _drop_unread_files(plain: Mapping[str, Any]) -> None:
    """Drop the vocabulary of tokenizers that have none, in place: a path of the machine that trained them."""
    for key in TOKENIZER_SECTIONS:
        section = plain.get(key)
        if isinstance(section, dict) and section.get("library") in _LIBRARIES:
            section.pop("vocab_file", None)


def _unreadable(path: Any, error: Exception) -> ArchiveError:
    reason = f"its {CONFIG_MEMBER} cannot be read ({plain_text(f'{type(error).__name__}: {error}', 300)})"
    return ArchiveError(f"{path} is not a .nemo model: {reason}. Give a file written by `model.save_to`")


def _shown(faults: Sequence[str]) -> str:
    return "; ".join(plain_text(fault, 300) for fault in faults[:5])


def _check_values(path: Any, plain: Mapping[str, Any]) -> None:
    faults = list(value_faults(plain, str(plain.get("target") or f"{_PLACE}.MTEncDecModel") in KNOWN_CLASSES))
    if faults:
        raise ArchiveError(
            f"{path} is refused: in its {CONFIG_MEMBER}, {_shown(faults)}. Correct these values, also in "
            "a file that you trust, or get it from another source"
        )


def _resolved(config: DictConfig, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with its interpolations resolved, part by part, where they can be."""
    found = dict(plain)
    for key in plain:
        with contextlib.suppress(Exception):  # of a part that may not be used
            value = config.get(key)
            found[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return found


def is_bottleneck(config: Mapping[str, Any]) -> bool:
    """Return whether a model reads a latent representation in place of the encoder's states."""
    return KNOWN_CLASSES.get(str(config.get("target"))) == BOTTLENECK


def configuration_faults(plain: Mapping[str, Any]) -> list[str]:
    """Return a fault for everything in a model's configuration that is more than data of one translation model."""
    return [*_runnable_values(_without_known_target(plain)), *_foreign_parts(plain)]


def _without_known_target(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a configuration without the class of an encoder of Hugging Face, which is judged by itself."""
    encoder = plain.get("encoder")
    if not (isinstance(encoder, Mapping) and encoder.get("library") == HUGGING_FACE):
        return plain
    return {**plain, "encoder": {key: value for key, value in encoder.items() if key != "_target_"}}


def _runnable_values(plain: Any, where: str = "") -> Iterator[str]:
    """Yield a fault for everything that NeMo, hydra, OmegaConf or webdataset would run."""
    if isinstance(plain, Mapping):
        for key, value in plain.items():
            inner = f"{where}.{key}".lstrip(".")
            if key in _RUNNABLE or (key == "target" and where):
                yield f"{inner[:120]} names something to run"
            yield from _runnable_values(value, inner)
            yield from _runnable_values(str(key), inner)
    elif isinstance(plain, list):
        for index, value in enumerate(plain):
            yield from _runnable_values(value, f"{where}[{index}]")
    elif isinstance(plain, str):
        if "${" in plain:
            yield f"{where[:120]} is an interpolation, {plain[:80]!r}"
        if re.search(r"(^|[\s,\[(])pipe:", plain):
            yield f"{where[:120]} is a command, {plain[:80]!r}"


def _long_interpolations(plain: Any) -> list[str]:
    length, level = 0, [plain]
    while level:
        node = level.pop()
        if isinstance(node, Mapping):
            level += [*node.keys(), *node.values()]
        elif isinstance(node, list):
            level += node
        elif isinstance(node, str) and "${" in node:
            length += len(node)
    return [f"interpolations have {length} characters, more than {_INTERPOLATED}"] if length > _INTERPOLATED else []


def _foreign_parts(plain: Mapping[str, Any]) -> Iterator[str]:
    """Yield a fault for everything that comes from elsewhere than NeMo's own translation models and the archive."""
    target = plain.get("target")
    if target is not None and str(target) not in KNOWN_CLASSES:
        yield f"target is {str(target)[:120]!r}, which is no class of NeMo's translation models"
    for key in ("language_model", "tokenizer"):
        if plain.get(key):
            yield f"{key} names another model"
    for key in ("encoder", "decoder"):
        part = plain.get(key)
        if part is None:
            continue
        if not isinstance(part, Mapping):
            yield f"{key} is no section"
        elif part.get("library") == HUGGING_FACE and key == "encoder":
            yield from hugging_face_faults(part)
        elif part.get("library") not in (None, "nemo") or any(
            part.get(name) for name in ("model_name", "pretrained", "checkpoint_file")
        ):
            yield f"{key} is a model of another library or file"
    for key in TOKENIZER_SECTIONS:
        section = plain.get(key)
        if section is None:
            continue
        if not isinstance(section, Mapping):
            yield f"{key} is no section"
        elif section.get("library", compat.DEFAULT_TOKENIZER_LIBRARY) not in _LIBRARIES:
            yield f"{key}.library is {str(section.get('library'))[:80]!r}, none of {', '.join(_LIBRARIES)}"


def name_artifacts(path: Any, config: DictConfig, artifacts: Mapping[str, bytes]) -> dict[str, str]:
    """Return the member behind each key of the configuration that names one, as `encoder_tokenizer.tokenizer_model`.

    Raises:
        ArchiveError: it is not in the archive.
    """
    found = {}
    for section in TOKENIZER_SECTIONS:
        for key in _ARTIFACT_KEYS:
            value = OmegaConf.select(config, f"{section}.{key}")
            if value is None or value == "":
                continue
            name = member_of(value)
            if name not in artifacts:
                raise ArchiveError(
                    f"{path} is refused: {section}.{key} is {str(value)[:120]!r}, and no such file is in the archive; "
                    "only its own files are read"
                )
            found[f"{section}.{key}"] = name
    return found
