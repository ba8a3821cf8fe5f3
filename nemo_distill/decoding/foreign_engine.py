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
"""Decoding with models that are not NeMo's: converted to CTranslate2 by others, or of `transformers`."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from nemo_distill.config.languages import Languages
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.engine import Hypothesis, SearchSettings, check_quantization
from nemo_distill.decoding.export_record import read_export
from nemo_distill.decoding.exporting import open_export
from nemo_distill.decoding.foreign_conversion import Converted, convert_transformers, read_converted
from nemo_distill.decoding.foreign_files import ForeignModel, read_foreign
from nemo_distill.decoding.foreign_text import ForeignText, open_tokenizer
from nemo_distill.errors import InputError
from nemo_distill.support.files import reported_storage
from nemo_distill.support.temporary import TEMPORARY_ADVICE, TemporaryDirectory, temporary_place

_DELTA = 50  # tokens; NeMo's own default, since no such model says one


class ForeignEngine(CTranslate2Engine):
    """Translates with a model that is not NeMo's; see `CTranslate2Engine`.

    A hypothesis has the tokens behind the language token that is forced, and its score is their log-probability and
    that of the end token. `SearchSettings.max_length_delta` counts from the source's tokens, special ones included.

    Args:
        directory: the converted model; what else it holds is not read.
        text: its tokenizer and languages.
        converted: what the model says of itself.
        default_settings: beam search as the model's configuration asks for it.
        device: `cpu`, `cuda` or `cuda:N`.
        model: where it comes from; its files must not change while it is in use.
    """

    text: ForeignText

    def __init__(
        self,
        directory: Path,
        text: ForeignText,
        converted: Converted,
        default_settings: SearchSettings,
        device: str,
        model: ForeignModel,
    ) -> None:
        super().__init__(
            directory,
            text,
            default_settings,
            converted.longest_target,
            converted.quantization,
            device,
            check=model.check_unchanged,
        )
        self._prefix = list(text.target_prefix)
        self._returned = len(self._prefix) - converted.starts_with_prefix

    @property
    def training_text(self) -> None:
        """Nothing: pseudo-labels of such a model are raw text."""

    def _hypothesis(self, ids: Sequence[int], score: float, length: int) -> Hypothesis:
        cut, unknown = length == len(ids), self.text.count_unknown(ids)
        return Hypothesis(self.text.decode(ids), score, length, cut=cut, unknown=unknown)

    def _source_tokens(self, ids: list[int]) -> list[str]:
        return [self._source[id_] for id_ in ids]

    def _options(self, settings: SearchSettings, source_length: int) -> dict:
        options = super()._options(settings, source_length)
        longest = source_length + settings.max_length_delta + self._returned  # CTranslate2 counts the prefix
        return options | {"max_decoding_length": min(longest, self.longest_target)}


def open_foreign(
    path: str | os.PathLike,
    languages: Languages | None = None,
    quantization: str | None = None,
    device: str = "cpu",
    digest: str | None = None,
) -> CTranslate2Engine:
    """Return the engine of a model directory: an export of this library, of CTranslate2, or of `transformers`.

    Args:
        path: of the directory.
        languages: of the text; needed where the model has several.
        quantization: for a model of `transformers`, by default float32; a converted one has its own.
        device: `cpu`, `cuda` or `cuda:N`.
        digest: what `ForeignModel.sha256` must be.

    Raises:
        InputError: as `read_foreign`; the tokenizer is another model's, a language is missing or not one of the
            model's, or the quantization is not that of a converted model.
        ConversionError: CTranslate2 cannot convert the model.

    Example:
        >>> engine = open_foreign("opus-mt-de-en")  # doctest: +SKIP
    """
    languages, model = languages or Languages(), read_foreign(path, digest)
    if quantization is not None:
        check_quantization(quantization)
    if model.kind == "export":
        return _open_export(model, languages, quantization, device)
    with reported_storage(temporary_place(), TEMPORARY_ADVICE), contextlib.ExitStack() as undo:
        directory = TemporaryDirectory()
        undo.callback(directory.cleanup)
        place = directory.path / "files"
        place.mkdir()
        model.stage(place)
        text = ForeignText(model, tokenizer := open_tokenizer(model, place), languages)
        if model.kind == "transformers":
            place = convert_transformers(model, tokenizer, place, quantization or "float32")
        converted = read_converted(model, place)
        if quantization not in (None, converted.quantization):
            raise InputError(
                f"quantization is '{quantization}', but '{path}' was converted to {converted.quantization}; convert "
                "it again, or leave the quantization out"
            )
        text.attach(converted.vocabularies, converted.longest_source)
        engine = ForeignEngine(place, text, converted, default_settings(model), device, model)
        undo.pop_all()
    engine._temporary = directory
    return engine


def _open_export(
    model: ForeignModel, languages: Languages, quantization: str | None, device: str
) -> CTranslate2Engine:
    """Return the engine of an export, whose own record says all but which of several pairs of languages is meant."""
    engine = open_export(model.path, device, languages=languages)
    if quantization is not None and engine.name != f"ctranslate2 {quantization}":
        raise InputError(
            f"quantization is '{quantization}', but '{model.path}' has {engine.name.partition(' ')[2]}; export again, "
            "or leave the quantization out"
        )
    return engine


def default_settings(model: ForeignModel) -> SearchSettings:
    """Return the search of an export, else a beam search with the beam that the model's configuration may ask for."""
    if model.kind == "export":
        return SearchSettings(**asdict(read_export(model.path).search))

    def beam(settings: Mapping) -> int | None:
        found = settings.get("num_beams")
        return found if type(found) is int and 1 < found <= 64 else None

    size = beam(model.settings("generation_config.json")) or beam(model.config)
    return SearchSettings(beam_size=size or SearchSettings.beam_size, max_length_delta=_DELTA)
