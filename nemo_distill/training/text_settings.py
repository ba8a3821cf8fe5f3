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
"""What a run's configuration says of its text: where raw text is named, whose languages process it, which form it has.

`data.processing` says by whose languages, `data.processed` that the corpora are processed already.
"""

import copy
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo.utils import logging

from nemo_distill.archives.ngc import fetch_archive
from nemo_distill.archives.restore import read_archive_config
from nemo_distill.config.languages import LANGUAGE_KEYS, Languages, are_other, is_language
from nemo_distill.config.mixture import PROCESSED_TARGET, PSEUDO_TARGET, as_list, label_names
from nemo_distill.config.reading import inner_section
from nemo_distill.data.forms import PROCESSED, RAW, form_of_file, form_read, labels_are_processed
from nemo_distill.data.languages import listed_languages, listed_side, set_places
from nemo_distill.data.mixing.tarred import is_tarred
from nemo_distill.data.processors import Processing
from nemo_distill.errors import InputError, TeacherError
from nemo_distill.support.incoming import read_json
from nemo_distill.support.manifest import MANIFEST
from nemo_distill.support.numbered import base_name
from nemo_distill.support.texts import Texts
from nemo_distill.support.warned import warn

MODES = ("teacher", "languages", "none")
DATASETS = {"train_ds": "train", "validation_ds": "valid", "test_ds": "test"}
_COMPONENTS = ("distillation", "mixture", "components")
IDENTITY = "text"
"""Key of `config.yaml`: the languages by which the run's text was processed; none where it is read as it is."""


@dataclass(frozen=True)
class TextPlace:
    """A key of a `model` section that names text files."""

    keys: tuple[str, ...]
    side: str
    paths: list[str]
    is_list: bool
    processed: bool
    """Whether it is said to be processed."""
    name: str
    """Of what it becomes, without the side."""
    languages: list[str | None]
    """For each path its language, of those that a multilingual model has on one side; None for a model of one pair."""
    of_labels: bool = False
    """Whether the component has a directory of pseudo-labels in the place of this key."""

    def __str__(self) -> str:
        return f"model.{'.'.join(self.keys)}"

    @property
    def texts(self) -> list[tuple[Texts, str | None]]:
        """What has a form of its own, with its language: each file, but the labels of a directory are one text."""
        if self.of_labels:
            return [(Texts(self.paths), self.languages[0])]
        return list(zip(map(Texts, self.paths), self.languages, strict=True))


def origin_model(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `model` section of a run, as in its `config.yaml`, without what the processing of text replaces.

    Checkpoints hold the section that the model was built with.
    """
    model = copy.deepcopy(dict(plain["model"]))
    if isinstance(plain.get(IDENTITY), Mapping):
        for key in LANGUAGE_KEYS.values():
            model.pop(key, None)
        for place in text_places(model, False):
            section = model
            for key in place.keys[:-1]:
                section = section[key]
            section.pop(place.keys[-1], None)
        for component in inner_section(model, *_COMPONENTS).values():
            for key in ("directory", "labels"):
                component.pop(key, None)
    return model


def check_flag(value: Any, where: str) -> None:
    """Raise an InputError where something is not true or false."""
    if not isinstance(value, bool):
        raise InputError(f"{where}: got {ascii(value)[:80]}; give true or false")


def text_places(model: Mapping[str, Any], processed: bool) -> Iterator[TextPlace]:
    """Yield the keys that name text files; not those of tarred sets, whose text is processed, nor labels.

    Args:
        model: a `model` section.
        processed: all of it is said to be processed.
    """
    components = inner_section(model, *_COMPONENTS)
    known = listed_languages(model)
    for section, name in DATASETS.items():
        dataset = inner_section(model, section)
        if components and section == "train_ds":
            continue
        if is_tarred(dataset):
            continue
        check_flag(dataset.get("processed", False), f"model.{section}.processed")
        places = set_places(known, section, dataset) if known and as_list(dataset.get("src_file_name")) else []
        languages = [known[each] for each in places]
        for side, key in (("source", "src_file_name"), ("target", "tgt_file_name")):
            yield from _place((section, key), side, dataset, processed, name, languages)
    for name in components:
        keys = (*_COMPONENTS, name)
        for side in LANGUAGE_KEYS:
            component = inner_section(model, *keys)
            languages = [str(component.get("language"))] * len(as_list(component.get(side))) if known else []
            yield from _place((*keys, side), side, component, processed, _file_name(name), languages)


def label_places(model: Mapping[str, Any], processed: bool) -> Iterator[TextPlace]:
    """Yield the text of pseudo-labels, as `text_places` does: in the place of `directory`, as `source` and `target`.

    Args:
        model: a `model` section.
        processed: text whose form does not show is said to be processed.
    """
    known = listed_languages(model)
    for name, component in inner_section(model, *_COMPONENTS).items():
        component = inner_section({name: component}, name)
        directory = component.get("directory")
        if not isinstance(directory, str):
            continue
        sides = [[str(Path(directory, each)) for each in files] for files in zip(*label_names(directory), strict=True)]
        if not all(map(os.path.isfile, itertools.chain(*sides))):  # said by those who read them
            continue
        is_processed, language = labels_are_processed(tuple(sides), processed), component.get("language")
        for side, paths in zip(LANGUAGE_KEYS, sides, strict=True):
            languages = [str(language) if known and language else None] * len(paths)
            keys, is_list = (*_COMPONENTS, name, side), len(paths) > 1
            yield TextPlace(keys, side, paths, is_list, is_processed, _file_name(name), languages, True)


def _file_name(name: Any) -> str:
    return re.sub(r"[^\w.-]|^\.", "_", str(name))[:60]


def _place(
    keys: tuple[str, ...], side: str, section: Mapping[str, Any], processed: bool, name: str, languages: list[str]
) -> Iterator[TextPlace]:
    value = section.get(keys[-1])
    paths = as_list(value)
    if paths and all(isinstance(path, str) for path in paths):
        said = processed or bool(section.get("processed"))
        yield TextPlace(keys, side, paths, not isinstance(value, str), said, name, languages or [None] * len(paths))


def asked_processing(mode: str | None, model: Mapping[str, Any], data: Mapping[str, Any]) -> dict[Any, Processing]:
    """Return the processing that is asked for, as `processings`; empty where text is read as it is.

    Raises:
        InputError: languages are missing or no languages, or contradict the student's; or labels are of others.
    """
    if mode in (None, "none"):
        return {}
    listed = listed_side(model)
    own = {side: None if model.get(key) == "ignore" else model.get(key) for side, key in LANGUAGE_KEYS.items()}
    _check_label_languages({side: own[side] or data.get(side) for side in LANGUAGE_KEYS if side != listed}, model)
    said = _teacher_languages(model, data) if mode == "teacher" else Languages(data.get("source"), data.get("target"))
    if said is None and listed is None:
        logging.info("data.processing: no teacher, cache or labels name languages; text is read as it is")
        return {}
    found = {side: getattr(said or Languages(), side) for side in LANGUAGE_KEYS}
    if mode == "languages" or said is None:
        found = {side: own[side] or found[side] for side in LANGUAGE_KEYS}
    if listed:  # the model's own, whatever the teacher has beside them
        found[listed] = None
    for side, language in found.items():
        if language is not None and not is_language(language):
            raise InputError(f"data.processing: {ascii(language)[:80]} is no {side} language; give data.{side}")
    single = {side: language for side, language in found.items() if side != listed}
    for side, language in single.items():
        if own[side] not in (None, language):
            how = "read as it is" if language in (None, "", "ignore") else f"processed as {language}"
            raise InputError(
                f"model.{LANGUAGE_KEYS[side]}: got {own[side]}, and the teacher's {side} text is {how}; "
                "give `ignore`, which takes the teacher's, or data.processing=none"
            )
    asked = processings({**model, **{LANGUAGE_KEYS[side]: language for side, language in single.items()}})
    if not any(each.changes_text for each in asked.values()):
        logging.info(f"data.processing: text of {found['source']} and {found['target']} is read as it is")
        return {}
    return asked


def processings(model: Mapping[str, Any]) -> dict[str | None, Processing]:
    """Return the processing of each language of a multilingual `model` section; of a model of one pair, by None."""
    listed = listed_side(model)
    if listed is None:
        return {None: Processing.of_config(model)}
    key = LANGUAGE_KEYS[listed]
    return {each: Processing.of_config({**model, key: each}) for each in listed_languages(model)}


def _teacher_languages(model: Mapping[str, Any], data: Mapping[str, Any]) -> Languages | None:
    """Return the languages of the teacher's text: of the section, its archive, the cache, or labels; None: nowhere."""
    given = inner_section(model, "distillation", "teacher")
    said = Languages(given.get("source_language"), given.get("target_language"))
    if None not in (said.source, said.target):
        return said
    paths = as_list(given.get("model_path"))
    if paths or given.get("model_name"):
        where = paths[0] if paths else fetch_archive(given["model_name"])
        try:
            config = read_archive_config(where, given.get("trust_archive") or None)
        except InputError as error:
            key = "model_path" if paths else "model_name"
            raise TeacherError(f"distillation.teacher.{key}: {error}") from error
        named = [config.get(key) for key in LANGUAGE_KEYS.values()]
    else:
        directories = [*as_list(given.get("cache")), *_label_directories(model)]
        where, named = next(_manifest_languages(directories), ("", None))
        if named is None:
            return None if said == Languages() else said
    found = []
    for side, asked, known in zip(LANGUAGE_KEYS, (said.source, said.target), named, strict=True):
        language = asked or known
        if side == listed_side(model):
            language = None  # each data set says
        elif not isinstance(language, str | None):  # of a multilingual teacher
            language = data.get(side) if data.get(side) in list(language) else None
            if language is None:
                raise InputError(
                    f"data.processing: {where} has the {side} languages {', '.join(map(str, known))}, and data.{side} "
                    f"is {data.get(side)}; give model.distillation.teacher.{side}_language"
                )
        found.append(language)
    return Languages(*found)


def _label_directories(model: Mapping[str, Any]) -> list[str]:
    components = inner_section(model, *_COMPONENTS).values()
    return [each["directory"] for each in components if each.get("directory")]


def _check_label_languages(of_run: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Refuse labels of other languages than the run's, by side; where either names none, nobody knows."""
    for where, named in _manifest_languages(_label_directories(model), raw=True):
        for side, found in zip(LANGUAGE_KEYS, named, strict=True):
            wanted = of_run.get(side)
            named_both = all(is_language(each) and each not in ("", "ignore") for each in (found, wanted))
            if named_both and are_other(found, wanted):
                raise InputError(
                    f"data.processing: the labels of {where} have the {side} language {found}, and the run has "
                    f"{wanted}; give labels of its languages, or where `{wanted}` is only how files are named, "
                    f"model.{LANGUAGE_KEYS[side]}={found}"
                )


def _manifest_languages(directories: list[str], raw: bool = False) -> Iterator[tuple[str, list[str | None]]]:
    """Yield where languages are named, and which, of the manifests of a cache and of labels; of `raw` text, too."""
    for directory in directories:
        path = Path(directory, MANIFEST)
        if not path.is_file():
            continue
        manifest = read_json(path)
        manifest = manifest if isinstance(manifest, dict) else {}
        names = {base_name(str(name)) for name in manifest.get("files") or ()}
        if not raw and names & {PSEUDO_TARGET, PROCESSED_TARGET} == {PSEUDO_TARGET}:
            continue  # their languages name no processors
        for section in (manifest, manifest.get("request")):
            languages = section.get("languages") if isinstance(section, dict) else None
            if isinstance(languages, dict) and languages.keys() & LANGUAGE_KEYS.keys():
                yield str(path), [languages.get(side) for side in LANGUAGE_KEYS]


def warn_of_raw_text(model: Mapping[str, Any]) -> None:
    """Warn where a model whose languages have processors is trained on text that looks raw.

    NeMo's training reads text as it is, and its `translate` processes what it gets. No error: NeMo's recipes name
    languages by default, whatever their text.

    Args:
        model: a `model` section as plain data.
    """
    by_language = processings(model)
    for place in (*text_places(model, False), *label_places(model, False)):
        for text, language in place.texts:
            processing = by_language[language]
            kind = processing.kind(place.side)
            if kind and form_of_file(text.paths, processing, place.side) == RAW:
                key = LANGUAGE_KEYS[place.side]
                warn(
                    f"{place}: {text} looks raw (its punctuation is attached to words), but model.{key} "
                    f"{getattr(processing, place.side)} is for text that {kind} has tokenized, and training reads "
                    "text as it is, while translating tokenizes it: the model would meet text of another form than "
                    f"it learnt. Process it with `nemo-distill preprocess`, or give model.{key}=ignore"
                )


def check_forms(places: list[TextPlace], by_language: Mapping[Any, Processing], in_force: bool) -> None:
    """Look whether text has the form that it is said to have.

    Raises:
        InputError: it has the other one; lists every such key.
    """
    faults, tokenized = {}, {}
    for place in places:
        for text, language in place.texts:
            processing = by_language[language]
            kind = processing.kind(place.side)
            found = form_read(text.paths, processing, place.side)
            if kind and in_force and found == PROCESSED and not place.processed:
                faults[str(text), place.side] = (
                    f"{place}: {text} looks tokenized already (its punctuation stands apart), and {kind} would "
                    "tokenize it again; give data.processed=true, or processed: true beside this key"
                )
            elif kind and found == RAW and place.processed:
                faults[str(text), place.side] = (
                    f"{place}: {text} is said to be processed, and looks raw (its punctuation is attached to "
                    "words); leave out `processed`, so that it is tokenized before training"
                )
            elif kind and not in_force and found == RAW:
                faults[str(text), place.side] = (
                    f"{place}: {text} looks raw, but model.{LANGUAGE_KEYS[place.side]} "
                    f"{getattr(processing, place.side)} is for text that {kind} has tokenized, and nothing "
                    "tokenizes it here; give data.processing=languages, or `ignore` for the language"
                )
            elif getattr(processing, place.side) in (None, "ignore") and found == PROCESSED:
                tokenized[str(text)] = place
    if faults:
        raise InputError("\n  ".join(faults.values()))
    for text, place in tokenized.items():
        warn(
            f"{place}: {text} looks tokenized, and model.{LANGUAGE_KEYS[place.side]} names no language: the model "
            "will take and give such text. If Moses did it, give data.processing=languages data.processed=true"
        )
