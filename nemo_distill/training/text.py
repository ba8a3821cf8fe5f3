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
"""The text of a run as its model reads it: raw corpora are processed once, into `text/` of the run's directory.

The run stays that of its raw corpora: `config.yaml` and `inputs.json` name those.
"""

import contextlib
import copy
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo.utils import logging
from nemo.utils.get_rank import is_global_rank_zero

from nemo_distill.config.languages import LANGUAGE_KEYS
from nemo_distill.config.mixture import MixtureConfig
from nemo_distill.config.section import DistillationConfig
from nemo_distill.data.checks import check_model_files
from nemo_distill.data.languages import component_faults, listed_languages, listed_side, multilingual_faults
from nemo_distill.data.processing import RawFile, process_files, processing_request
from nemo_distill.data.processors import Processing
from nemo_distill.errors import InputError
from nemo_distill.support.files import sha256
from nemo_distill.support.incoming import read_json
from nemo_distill.support.manifest import MANIFEST
from nemo_distill.training.directory import CONFIG_FILE, TEXT_DIRECTORY, processed_files
from nemo_distill.training.text_settings import (
    DATASETS,
    IDENTITY,
    MODES,
    TextPlace,
    asked_processing,
    check_flag,
    check_forms,
    label_places,
    processings,
    text_places,
)

_PATIENCE, _GLANCE = 3600.0, 0.5  # seconds


@dataclass
class RunText:
    """What a run reads in place of its raw corpora."""

    model: dict[str, Any]
    """The `model` section as given."""
    processing: dict[str | None, Processing]
    """That is in force, by the language of a multilingual model, else by None; empty: all text is read as it is."""
    places: list[TextPlace] = field(default_factory=list)

    @property
    def raw(self) -> dict[tuple[str | None, ...], RawFile]:
        """The files to process, by path, side and kind of processor."""
        found: dict[tuple[str | None, ...], RawFile] = {}
        for place in self.places if self.processing else ():
            for number, (path, language) in enumerate(zip(place.paths, place.languages, strict=True)):
                processing = self.processing[language]
                kind = processing.kind(place.side)
                if place.processed or kind is None:
                    continue
                name = f"{place.name}{f'.{number}' if place.is_list else ''}.{place.side}"
                taken = {file.name for file in found.values()}
                name = name if name not in taken else f"{len(taken)}.{name}"
                own = None if language is None else processing
                found.setdefault((path, place.side, kind), RawFile(path, name, place.side, own))
        return found

    @contextlib.contextmanager
    def prepared(self, directory: Path, overwrite: bool) -> Iterator[dict[str, Any]]:
        """Context of training, with the `model` section that it reads; text is processed before, by the first process.

        Where the run cannot begin, what was processed for it goes again.

        Raises:
            InputError: a file cannot be processed, or `text/` holds something else.
        """
        raw, place = self.raw, directory / TEXT_DIRECTORY
        was_there = True
        if is_global_rank_zero():
            was_there = self._write(directory, list(raw.values()), overwrite)
        elif raw:
            request = self._request(list(raw.values()))
            _wait_for(place, request)
        try:
            yield self._trained(place, raw)
        except InputError:
            if not was_there and not os.path.lexists(directory / CONFIG_FILE):
                _remove(directory)
            raise

    def _write(self, directory: Path, raw: list[RawFile], overwrite: bool) -> bool:
        """Write or verify the processed text; return whether it was there."""
        place = directory / TEXT_DIRECTORY
        is_new = overwrite or not os.path.lexists(directory / CONFIG_FILE)
        # what answers the request stays, even to be overwritten: the other processes may be reading it
        has_text = os.path.lexists(place / MANIFEST)
        anew = is_new and not (has_text and _is_there(place, self._request(raw)) and processed_files(directory))
        if anew:  # of an older run, or of one that could not begin
            _remove(directory)
        if not raw:
            return True
        _, was_there = process_files(raw, self._default, place, overwrite=anew)
        logging.info(f"{place}: {len(raw)} files of processed text {'verified' if was_there else 'written'}")
        return was_there

    def _request(self, raw: list[RawFile]) -> dict[str, Any]:
        return processing_request(raw, self._default, [sha256(file.path) for file in raw]) if raw else {}

    @property
    def _default(self) -> Processing:
        """That of the files that name none of their own."""
        return next(iter(self.processing.values()))

    def _trained(self, directory: Path, raw: Mapping[tuple[str | None, ...], RawFile]) -> dict[str, Any]:
        """Return the `model` section with processed files in the place of raw ones, and their languages."""
        model = copy.deepcopy(self.model)
        for place in self.places:
            section = model
            for key in place.keys[:-1]:
                section = section[key]
            if place.of_labels and (place.processed or not raw):
                continue
            if place.of_labels and "directory" in section:
                section["labels"] = section.pop("directory")
            paths = list(place.paths)
            for number, language in enumerate(place.languages if self.processing and not place.processed else ()):
                key = paths[number], place.side, self.processing[language].kind(place.side)
                paths[number] = str(directory / raw[key].name) if key in raw else paths[number]
            section[place.keys[-1]] = paths if place.is_list else paths[0]
            if place.keys[0] == "distillation":
                section.pop("processed", None)
        for name in DATASETS:  # NeMo has no such key
            if isinstance(model.get(name), dict):
                model[name].pop("processed", None)
        model |= {LANGUAGE_KEYS[side]: language for side, language in self.languages().items()}
        return model

    def languages(self) -> dict[str, Any]:
        """Return the languages that the model gets, of which one may be a list; none where text is read as it is."""
        if not self.processing:
            return {}
        listed = listed_side(self.model)
        return {
            side: listed_languages(self.model) if side == listed else language
            for side, language in self._default.languages().items()
        }


def read_run_text(plain: dict[str, Any]) -> RunText:
    """Return what a run reads, after a look at the form of its text.

    `data.processing` and `data.processed` are taken out of `plain`, and the languages that they lead to are put in:
    runs that train on the same text are the same.

    Args:
        plain: the run's configuration as plain data; changed in place.

    Raises:
        InputError: a value does not serve, or text has not the form that it is said to have.
    """
    model, data = plain["model"], plain.get("data")
    data = data if isinstance(data, dict) else {}
    mode, processed = data.pop("processing", None), data.pop("processed", False)
    if mode not in (*MODES, None):
        raise InputError(f"data.processing: got {ascii(mode)[:80]}; give {', '.join(MODES)}")
    check_flag(processed, "data.processed")
    section = model.get("distillation")
    mixture = DistillationConfig.from_section(section).mixture if section else None
    if mode is not None:  # other configurations are those of recipes, whose text the model looks at itself
        check_model_files(model if model.get("multilingual") else {}, mixture)
    _check_languages(model, mixture)
    places = [*text_places(model, processed), *label_places(model, processed)]
    text = RunText(model, asked_processing(mode, model, data), places)
    if mode is not None:
        check_forms(text.places, text.processing or processings(model), in_force=bool(text.processing))
    if text.processing:
        plain[IDENTITY] = {"languages": text.languages(), **({"processed": True} if processed else {})}
    return text


def _check_languages(model: Mapping[str, Any], mixture: MixtureConfig | None) -> None:
    """Raise an InputError where a model has not the languages that it says, or a component of a mixture none."""
    faults = multilingual_faults(model)
    faults += component_faults(model, mixture) if mixture and not faults and listed_side(model) else []
    if faults:
        raise InputError("\n  ".join(faults))


def _wait_for(directory: Path, request: Mapping[str, Any]) -> None:
    """Wait until the first process has written the text that answers a request.

    Raises:
        TimeoutError: nothing has changed in the directory for an hour.
    """
    since = time.time()
    while not _is_there(directory, request):
        with contextlib.suppress(OSError):
            since = max(since, *(path.stat().st_mtime for path in directory.iterdir()))
        if time.time() - since > _PATIENCE:
            raise TimeoutError(f"'{directory}': the first process has not written the text; see why it stopped")
        time.sleep(_GLANCE)


def _is_there(directory: Path, request: Mapping[str, Any]) -> bool:
    """Return whether a directory holds the finished text that answers a request, all of its files."""
    names = request.get("inputs", ())
    return _noted_request(directory) == request and all((directory / name).is_file() for name in names)


def _noted_request(directory: Path) -> Any:
    """Return the request of the finished text in a directory; an empty one where there is none."""
    with contextlib.suppress(InputError):
        manifest = read_json(directory / MANIFEST)
        return manifest.get("request") if isinstance(manifest, dict) else {}
    return {}


def _remove(directory: Path) -> None:
    """Remove the processed text of the run in a directory."""
    for path in processed_files(directory):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something else is in it, or there is none
        (directory / TEXT_DIRECTORY).rmdir()
