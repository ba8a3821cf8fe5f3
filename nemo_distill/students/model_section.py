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
"""The YAML file of a student: what it may say, read as plain data before anything is built from it."""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import psutil
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_distill.archives.config import DATASET_SECTIONS, configuration_faults
from nemo_distill.archives.reader import is_trusted
from nemo_distill.errors import InputError
from nemo_distill.support.incoming import read_yaml_text
from nemo_distill.support.quoting import error_line, plain_text, size_text
from nemo_distill.support.temporary import TemporaryDirectory

# Of the teacher's own configuration, and of the student's: what belongs to training, not to what a model is.
NOT_TAKEN = (*DATASET_SECTIONS, "target", "nemo_version", "distillation")
MOST_LAYERS = 1000
_SIZES = ("hidden_size", "inner_size", "num_layers", "num_attention_heads", "max_sequence_length")
_FURTHER_SIZES = ("num_token_types", "hidden_steps", "hidden_blocks")
_YAML_BYTES = 256 << 10
_MOST_FILES = 64
_SEGMENT = re.compile(r"[\w-][\w.-]*")
_REFERENCE = re.compile(r"\$\{[\w.\[\]-]+\}")
_MISSING = "???"


def read_model_section(path: str | Path) -> tuple[DictConfig, str]:
    """Return the model section of a YAML file, without data sets, tokenizers and distillation, every value known.

    The file, and those of its directory that its `defaults` name, are plain data: values may refer to other keys, but
    nothing is computed, read from the environment, instantiated or searched for elsewhere.

    Args:
        path: of the file.

    Returns:
        The section, and a SHA-256 of the files that it was read from.

    Raises:
        InputError: no such file, no YAML mapping, more than plain data, or a value that cannot be resolved.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"'{path}' does not exist; give the YAML file of the student's model")
    texts = _read_texts(path)
    try:
        config = OmegaConf.create(texts[f"{path.stem}.yaml"])
        if "defaults" in config:
            config = _composed(path.stem, texts)
        plain = OmegaConf.to_container(config)  # without hydra's flags
        whole = plain if "model" in plain else {"model": plain}
        if not isinstance(whole["model"], dict):
            raise InputError(f"'{path}': its `model` is no mapping; give a model section")
        for key in (*NOT_TAKEN, "encoder_tokenizer", "decoder_tokenizer", "hydra", "defaults"):
            whole["model"].pop(key, None)
        _refuse(path, _value_faults(whole["model"], ""))
        whole = {key: value if key == "model" else _without_computed(value) for key, value in whole.items()}
        section = _resolved(whole["model"], "model", OmegaConf.create(whole))
        _refuse(path, [] if is_trusted(None) else configuration_faults(section))
    except InputError:
        raise
    except (OmegaConfBaseException, ValueError) as error:
        raise InputError(f"'{path}' has no value for a key: {error_line(error, 400)}") from error
    except Exception as error:  # of hydra, of recursion
        raise InputError(f"'{path}' cannot be read as a configuration: {error_line(error, 400)}") from error
    digest = hashlib.sha256()
    for name, text in sorted(texts.items()):
        digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(text.encode()).digest())
    return OmegaConf.create(section), digest.hexdigest()


def _read_texts(path: Path) -> dict[str, str]:
    """Return the texts of a YAML file and of those that its `defaults` lead to, by their names in its directory."""
    texts: dict[str, str] = {}
    waiting = [f"{path.stem}.yaml"]
    while waiting:
        name = waiting.pop()
        place = path.parent / name if texts else path
        if name in texts or (texts and not place.exists()):
            continue  # hydra's own, or missing, of which hydra says so
        if len(texts) == _MOST_FILES:
            raise InputError(f"'{path}' is refused: its `defaults` lead to more than {_MOST_FILES} files")
        texts[name] = read_yaml_text(place, _YAML_BYTES)
        content = yaml.safe_load(texts[name])
        if content is None:
            content = {}
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise InputError(f"'{place}' is no mapping; give a model section, such as `encoder: {{num_layers: 3}}`")
        hydra = content.get("hydra")
        if isinstance(hydra, dict) and hydra.get("searchpath") is not None:
            raise InputError(f"'{place}' is refused: hydra.searchpath leads to other places; put all files beside it")
        waiting += _defaults(place, PurePosixPath(name).parent, content.get("defaults", []))
    return texts


def _defaults(path: Path, group: PurePosixPath, defaults: Any) -> Iterator[str]:
    """Yield the files that a `defaults` list names, after making sure that they are in the directory."""
    if not isinstance(defaults, list):
        raise InputError(f"'{path}' is refused: its `defaults` are no list")
    for item in defaults:
        pairs = item.items() if isinstance(item, dict) else [("", item)]
        for key, values in pairs:
            key = re.sub(r"^(override |optional )+", "", str(key)).partition("@")[0]
            for value in values if isinstance(values, list) else [values]:
                if value is None or value == "_self_":
                    continue
                name = f"{key}/{str(value).partition('@')[0]}".lstrip("/") if key else str(value).partition("@")[0]
                place = name.removesuffix(".yaml").removeprefix("/")
                if not all(_SEGMENT.fullmatch(part) for part in place.split("/")):
                    shown = f"{plain_text(name)!r}; name files of its own directory"
                    raise InputError(f"'{path}' is refused: its `defaults` name {shown}")
                base = PurePosixPath() if name.startswith("/") or str(key).startswith("/") else group
                yield f"{base / place}.yaml"


def _composed(name: str, texts: Mapping[str, str]) -> DictConfig:
    """Compose the files with hydra in a directory that holds these alone."""
    with TemporaryDirectory() as directory:
        for place, text in texts.items():
            (directory / place).parent.mkdir(parents=True, exist_ok=True)
            (directory / place).write_text(text, "utf-8")
        with initialize_config_dir(str(directory), version_base=None):
            return compose(name)


def _value_faults(value: Any, where: str) -> Iterator[str]:
    """Yield a fault for each value that would be computed rather than read, and each number that is none."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _value_faults(item, f"{where}.{key}".lstrip("."))
            yield from _value_faults(key, f"{where}.{key}".lstrip(".")) if isinstance(key, str) else ()
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _value_faults(item, f"{where}[{place}]")
    elif isinstance(value, str) and "${" in value and not _REFERENCE.fullmatch(value):
        yield f"{where} is computed, {value[:80]!r}; write the value"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{where} is {value}; give a finite number"


def _without_computed(value: Any) -> Any:
    """Return another section of the file, which only references lead to, without what would be computed."""
    if isinstance(value, Mapping):
        return {key: _without_computed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_computed(item) for item in value]
    return _MISSING if any(True for _ in _value_faults(value, "")) else value


def _resolved(value: Any, where: str, whole: DictConfig) -> Any:
    """Return the values with those that their references lead to: values, no sections, which could be a bomb.

    Raises:
        ValueError: one leads to none.
    """
    if isinstance(value, Mapping):
        return {key: _resolved(item, f"{where}.{key}", whole) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, f"{where}[{place}]", whole) for place, item in enumerate(value)]
    if value == _MISSING:
        raise ValueError(f"{where} is {_MISSING}")
    if not (isinstance(value, str) and _REFERENCE.fullmatch(value)):
        return value
    key = value[2:-1]
    up = len(key) - len(key.lstrip("."))
    absolute = ".".join([*where.split(".")[:-up], key.lstrip(".")]) if up else key
    found = OmegaConf.select(whole, absolute, default=_MISSING, throw_on_missing=True)
    if isinstance(found, DictConfig | ListConfig) or found == _MISSING:
        raise ValueError(f"{where} refers to {absolute!r}, where no value is")
    return found


def _refuse(path: Path, faults: Iterable[str]) -> None:
    shown = [plain_text(fault) for _, fault in zip(range(5), faults, strict=False)]
    if shown:
        raise InputError(f"'{path}' is refused: {'; '.join(shown)}")


def size_faults(section: DictConfig, vocabulary: Mapping[str, int]) -> list[str]:
    """Return a fault for each size that is none, or for a model that this machine cannot hold.

    Args:
        section: of the model.
        vocabulary: number of pieces of `encoder` and `decoder`.
    """
    faults, needed = [], 0
    for side in ("encoder", "decoder"):
        sizes = {key: section.get(side, {}).get(key) for key in _SIZES}
        limits = dict.fromkeys(_SIZES, 1 << 31) | {"num_layers": MOST_LAYERS}
        wrong = [
            f"{side}.{key} is {plain_text(value, 40)}, no whole number from 1 to {limits[key]}"
            for key, value in sizes.items()
            if type(value) is not int or not 0 < value <= limits[key]
        ]
        more = {key: section.get(side, {}).get(key) or 0 for key in _FURTHER_SIZES}
        wrong += [
            f"{side}.{key} is {plain_text(value, 40)}, no whole number from 0 to {1 << 31}"
            for key, value in more.items()
            if type(value) is not int or not 0 <= value <= 1 << 31
        ]
        faults += wrong
        if not wrong:
            hidden, inner = sizes["hidden_size"], sizes["inner_size"]
            layer = (4 if side == "encoder" else 8) * hidden * hidden + 2 * hidden * inner
            rows = vocabulary[side] + sizes["max_sequence_length"] + more["num_token_types"] + more["hidden_steps"]
            needed += (sizes["num_layers"] + more["hidden_blocks"]) * layer + rows * hidden
    layers = section.get("head", {}).get("num_layers", 1)
    if type(layers) is not int or not 1 <= layers <= MOST_LAYERS:
        faults.append(f"head.num_layers is {plain_text(layers, 40)}, no whole number from 1 to {MOST_LAYERS}")
    elif not faults:
        needed += (layers - 1) * section.decoder.hidden_size**2
    memory = psutil.virtual_memory().total
    if 4 * needed > memory:
        faults.append(
            f"it has {needed:,} weights at least, more than this machine's {size_text(memory)} of memory hold"
        )
    return faults
