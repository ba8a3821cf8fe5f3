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
"""Models of `transformers` to CTranslate2, and what a converted model says of itself."""

import math
import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from ctranslate2.converters import TransformersConverter
from nemo.utils import logging

from nemo_distill.archives.values import LONGEST
from nemo_distill.decoding.export_record import read_export
from nemo_distill.decoding.foreign_files import ForeignModel
from nemo_distill.decoding.foreign_text import quiet_transformers
from nemo_distill.errors import ConversionError, InputError
from nemo_distill.support.incoming import open_regular, read_json
from nemo_distill.support.quoting import plain_text
from nemo_distill.support.tokenizer_guard import TOKENIZER_BYTES

_TYPE_NAMES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
"""CTranslate2's types by their numbers in model.bin."""
_MOST_VARIABLES, _MOST_NAME = 100_000, 1000
_POSITIONS = "position_encodings/encodings"
_WAVE = 5 * 2.0**-8
"""What a wave's values may be out by, of the column's length: the rounding of bfloat16 and a little more."""
_NO_WEIGHTS = re.compile(r"_(scale|zero)$")


@dataclass(frozen=True)
class Converted:
    """What a model of CTranslate2 says of itself."""

    vocabularies: tuple[Sequence[str], Sequence[str]]
    """Source and target tokens by their ids."""
    longest_source: int
    longest_target: int
    starts_with_prefix: bool
    """The first token of the target prefix stands in the place of a start token, as the language in mBART-25."""
    quantization: str


def convert_transformers(model: ForeignModel, tokenizer: Any, files: Path, quantization: str) -> Path:
    """Convert a model with CTranslate2's own converter, into a directory beside its files.

    Args:
        model: the directory, of `transformers`.
        tokenizer: of `open_tokenizer`.
        files: the private copy of its small files.
        quantization: of the weights.

    Returns:
        The directory of the converted model.

    Raises:
        InputError: the weights are damaged, or not those that the configuration asks for.
        ConversionError: CTranslate2 cannot convert the model.
    """
    place = files.with_name("model")
    logging.info(f"converting {model.path.name}, a model of transformers ({model.family}), to CTranslate2")
    try:
        _Converter(model, tokenizer, files).convert(str(place), quantization=quantization)
    except (InputError, OSError, MemoryError):
        raise
    except Exception as error:  # of transformers and the converter, whatever the configuration
        raise ConversionError(
            f"'{model.path}' does not convert to CTranslate2 ({plain_text(f'{type(error).__name__}: {error}', 300)})"
        ) from error
    return place


class _Converter(TransformersConverter):
    """CTranslate2's converter, with weights and tokenizer opened by us: it would ask the network and read pickles."""

    def __init__(self, model: ForeignModel, tokenizer: Any, files: Path) -> None:
        super().__init__(str(files))
        self._model, self._tokenizer = model, tokenizer

    def _load(self):
        spec = super()._load()
        if spec.config.bos_token is None:  # mBART-50 has none and needs none, but CTranslate2 reads one
            spec.config.bos_token = spec.config.eos_token
        return spec

    def load_tokenizer(self, tokenizer_class, model_name_or_path, **kwargs):
        return self._tokenizer

    def load_model(self, model_class, model_name_or_path, config, **kwargs):
        self._mend(config)
        state = _read_weights(self._model)
        _check_shapes(self._model, model_class, config, state)
        with quiet_transformers():
            found, report = model_class.from_pretrained(
                None, config=config, state_dict=state, torch_dtype=torch.float32, output_loading_info=True
            )
        if wrong := [*report["missing_keys"], *report["mismatched_keys"]]:
            raise InputError(
                f"'{self._model.path}': the weights lack what the configuration asks for ({str(wrong[0])[:200]}); "
                "fetch the model again"
            )
        return found.eval()

    def _mend(self, config: Any) -> None:
        """Give the converter what it reads of a configuration and what `transformers` itself takes for granted."""
        family = self._model.family
        if family == "marian":
            last = config.vocab_size - 1
            if not config.share_encoder_decoder_embeddings or getattr(self._tokenizer, "separate_vocabs", False):
                raise ConversionError(
                    f"'{self._model.path}' has a vocabulary for each side, which CTranslate2's converter mixes up; "
                    "convert the original Marian model with ct2-marian-converter"
                )
            if (config.pad_token_id, config.decoder_start_token_id) != (last, last):
                raise ConversionError(f"'{self._model.path}': its last token is not the padding, as in Marian models")
        if family == "mbart":
            config.normalize_before = config.normalize_embedding = True
            config.tokenizer_class = type(self._tokenizer).__name__.removesuffix("Fast")


def _read_weights(model: ForeignModel) -> dict[str, torch.Tensor]:
    """Return the weights in float32 or as stored, all finite.

    Raises:
        InputError: a file is damaged or has changed, or a weight is not finite.
    """
    from safetensors.torch import load_file

    state: dict[str, torch.Tensor] = {}
    for path in model.weights:
        try:
            if path.suffix == ".bin":  # of a trusted model; still no code
                found = torch.load(path, map_location="cpu", weights_only=True)
            else:
                found = load_file(path)
        except Exception as error:  # of safetensors and torch, whatever the bytes
            reason = plain_text(f"{type(error).__name__}: {error}", 200)
            raise InputError(f"'{path}' is damaged ({reason}); fetch it again") from error
        state |= {name: each for name, each in found.items() if isinstance(each, torch.Tensor)}
    model.check_unchanged()
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"'{model.path}': the weight {plain_text(name, 200)} has values that are not finite")
    return state


def _check_shapes(model: ForeignModel, model_class: type, config: Any, state: Mapping[str, torch.Tensor]) -> None:
    """Compare shapes before any memory or time is taken for a model: the configuration may ask for any size."""
    layers = max(value for key, value in model.config.items() if "layers" in key and type(value) is int)
    widths = {each.shape[-1] for name, each in state.items() if name.endswith(("shared.weight", "tokens.weight"))}
    if layers > len(state) or (widths and widths != {config.d_model}):
        raise InputError(
            f"'{model.path}': the configuration has {layers} layers, the weights are of fewer; fetch it again"
            if layers > len(state)
            else f"'{model.path}': d_model is {config.d_model}, the weights have {widths}; fetch it again"
        )
    with torch.device("meta"):
        wanted = model_class(config).state_dict()
    for name, tensor in state.items():
        if name in wanted and wanted[name].shape != tensor.shape:
            shapes = list(tensor.shape), list(wanted[name].shape)
            raise InputError(
                f"'{model.path}': the weight {name} has the shape {shapes[0]}, the configuration asks for "
                f"{shapes[1]}; fetch the model again"
            )
    absent = sum(each.numel() for name, each in wanted.items() if name not in state)
    if absent > 4 * sum(each.numel() for each in state.values()):  # tied ones and sinusoids are not stored
        raise InputError(f"'{model.path}': the configuration asks for more weights than there are; fetch it again")


def read_converted(model: ForeignModel, directory: Path) -> Converted:
    """Return what a converted model says of itself.

    Args:
        model: where it comes from.
        directory: of CTranslate2's files.

    Raises:
        InputError: it is none that translates, or is damaged.
    """
    (variables, aliases), sides, positions = _read_variables(directory / "model.bin"), [], False
    for side in ("encoder", "decoder"):
        if not any(name.startswith(f"{side}/") for name in variables):
            raise InputError(f"'{model.path}' has no {side}; give a model that translates")
        name = f"{side}/{_POSITIONS}"
        table = variables.get(name) or variables.get(aliases.get(name, ""))
        positions = positions or table is not None
        sides.append(min(table.shape[0], LONGEST) if table else LONGEST)
    said = [model.config.get(key) for key in ("max_position_embeddings", "n_positions")]
    longest = next((each for each in said if type(each) is int and each > 2), LONGEST)
    if not positions and longest == LONGEST:
        longest = 512  # relative positions: as T5 was trained
    return Converted(
        vocabularies=_vocabularies(model, directory),
        longest_source=min(sides[0], longest),
        longest_target=sides[1],
        starts_with_prefix=read_json(directory / "config.json").get("decoder_start_token", "") is None,
        quantization=_quantization(variables),
    )


def stored_quantization(model: ForeignModel) -> str | None:
    """Return the type of the weights of a converted model, of an export what was asked for, which its weights tell of
    int8 and what stands beside it alone; None where it is still to be converted.

    Raises:
        InputError: its model.bin, or the record of an export, is damaged.
    """
    if model.kind == "export":
        return read_export(model.path).request.quantization
    return None if model.kind == "transformers" else _quantization(_read_variables(model.path / "model.bin")[0])


def _quantization(variables: Mapping[str, "_Variable"]) -> str:
    kinds = {each.kind for name, each in variables.items() if re.search(r"/linear_\d+/weight$", name)}
    return kinds.pop() if len(kinds) == 1 else "float32"


def count_weights(path: Path) -> int:
    """Return the number of weights in a model.bin; a matrix that several modules share counts once.

    Sinusoids count nothing, as they do not in NeMo's models.
    """
    variables, aliases = _read_variables(path)
    weights = {name: each.size for name, each in variables.items() if each.shape and not _NO_WEIGHTS.search(name)}
    with open_regular(path) as stream:
        for name in [name for name in weights if name.endswith(_POSITIONS)]:
            if _is_sinusoid(stream, variables[name]):
                del weights[name]
    # what is equal is stored once: biases and norms that are so by chance, and matrices that are shared
    again = [other for name, other in aliases.items() if name.endswith(("/bias", "/gamma", "/beta"))]
    return sum(weights.values()) + sum(weights.get(other, 0) for other in again)


def _is_sinusoid(stream: BinaryIO, table: "_Variable") -> bool:
    """Return whether each column of a table is a wave, as of sines and cosines, or of any choice among these columns.

    Of a wave with frequency ω the neighbours of each value have 2·cos(ω) times that value as their sum. bfloat16 is
    out by 2^-8 of a value at most, so that sum by 4·2^-8.
    """
    stream.seek(table.place)
    content = stream.read(min(table.bytes, 64 * (table.bytes // max(table.shape[0], 1))))
    if table.kind == "bfloat16":
        values = (np.frombuffer(content, np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(content, np.dtype(table.kind)).astype(np.float32)
    rows = values.reshape(-1, table.shape[-1]).astype(np.float64)
    inner, sums = rows[1:-1], rows[:-2] + rows[2:]
    power = (inner**2).sum(0)
    factor = (inner * sums).sum(0) / np.maximum(power, np.finfo(np.float64).tiny)
    rest = ((sums - factor * inner) ** 2).sum(0)
    return len(rows) > 3 and power.any() and bool((rest <= _WAVE**2 * (rows**2).sum(0)).all())


def _read_variables(path: Path) -> tuple[dict[str, "_Variable"], dict[str, str]]:
    """Return the arrays in a model.bin by their names, and the names of those that are equal to one of them."""
    try:
        with open_regular(path) as stream:
            return _variables(stream)
    except InputError:
        raise
    except (ValueError, struct.error, IndexError) as error:
        raise InputError(f"'{path}' is no whole model of CTranslate2 ({error}); convert the model again") from error


@dataclass(frozen=True)
class _Variable:
    """An array in a model.bin."""

    shape: tuple[int, ...]
    kind: str
    place: int
    """Where its values begin."""
    bytes: int

    @property
    def size(self) -> int:
        """Number of its values."""
        return math.prod(self.shape)


def _variables(stream: BinaryIO) -> tuple[dict[str, _Variable], dict[str, str]]:
    """Return what `_read_variables` does; values are passed over.

    See `save` in ctranslate2/specs/model_spec.py for the form.
    """
    size = os.fstat(stream.fileno()).st_size

    def number(form: str) -> int:
        return struct.unpack(f"<{form}", stream.read(struct.calcsize(form)))[0]

    def text() -> str:
        length = number("H")
        if length > _MOST_NAME:
            raise ValueError("a name is too long")
        return stream.read(length).rstrip(b"\0").decode("ascii")

    if number("I") < 5:
        raise ValueError("its form is too old; convert the model again")
    text(), number("I")
    count = number("I")
    if count > _MOST_VARIABLES:
        raise ValueError("it has too many arrays")
    found, aliases = {}, {}
    for _ in range(count):
        name = text()
        shape = tuple(number("I") for _ in range(number("B")))
        kind, length = number("B"), number("I")
        if length > size - stream.tell():
            raise ValueError("it ends early")
        found[name] = _Variable(shape, _TYPE_NAMES[kind], stream.tell(), length)
        stream.seek(length, os.SEEK_CUR)
    for _ in range(min(number("I"), _MOST_VARIABLES)):
        name = text()
        aliases[name] = text()
    return found, aliases


def _vocabularies(model: ForeignModel, directory: Path) -> tuple[Sequence[str], Sequence[str]]:
    found = []
    for side in ("source", "target"):
        paths = [directory / f"{name}_vocabulary.{form}" for name in (side, "shared") for form in ("json", "txt")]
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            raise InputError(f"'{model.path}' has no vocabulary of the {side}; convert the model again")
        if path.suffix == ".json":
            tokens = read_json(path, TOKENIZER_BYTES)
        else:
            tokens = path.read_text("utf-8").split("\n")[:-1]
        if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
            raise InputError(f"'{model.path}': {path.name} holds no list of tokens; convert the model again")
        found.append(tokens)
    return found[0], found[1]
