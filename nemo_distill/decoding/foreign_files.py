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
"""The directory of a model that is not NeMo's: which files count, their hashes, and a copy that is safe to open.

What lies in such a directory may come from anywhere. Only files that are known by name are read, through the guards;
what a library then opens is a private copy that holds nothing else, without settings that name other files or code.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_distill.archives.reader import ArchiveLimits, is_trusted
from nemo_distill.decoding.export_record import EXPORT_NAME
from nemo_distill.errors import InputError
from nemo_distill.support.files import sha256
from nemo_distill.support.incoming import open_regular, parse_json, read_bytes, state
from nemo_distill.support.tokenizer_guard import TOKENIZER_BYTES, vocabulary_size

CONFIG, TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"
FAMILIES = {
    "marian": "Marian, OPUS-MT",
    "m2m_100": "M2M-100, NLLB",
    "mbart": "mBART",
    "t5": "T5",
    "mt5": "mT5",
}
"""What of `transformers` translates and converts to CTranslate2, by `model_type`."""
SENTENCEPIECE = ("source.spm", "target.spm", "spiece.model", "sentencepiece.bpe.model")
_TOKENIZER = (
    TOKENIZER_CONFIG,
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    *SENTENCEPIECE,
)
_VOCABULARY = re.compile(r"(source|target|shared)_vocabulary\.(json|txt)")
_INDEX = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_PICKLED = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin")
_WEIGHTS = re.compile(rf"model(-\d{{5}}-of-\d{{5}})?\.safetensors|{_PICKLED.pattern}")
# Of a tokenizer's settings those that change text. Others name files, classes or templates.
_SETTINGS = re.compile(
    r"(bos|eos|unk|pad|sep|cls|mask)_token|additional_special_tokens|added_tokens_decoder|extra_special_tokens|"
    r"(source|target|src|tgt)_lang|language_codes|num_madeup_words|separate_vocabs|model_max_length|legacy|"
    r"legacy_behaviour|extra_ids|clean_up_tokenization_spaces|add_prefix_space|spaces_between_special_tokens|"
    r"split_special_tokens|add_(bos|eos)_token"
)


@dataclass(frozen=True)
class ForeignModel:
    """A model directory as it was found; nothing of it is loaded yet."""

    path: Path
    kind: str
    """`export`: of this library; `ctranslate2`: converted by somebody else; `transformers`."""
    files: Mapping[str, str]
    """SHA-256 of each file that counts, by its name."""
    bytes: int
    """Of these files."""
    config: Mapping[str, Any]
    """`config.json`."""
    small: Mapping[str, bytes] = field(repr=False)
    """Content of the files of settings and tokenizers."""
    states: Mapping[str, tuple] = field(repr=False)

    @property
    def sha256(self) -> str:
        """One hash of all files."""
        return hashlib.sha256(json.dumps(sorted(self.files.items())).encode()).hexdigest()

    @property
    def family(self) -> str:
        """The `model_type` of `transformers`, or the kind."""
        return self.config["model_type"] if self.kind == "transformers" else self.kind

    @property
    def weights(self) -> list[Path]:
        """The files of weights of a model of `transformers`."""
        return [self.path / name for name in self.files if _WEIGHTS.fullmatch(name)]

    def settings(self, name: str) -> dict[str, Any]:
        """Return the object in a file of settings, an empty one where the file is not there."""
        return _object(self.path / name, self.small[name]) if name in self.small else {}

    def check_unchanged(self) -> None:
        """Compare the files with what they were.

        Raises:
            InputError: one has changed.
        """
        for name, before in self.states.items():
            if not os.path.exists(self.path / name) or state(self.path / name) != before:
                raise InputError(f"'{self.path / name}' has changed while it was in use; run the command again")

    def stage(self, directory: Path) -> None:
        """Write what a tokenizer and CTranslate2 read into a private directory; large files are linked."""
        for name, content in self.small.items():
            if name == TOKENIZER_CONFIG:
                known = {key: value for key, value in self.settings(name).items() if _SETTINGS.fullmatch(key)}
                content = json.dumps(known).encode()
            (directory / name).write_bytes(content)
        if self.kind == "ctranslate2":
            (directory / "model.bin").symlink_to((self.path / "model.bin").resolve())


def is_foreign(path: str | os.PathLike) -> bool:
    """Return whether a path is that of a model that is no `.nemo` archive: a directory."""
    return os.path.isdir(path)


def check_foreign(paths: Sequence[str | os.PathLike], engine: str) -> None:
    """Refuse directories of models that are not NeMo's where one of them cannot decode.

    Raises:
        InputError: it is not alone, or the engine is `nemo`.
    """
    foreign = next(path for path in paths if is_foreign(path))
    if len(paths) > 1:
        raise InputError(
            f"'{foreign}' is no .nemo archive; probabilities are averaged over .nemo archives alone: give one teacher"
        )
    if engine == "nemo":
        raise InputError(f"engine is 'nemo', but '{foreign}' is no .nemo archive; leave the engine out")


def read_foreign(path: str | os.PathLike, digest: str | None = None) -> ForeignModel:
    """Look at a model directory, and hash its files.

    Args:
        path: of the directory.
        digest: what `ForeignModel.sha256` must be.

    Raises:
        InputError: it is none that can be decoded here, lacks a file, names code, or has files that are no regular
            ones, damaged or too large; weights are pickled, and the model is not trusted; other files than `digest`.
    """
    path = Path(path)
    names = _names(path)
    kind = _kind(path, names)
    if kind == "transformers":
        _check_config(path, _object(path / CONFIG, _read(path / CONFIG)))
    wanted = sorted({EXPORT_NAME, "model.bin"} if kind == "export" else _wanted(path, kind, names))
    content = {name: _read(path / name) for name in wanted if not _is_large(name)}
    hashes = {name: hashlib.sha256(each).hexdigest() for name, each in content.items()}
    before = {name: _state(path / name) for name in wanted}
    total = sum(each[0] for each in before.values())
    if total > ArchiveLimits.from_environment().total:
        raise InputError(f"'{path}' is refused: larger than a model may be (NEMO_DISTILL_MAX_ARCHIVE_GB)")
    config = {} if kind == "export" else _object(path / CONFIG, content[CONFIG])
    hashes |= {name: sha256(path / name) for name in wanted if name not in hashes}
    found = ForeignModel(path, kind, dict(sorted(hashes.items())), total, config, content, before)
    found.check_unchanged()
    if "auto_map" in config or "auto_map" in found.settings(TOKENIZER_CONFIG):
        raise InputError(f"'{path}' names code of its own (auto_map), which never runs here; use a model without")
    if digest is not None and found.sha256 != digest:
        raise InputError(f"'{path}' has changed while it was in use; run the command again")
    return found


def _names(path: Path) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}); check the path") from error


def foreign_kind(path: Path) -> str:
    """Return what kind of model a directory is, by the names of its files; see `ForeignModel.kind`.

    Raises:
        InputError: of none that can be decoded here.
    """
    return _kind(path, _names(path))


def _kind(path: Path, names: list[str]) -> str:
    if EXPORT_NAME in names:
        return "export"
    if "adapter_config.json" in names and "model.bin" not in names:
        raise InputError(
            f"'{path}' holds an adapter (adapter_config.json), which is no whole model; merge it into its base model "
            "(peft: merge_and_unload) and save that"
        )
    if CONFIG not in names and "snapshots" in names:
        raise InputError(
            f"'{path}' is a place in the cache of Hugging Face; give the directory of one of its snapshots: "
            f"'{path}/snapshots/...'"
        )
    if CONFIG not in names:
        raise InputError(
            f"'{path}' is a directory without {CONFIG}, so no model; give a .nemo archive, or the directory of a "
            "model of CTranslate2 (model.bin) or transformers"
        )
    return "ctranslate2" if "model.bin" in names else "transformers"


def _is_large(name: str) -> bool:
    return name == "model.bin" or _WEIGHTS.fullmatch(name) is not None


def _wanted(path: Path, kind: str, names: list[str]) -> Iterator[str]:
    """Yield the names of the files that are read."""
    tokenizer = [name for name in names if name in _TOKENIZER]
    if not {"tokenizer.json", *SENTENCEPIECE} & set(tokenizer):
        raise InputError(
            f"'{path}' has no tokenizer (tokenizer.json, {', '.join(SENTENCEPIECE)}); copy the files of the original "
            "model into it, as `ct2-transformers-converter --copy_files` does"
        )
    yield from [CONFIG, *tokenizer]
    if kind == "ctranslate2":
        yield from ["model.bin", *filter(_VOCABULARY.fullmatch, names)]
        if "vmap.txt" in names:
            raise InputError(f"'{path}' has a vocabulary map (vmap.txt), which is not read here; convert without it")
        return
    if "generation_config.json" in names:
        yield "generation_config.json"
    for single, index in zip(("model.safetensors", "pytorch_model.bin"), _INDEX, strict=True):
        found = [single] if single in names else list(_shards(path, index)) if index in names else []
        pickled = next(filter(_PICKLED.fullmatch, found), None)
        if pickled and not is_trusted(None):
            raise InputError(
                f"'{path}' has its weights in a pickle ({pickled}), which can run code; give model.safetensors, or "
                "--trust-archive where the model is your own"
            )
        if found:
            yield from found if found == [single] else [index, *found]
            return
    raise InputError(f"'{path}' has no weights (model.safetensors); give a whole model")


def _shards(path: Path, index: str) -> Iterator[str]:
    """Yield the files of weights that an index names."""
    listed = _object(path / index, _read(path / index)).get("weight_map")
    shards = sorted(set(map(str, listed.values()))) if isinstance(listed, dict) else []
    if not shards or not all(map(_WEIGHTS.fullmatch, shards)):
        raise InputError(f"'{path / index}' lists no files of weights; fetch the model again")
    yield from shards


def _state(path: Path) -> tuple[int, ...]:
    with open_regular(path) as stream:
        return state(stream.fileno())


def _read(path: Path) -> bytes:
    """Return the content of a small file, made sure of by its kind.

    Raises:
        InputError: it is no regular file, too large or damaged.
    """
    content = read_bytes(path, TOKENIZER_BYTES)
    try:
        if path.suffix == ".json":
            parse_json(content)
        elif path.suffix == ".txt":
            content.decode()
        elif path.name in SENTENCEPIECE:
            vocabulary_size("sentencepiece", content)
    except ValueError as error:
        raise InputError(f"'{path}' is damaged ({error}); fetch it again") from error
    return content


def _object(path: Path, content: bytes) -> dict[str, Any]:
    found = parse_json(content)
    if not isinstance(found, dict):
        raise InputError(f"'{path}' holds no JSON object; fetch it again")
    return found


def _check_config(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse a configuration of `transformers` that is not of a known family, or asks for what no machine holds."""
    family = config.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        known = ", ".join(f"{key} ({names})" for key, names in FAMILIES.items())
        raise InputError(
            f"'{path / CONFIG}': model_type is {str(family)[:80]!r}, which is not decoded here; the known ones are "
            f"{known}, and any model that is converted to CTranslate2"
        )
    if config.get("quantization_config") is not None:
        raise InputError(f"'{path / CONFIG}': quantization_config: quantized weights do not convert; give plain ones")
    for key, value in config.items():
        most = 1000 if re.search(r"layers|heads", key) else 1 << 14 if "position" in key else 1 << 22
        if type(value) is int and value > most and re.search(r"layers|heads|size|dim|d_|position|buckets", key):
            raise InputError(f"'{path / CONFIG}': {key} is {value}, which no such model has")
