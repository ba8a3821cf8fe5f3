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
"""Pseudo-labels of teachers: what identifies them, what is asked of their text, and the engine that decodes them."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from nemo_distill.archives.reader import archive_sha256
from nemo_distill.config.languages import LANGUAGE_KEYS, SIDES, Languages
from nemo_distill.decoding.engine import Engine, SearchSettings, check_engine
from nemo_distill.decoding.foreign_files import is_foreign
from nemo_distill.errors import ArchiveError, InputError
from nemo_distill.labels.labelling import label
from nemo_distill.labels.settings import SelectionSettings
from nemo_distill.support import files
from nemo_distill.support.device import choose_device
from nemo_distill.support.quoting import plain_text, shown_names
from nemo_distill.support.temporary import TemporaryDirectory
from nemo_distill.support.texts import GivenText, Texts


def pseudo_label(
    teachers: Sequence[str | os.PathLike],
    input_path: GivenText,
    output_dir: str | os.PathLike,
    search: SearchSettings | None = None,
    selection: SelectionSettings | None = None,
    *,
    engine: str = "auto",
    quantization: str = "float32",
    device: str | None = None,
    languages: Languages | None = None,
    processed: bool = False,
    **options: Any,
) -> tuple[dict[str, Any] | None, bool]:
    """Label a text with one teacher, or with several whose probabilities are averaged; see `label`.

    Args:
        teachers: `.nemo` archives; or the directory of one model that is not NeMo's, see `decoding.open_engine`.
        input_path: source text, one sentence a line, in a file or several; needs no translation.
        output_dir: directory to write.
        search: how to search; by default a beam of 4 and one hypothesis.
        selection: what to choose and what to refuse; by default the likeliest hypothesis and the default filters.
        engine: `ctranslate2`; `nemo`; or `auto`: CTranslate2 for one teacher that converts, NeMo for all else.
        quantization: of CTranslate2's weights, one of `decoding.engine.QUANTIZATIONS`.
        device: `cpu`, `cuda` or `cuda:N`; by default a GPU if there is one, each process under `torchrun` its own.
        languages: of the teachers' text, in place of what their archives say.
        processed: the input is processed text already, as training reads it; raw text is made of it for people.
        options: further arguments of `label`.

    Returns:
        As `label`.

    Raises:
        InputError: a teacher cannot be opened, the engine cannot decode the teachers, they do not fit each other, or
            as `label`.

    Example:
        >>> pseudo_label(["teacher.nemo"], "train.de", "labels", SearchSettings(beam_size=8))  # doctest: +SKIP
    """
    if quantization != "float32" and (engine == "nemo" or len(teachers) > 1):
        raise InputError(f"quantization: got {quantization!r}; it is for the engine ctranslate2 and a single teacher")
    check_engine(engine, None if quantization == "float32" else quantization)
    if engine == "ctranslate2" and len(teachers) > 1:
        raise InputError(f"engine: ctranslate2 decodes with one teacher, got {len(teachers)}; several need nemo")
    if not teachers:
        raise InputError("no teacher; give at least one .nemo archive")
    given = languages or Languages()
    if any(map(is_foreign, teachers)):
        if processed:
            raise InputError("--processed is for .nemo archives; a model that is not NeMo's reads raw text")
        teacher, facts = _foreign_facts(teachers, engine, quantization, given)
        return label(
            lambda: _open_engine(teachers, teacher["teachers"], engine, quantization, device, given),
            *(input_path, output_dir, search, selection),
            teacher=teacher,
            details=lambda: facts,
            **options,
        )
    hashes = [archive_sha256(path) for path in teachers]
    selection = _in_language(selection or SelectionSettings(), teachers[0], hashes[0], given)
    asked = {"languages": dataclasses.asdict(given) if given != Languages() else None, "processed": processed or None}
    result, was_finished = label(
        lambda: _open_engine(teachers, hashes, engine, quantization, device, given, processed),
        input_path,
        output_dir,
        search,
        selection,
        teacher={"teachers": hashes, "engine": engine, "quantization": quantization, **asked},
        details=lambda: {
            "teacher_names": [*map(shown_names, teachers)],
            "tokenizers": _tokenizer_hashes(teachers[0], hashes[0]),
        },
        check=lambda: _check_form(input_path, teachers[0], given, processed),
        **options,
    )
    if was_finished and "languages" not in result:
        _refuse_without_processed(output_dir, teachers[0], hashes[0])
    return result, was_finished


def _foreign_facts(
    teachers: Sequence[str | os.PathLike], engine: str, quantization: str, languages: Languages
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what identifies a teacher that is not NeMo's, for the request, and what the manifest says of it.

    Raises:
        InputError: it cannot decode, or not with these settings.
    """
    from nemo_distill.decoding.foreign_conversion import stored_quantization
    from nemo_distill.decoding.foreign_files import check_foreign, read_foreign

    check_foreign(teachers, engine)
    model = read_foreign(teachers[0])
    request = {
        "teachers": [model.sha256],
        "kind": model.kind,
        "languages": dataclasses.asdict(languages),
        "engine": engine,
        "quantization": stored_quantization(model) or quantization,
    }
    return request, {
        "teacher_names": [shown_names(teachers[0])],
        "teacher": {"kind": model.kind, "family": plain_text(model.family), "sha256": dict(model.files)},
    }


def _open_engine(
    teachers: Sequence[str | os.PathLike],
    hashes: list[str],
    engine: str,
    quantization: str,
    device: str | None,
    languages: Languages,
    processed: bool = False,
) -> Engine:
    from nemo_distill.decoding.opening import open_engine

    asked = None if quantization == "float32" else quantization
    opened = open_engine(teachers, engine, asked, choose_device(device), sha256=hashes, languages=languages)
    if processed:
        opened.text.reads_processed = True
    return opened


def _in_language(
    selection: SelectionSettings, teacher: str | os.PathLike, sha256: str, languages: Languages
) -> SelectionSettings:
    """Return a selection with the language of its gold text, where the teacher alone knows it and BLEU needs it."""
    if selection.select != "closest-bleu" or selection.bleu_tokenizer or selection.target_language:
        return selection
    from nemo_distill.archives.restore import read_archive_config

    known = read_archive_config(teacher, sha256=sha256, languages=languages).get(LANGUAGE_KEYS["target"])
    return dataclasses.replace(selection, target_language=known if isinstance(known, str | None) else languages.target)


def _check_form(text: GivenText, teacher: str | os.PathLike, languages: Languages, processed: bool) -> None:
    """Refuse input that looks as if it had another form than is said: it would be tokenized twice, or never.

    Raises:
        InputError: it does.
    """
    from nemo_distill.archives.restore import read_archive_config
    from nemo_distill.data.forms import PROCESSED, RAW, check_form
    from nemo_distill.data.processors import Processing

    config = read_archive_config(teacher, languages=languages)
    processing = Processing.of_pair(config, languages)
    for path in Texts(text).paths:
        check_form(path, processing, "source", PROCESSED if processed else RAW, "--input")


def _refuse_without_processed(directory: str | os.PathLike, teacher: str | os.PathLike, sha256: str) -> None:
    """Refuse finished labels of an earlier release where training would read other text than the teacher does.

    Raises:
        InputError: the teacher processes text.
    """
    from nemo_distill.archives.restore import read_archive_config
    from nemo_distill.data.languages import pair_of
    from nemo_distill.data.processors import Processing

    config = read_archive_config(teacher, sha256=sha256)
    processing = Processing.of_config(config, pair_of(config))
    if any(map(processing.processor, SIDES)):
        raise InputError(
            f"the labels in '{directory}' are of an earlier release: they lack the text as training reads it (the "
            "teacher normalizes and tokenizes text); make them anew (--overwrite)"
        )


def _tokenizer_hashes(path: str | os.PathLike, sha256: str) -> dict[str, str] | None:
    """Return the SHA-256 of the source and target tokenizer model in an archive, None if they are no files in it."""
    from nemo_distill.archives.restore import extract_tokenizers

    with TemporaryDirectory() as directory:
        try:
            found = extract_tokenizers(path, directory, sha256=sha256)
        except ArchiveError:
            raise
        except InputError:
            return None
        return {side: files.sha256(entry["tokenizer_model"]) for side, entry in found.items()}
