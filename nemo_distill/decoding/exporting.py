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
"""Export a model for deployment: a directory that translates with CTranslate2 and a tokenizer, without NeMo."""

import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.modules.common.tokenizer_utils import get_nmt_tokenizer
from omegaconf import DictConfig

from nemo_distill.archives.reader import archive_sha256
from nemo_distill.archives.restore import extract_tokenizers, read_archive_config, restore_model
from nemo_distill.config.languages import LANGUAGE_KEYS, SIDES, Languages
from nemo_distill.data.languages import directions, listed_languages, listed_side, model_languages
from nemo_distill.data.processors import Processing
from nemo_distill.data.text import TextPipeline, pieces
from nemo_distill.decoding import export_record
from nemo_distill.decoding.conversion import convert
from nemo_distill.decoding.convertible import check_converts
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.engine import SearchSettings, archive_settings, check_quantization
from nemo_distill.decoding.export_page import page
from nemo_distill.decoding.export_record import (
    EXPORT_NAME,
    PAGE_NAME,
    PROGRAM_NAME,
    ExportPair,
    ExportRecord,
    ExportRequest,
    ExportSearch,
    TextSide,
)
from nemo_distill.decoding.exported_program import FORMAT_VERSION
from nemo_distill.errors import InputError
from nemo_distill.support import compat
from nemo_distill.support.files import replaced_directory, reported_storage, write_json_atomic
from nemo_distill.support.incoming import read_json
from nemo_distill.support.lock import locked_file
from nemo_distill.support.manifest import refuse_other
from nemo_distill.support.quoting import plain_text
from nemo_distill.support.temporary import TEMPORARY_ADVICE, TemporaryDirectory, remove_left_behind, temporary_place
from nemo_distill.support.tokenizer_guard import check_tokenizer

# What CTranslate2 looks for beside the model.
_READ_BESIDE = re.compile(r"config\.json|model\.bin|.*vocabulary\.(json|txt)|vmap\.txt")


def export(
    archive: str | os.PathLike,
    output_dir: str | os.PathLike,
    quantization: str = "float32",
    overwrite: bool = False,
    languages: Languages | None = None,
) -> dict[str, Any]:
    """Write a model, its tokenizers, a program that translates with them and a page about it into a directory.

    Everything is written beside and then takes its place in one step: the directory is there whole or not at all. An
    export that is there already, of the same archive and in the same type, is verified and left as it is.

    Args:
        archive: a `.nemo` archive.
        output_dir: must not exist, be empty, or hold an export.
        quantization: of the weights: float32, float16, bfloat16, int8, int8_float32, int8_float16, int8_bfloat16.
        overwrite: replace an earlier export there; nothing but a whole and unchanged export is ever replaced.
        languages: of the model's text, in place of what the archive says. A model of several languages is exported
            with all its pairs, or with the one that is given.

    Returns:
        What `export.json` says.

    Raises:
        ConversionError: the model does not convert; lists all reasons.
        InputError: not an archive, or one that changed while it was read; an unknown quantization; an output directory
            that holds something else, or that another process works in.
        StorageError: no room, no permission.

    Example:
        >>> export("student.nemo", "student_int8", "int8")  # doctest: +SKIP
    """
    return export_or_find(archive, output_dir, quantization, overwrite, languages)[0]


def export_or_find(
    archive: str | os.PathLike,
    output_dir: str | os.PathLike,
    quantization: str,
    overwrite: bool,
    languages: Languages | None = None,
) -> tuple[dict[str, Any], bool]:
    """Return what `export` returns, and whether the export was there already."""
    check_quantization(quantization)
    output_dir = Path(os.path.abspath(output_dir))
    if output_dir in (Path("/"), Path.cwd()):
        raise InputError(
            f"'{output_dir}' is the current directory, or the root; give an export a directory of its own"
        )
    languages = languages or Languages()
    request = ExportRequest(archive_sha256(archive), quantization, languages.source, languages.target)
    with locked_file(output_dir):
        remove_left_behind(output_dir.parent)
        earlier = export_record.check_own(output_dir)
        if earlier is not None and not overwrite:
            refuse_other(output_dir, asdict(earlier.request), asdict(request), "already holds another export")
            config = read_archive_config(archive, sha256=request.archive_sha256, languages=languages)
            refuse_other(output_dir, _facts_of(earlier), _facts(config, languages), f"has a changed {EXPORT_NAME}")
            return asdict(earlier), True
        check_converts(read_archive_config(archive, sha256=request.archive_sha256, languages=languages))
        with reported_storage(output_dir), replaced_directory(output_dir) as directory:
            record = _write(Path(archive), request, languages, directory, output_dir.name)
            export_record.check_own(output_dir)  # once more: the work took its time
    return asdict(record), False


def _facts(config: DictConfig, languages: Languages) -> dict[str, Any]:
    """Return what an export's record says that follows from the configuration of its archive alone."""
    source, target = (config[side].get("max_sequence_length", 512) for side in ("encoder", "decoder"))
    delta = config.max_generation_delta
    search = ExportSearch(config.beam_size, float(config.len_pen), delta if delta >= 0 else target)
    return {
        "search": asdict(search),
        "longest_source": source,
        "longest_target": target,
        **{f"{side}.language": _one(config.get(key)) for side, key in LANGUAGE_KEYS.items()},
        "pairs": len(_names(config, languages)),
    }


def _one(language: Any) -> str | None:
    """Return a language that is the only one of its side."""
    return language if isinstance(language, str) else None


def _names(config: DictConfig, languages: Languages) -> list[str]:
    """Return those languages of a model of several that are exported: the one that was asked for, or all."""
    side = listed_side(config)
    asked = getattr(languages, side) if side else None
    return listed_languages(config) if asked is None else [asked]


def _facts_of(record: ExportRecord) -> dict[str, Any]:
    return {
        "search": asdict(record.search),
        "longest_source": record.longest_source,
        "longest_target": record.longest_target,
        "source.language": record.source.language,
        "target.language": record.target.language,
        "pairs": len(record.pairs),
    }


def _write(archive: Path, request: ExportRequest, languages: Languages, directory: Path, name: str) -> ExportRecord:
    model = restore_model(archive, sha256=request.archive_sha256, languages=languages)
    convert(model, directory, request.quantization)
    sides = _write_tokenizers(archive, request.archive_sha256, model, directory)
    pairs = _pairs(model, languages)
    (directory / PROGRAM_NAME).write_bytes(
        resources("nemo_distill.decoding").joinpath("exported_program.py").read_bytes()
    )
    (directory / PAGE_NAME).write_text(page(name, *sides, request.quantization, pairs), "utf-8")
    search = archive_settings(model)
    record = ExportRecord(
        format_version=FORMAT_VERSION,
        archive=plain_text(archive.name),
        request=request,
        source=sides[0],
        target=sides[1],
        search=ExportSearch(search.beam_size, float(search.length_penalty), search.max_length_delta),
        longest_source=model.encoder.max_sequence_length,
        longest_target=model.decoder.max_sequence_length,
        files=export_record.list_files(directory),
        pairs=pairs,
    )
    write_json_atomic(directory / EXPORT_NAME, asdict(record))
    return export_record.read_export(directory)


def _pairs(model: MTEncDecModel, languages: Languages) -> list[ExportPair]:
    """Return the pairs of a model of several languages that are exported; of others none."""
    names = model_languages(model)
    wanted = _names(model.cfg, languages)
    words = pieces(model.decoder_tokenizer)
    start, end = (words[getattr(model.decoder_tokenizer, f"{mark}_id")] for mark in ("bos", "eos"))
    found = []
    for name, pair in zip(names, directions(model) if names else (), strict=True):
        told = pair.token is not None
        front = [pieces(model.encoder_tokenizer)[pair.token], start] if told else []
        processors = _class_name(pair.source_processor), _class_name(pair.target_processor)
        if name in wanted:
            found.append(ExportPair(pair.source, pair.target, *processors, front, [end] if told else []))
    return found


def _class_name(processor: Any) -> str | None:
    return None if processor is None else type(processor).__name__


def _write_tokenizers(archive: Path, digest: str, model: MTEncDecModel, directory: Path) -> Sequence[TextSide]:
    with reported_storage(temporary_place(), TEMPORARY_ADVICE), TemporaryDirectory() as found:
        extracted = extract_tokenizers(archive, found, sha256=digest)
        contents = [Path(entry["tokenizer_model"]).read_bytes() for entry in extracted.values()]
    names = ["tokenizer.model"] * 2 if contents[0] == contents[1] else ["source.model", "target.model"]
    for content, name in zip(contents, names, strict=True):
        (directory / name).write_bytes(content)
    several = bool(model_languages(model))
    sides = []
    for side, key, name in zip(("encoder", "decoder"), LANGUAGE_KEYS, names, strict=True):
        processor = None if several else getattr(model, f"{key}_processor")
        section, tokenizer = model.cfg[f"{side}_tokenizer"], getattr(model, f"{side}_tokenizer")
        sides.append(
            TextSide(
                library=section.get("library", compat.DEFAULT_TOKENIZER_LIBRARY),
                file=name,
                language=_one(model.cfg.get(LANGUAGE_KEYS[key])),
                processor=_class_name(processor),
                right_to_left=bool(section.get("r2l", False)),
                special_ids=sorted({getattr(tokenizer, f"{token}_id") for token in ("pad", "unk", "bos", "eos")}),
                **_added(tokenizer),
            )
        )
    return sides


def _added(tokenizer: Any) -> dict[str, dict[str, Any]]:
    """Return what NeMo added to the pieces of a SentencePiece model, with `sentencepiece_legacy`."""
    if not getattr(tokenizer, "legacy", False):
        return {}
    marks = {mark: getattr(tokenizer, f"{mark}_token") for mark in ("bos", "eos", "pad")}
    return {"added": dict(tokenizer.special_token_to_id), "marks": marks}


def open_export(
    directory: str | os.PathLike,
    device: str = "cpu",
    threads: int | None = None,
    languages: Languages | None = None,
) -> CTranslate2Engine:
    """Return the engine of a directory that `export` wrote, after comparing its files with their hashes.

    Args:
        directory: of the export.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads; by default as `CTranslate2Engine`.
        languages: which pair, of an export of several.

    Raises:
        InputError: not such a directory, or a file in it is damaged, missing, or was changed; an export of several
            languages, and which is meant is not said.

    Example:
        >>> open_export("student_int8").name  # doctest: +SKIP
        'ctranslate2 int8'
    """
    directory = Path(directory)
    record = export_record.read_export(directory)
    export_record.check_files(directory, record)
    before = export_record.states(directory, record)
    spare = [path.name for path in directory.iterdir() if path.name not in record.files]
    for name in filter(_READ_BESIDE.fullmatch, spare):
        raise InputError(f"'{directory / name}' is no file of the export, and CTranslate2 would read it; remove it")
    sides = record.source, record.target
    tokenizers = [_open_tokenizer(directory, side) for side in sides]
    pair = export_record.chosen_pair(directory, record, languages or Languages())
    processors = _open_processors(directory, sides, pair)
    token = tokenizers[0].tokens_to_ids([pair.front[0]])[0] if pair.front else None
    spoken = pair.source, pair.target
    text = TextPipeline(*tokenizers, *processors, record.longest_source, *spoken, language_token=token)
    _check_vocabularies(directory, record, tokenizers)

    def check_unchanged() -> None:
        if export_record.states(directory, record) != before:
            raise InputError(f"'{directory}' has changed while it was in use; open it again")

    return CTranslate2Engine(
        directory,
        text,
        SearchSettings(**asdict(record.search)),
        record.longest_target,
        record.request.quantization,
        device,
        threads,
        check_unchanged,
    )


def _open_tokenizer(directory: Path, side: TextSide) -> Any:
    if side.library not in compat.TOKENIZER_LIBRARIES:
        raise InputError(f"'{directory}' reads text with YouTokenToMe, but {compat.NO_YTTM}")
    check_tokenizer(directory / side.file, side.library)
    file = str(directory / side.file)
    tokenizer = get_nmt_tokenizer(side.library, tokenizer_model=file, r2l=side.right_to_left, legacy=bool(side.marks))
    if side.marks:
        # in the order of the model, which is another from release to release of NeMo
        tokenizer.special_token_to_id = dict(side.added)
        tokenizer.id_to_special_token = {id_: token for token, id_ in side.added.items()}
        tokenizer.vocab_size = max(tokenizer.original_vocab_size, *(id_ + 1 for id_ in side.added.values()), 0)
        for mark, token in side.marks.items():
            setattr(tokenizer, f"{mark}_token", token)
    return tokenizer


def _open_processors(directory: Path, sides: Sequence[TextSide], pair: ExportPair) -> Sequence[Any]:
    libraries = tuple(side.library for side in sides)
    try:
        found = [*map(Processing(pair.source, pair.target, libraries).processor, SIDES)]
    except InputError as error:
        raise InputError(f"'{directory}' cannot be opened: {error}") from error
    if (names := [*map(_class_name, found)]) != [pair.source_processor, pair.target_processor]:
        raise InputError(f"'{directory}' names other text processors than {names}; export the model again")
    return found


def _check_vocabularies(directory: Path, record: ExportRecord, tokenizers: Sequence[Any]) -> None:
    """Make sure that the tokens of the tokenizers are those of the model, in their places."""
    for side, tokenizer in zip(("source", "target"), tokenizers, strict=True):
        name = f"{side}_vocabulary.json"
        name = name if name in record.files else "shared_vocabulary.json"
        tokens = read_json(directory / name, 64 << 20)
        own = pieces(tokenizer)
        # the source may have the target's names of the start, the end and the unknown token
        special = {tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id} if side == "source" else set()
        same = isinstance(tokens, list) and len(own) <= len(tokens) <= len(own) + 4096
        if not same or any(own[id_] != tokens[id_] for id_ in set(range(len(own))) - special):
            raise InputError(
                f"'{directory / name}' has other tokens than the tokenizer of the {side}; export the model again"
            )
