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
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.modules.common.tokenizer_utils import get_nmt_tokenizer

from nemo_distill.archives.restore import extract_tokenizers, read_archive_config, restore_model
from nemo_distill.data.text import TextPipeline
from nemo_distill.decoding.conversion import convert
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.engine import SearchSettings, archive_settings, check_quantization
from nemo_distill.decoding.export_page import TextSide, page, program
from nemo_distill.decoding.opening import choose_engine
from nemo_distill.errors import InputError
from nemo_distill.support import compat
from nemo_distill.support.files import replaced_directory, sha256, write_json_atomic, write_text_atomic
from nemo_distill.support.incoming import read_json

EXPORT_NAME = "export.json"
PAGE_NAME = "README.md"
FORMAT_VERSION = 1


def export(
    archive: str | os.PathLike,
    output_dir: str | os.PathLike,
    quantization: str = "float32",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a model, its tokenizers and a page with a working program into a directory.

    Everything is written beside and then renamed: the directory is there whole or not at all.

    Args:
        archive: a `.nemo` archive.
        output_dir: must not exist or be empty.
        quantization: of the weights: float32, float16, bfloat16, int8, int8_float32, int8_float16, int8_bfloat16.
        overwrite: replace an earlier export there; nothing but an export is ever replaced.

    Returns:
        What `export.json` says.

    Raises:
        ConversionError: the model does not convert; lists all reasons.
        InputError: not an archive, an unknown quantization, or an output directory that holds something.

    Example:
        >>> export("student.nemo", "student_int8", "int8")  # doctest: +SKIP
    """
    check_quantization(quantization)
    choose_engine(read_archive_config(archive), "ctranslate2", quantization)
    with replaced_directory(output_dir, overwrite, mark=EXPORT_NAME) as directory:
        model = restore_model(archive)
        convert(model, directory, quantization)
        sides = _write_tokenizers(archive, model, directory)
        search = archive_settings(model)
        content = {
            "format_version": FORMAT_VERSION,
            "archive": Path(archive).name,
            "archive_sha256": sha256(archive),
            "quantization": quantization,
            "source": asdict(sides[0]),
            "target": asdict(sides[1]),
            "search": {name: getattr(search, name) for name in ("beam_size", "length_penalty", "max_length_delta")},
            "longest_source": model.encoder.max_sequence_length,
            "longest_target": model.decoder.max_sequence_length,
        }
        code = program(*sides, search, content["longest_source"], content["longest_target"])
        write_text_atomic(directory / PAGE_NAME, page(Path(output_dir).name, *sides, quantization, code))
        write_json_atomic(directory / EXPORT_NAME, content)
    return content


def _write_tokenizers(archive: str | os.PathLike, model: MTEncDecModel, directory: Path) -> tuple[TextSide, TextSide]:
    with tempfile.TemporaryDirectory() as found:
        paths = [Path(entry["tokenizer_model"]) for entry in extract_tokenizers(archive, found).values()]
        same = sha256(paths[0]) == sha256(paths[1])
        names = ["tokenizer.model"] * 2 if same else ["source.model", "target.model"]
        for path, name in zip(paths, names, strict=True):
            shutil.copyfile(path, directory / name)
    parts = (
        ("encoder", "src_language", model.source_processor),
        ("decoder", "tgt_language", model.target_processor),
    )
    sides = []
    for (side, key, processor), name in zip(parts, names, strict=True):
        section, tokenizer = model.cfg[f"{side}_tokenizer"], getattr(model, f"{side}_tokenizer")
        sides.append(
            TextSide(
                library=section.get("library", compat.DEFAULT_TOKENIZER_LIBRARY),
                file=name,
                language=model.cfg.get(key),
                processor=None if processor is None else type(processor).__name__,
                right_to_left=bool(section.get("r2l", False)),
                special_ids=sorted({getattr(tokenizer, f"{token}_id") for token in ("pad", "unk", "bos", "eos")}),
            )
        )
    return tuple(sides)


def open_export(directory: str | os.PathLike, device: str = "cpu", threads: int | None = None) -> CTranslate2Engine:
    """Return the engine of a directory that `export` wrote.

    Raises:
        InputError: not such a directory.

    Example:
        >>> open_export("student_int8").name  # doctest: +SKIP
        'ctranslate2 int8'
    """
    directory = Path(directory)
    content = read_json(directory / EXPORT_NAME)
    try:
        if content["format_version"] != FORMAT_VERSION:
            raise InputError(
                f"'{directory}' has format version {content['format_version']}, this release reads {FORMAT_VERSION}; "
                "export the model again"
            )
        sides = [TextSide(**content[side]) for side in ("source", "target")]
        settings = SearchSettings(**content["search"])
        limits = content["longest_source"], content["longest_target"]
        quantization = content["quantization"]
    except (KeyError, TypeError) as error:
        raise InputError(f"'{directory}' is not an exported model ({error}); export it again") from error
    tokenizers = [
        get_nmt_tokenizer(side.library, tokenizer_model=str(directory / side.file), r2l=side.right_to_left)
        for side in sides
    ]
    processors = MTEncDecModel.setup_pre_and_post_processing_utils(
        *(side.language for side in sides), *(side.library for side in sides)
    )
    text = TextPipeline(*tokenizers, *processors, longest_source=limits[0])
    return CTranslate2Engine(directory, text, settings, limits[1], quantization, device, threads)
