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
"""One byte-pair vocabulary shared by source and target, in the two formats that NeMo reads."""

import contextlib
import importlib.util
import io
import os
import re
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from nemo_distill.errors import InputError
from nemo_distill.support import compat, files, manifest, text_files
from nemo_distill.support.incoming import read_bytes
from nemo_distill.support.lock import locked
from nemo_distill.support.quoting import shown_names
from nemo_distill.support.temporary import TemporaryDirectory
from nemo_distill.support.tokenizer_guard import TOKENIZER_BYTES, check_tokenizer, vocabulary_size

MODEL = "tokenizer.model"
LIBRARIES = {"yttm": "youtokentome", "sentencepiece": "sentencepiece"}

# NeMo pads with id 0 and asks the tokenizer for the others.
_MOST_PIECES = 1_000_000
"""More would take YouTokenToMe hours to refuse."""
_SPECIAL_IDS = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3}
_SPECIAL_WORD = re.compile("<(?=(?:PAD|UNK|BOS|EOS|pad|unk|s|/s)>)")
"""Begin of what the libraries call these, where a text has it as a word."""


def train(
    inputs: Sequence[str | os.PathLike],
    vocab_size: int,
    output_dir: str | os.PathLike,
    *,
    library: str | None = None,
    coverage: float = 1.0,
    overwrite: bool = False,
) -> tuple[dict[str, Any], bool]:
    """Train one byte-pair vocabulary on all input files and write `tokenizer.model` with a manifest.

    Text is not rewritten (no NFKC), so what a model reads and writes is what the files hold. SentencePiece gives the
    same bytes for the same text. YouTokenToMe need not: its threads race for pairs of equal frequency, so two runs may
    differ in the order of a few merges. Keep the model to repeat an experiment; the manifest has its hash.

    Args:
        inputs: text files, one sentence a line; give source and target for a shared vocabulary.
        vocab_size: pieces, the four special ones (pad 0, unk 1, bos 2, eos 3) included.
        output_dir: directory to write.
        library: `yttm` (YouTokenToMe) or `sentencepiece`, NeMo's `encoder_tokenizer.library`; by default `yttm`, with
            NeMo 2 `sentencepiece`.
        coverage: share of the characters of the text that get a piece of their own; the rarest rest is unknown.
        overwrite: replace another run in `output_dir`.

    Returns:
        The manifest, and whether the directory was already finished and nothing had to be done.

    Raises:
        InputError: unknown library, bad numbers, missing or empty input, a vocabulary larger than the text supports
            or smaller than its characters need, output directory taken.
    """
    library = library or compat.DEFAULT_TOKENIZER_LIBRARY
    _check(inputs, vocab_size, library, coverage)
    hashes = [files.sha256(path) for path in inputs]
    lines = _read(inputs, hashes)
    request = {"tokenizer": library, "vocab_size": vocab_size, "coverage": coverage, "inputs": hashes}
    manifest.refuse_inputs_as_outputs(inputs, [Path(output_dir, name) for name in (MODEL, manifest.MANIFEST)])
    with locked(output_dir) as directory:
        if finished := manifest.find_finished(directory, request, overwrite, [MODEL]):
            _, found = _read_model(directory / MODEL, library)
            if found != vocab_size:
                raise InputError(
                    f"'{directory}' has {found} pieces in place of {vocab_size}; --overwrite trains it anew"
                )
            return finished, True
        manifest.claim(directory, [MODEL], overwrite)
        with TemporaryDirectory(directory) as temporary:
            text, model = temporary / "text.txt", temporary / MODEL
            # else YouTokenToMe makes a second piece of that name, and SentencePiece learns nothing of the word
            files.write_lines_atomic(text, [_SPECIAL_WORD.sub("< ", line) for line in lines])
            trainer = _train_yttm if library == "yttm" else _train_sentencepiece
            trained_size = trainer(text, model, vocab_size, coverage)
            content, _ = _read_model(model, library)
            if trained_size != vocab_size:
                raise InputError(
                    f"--vocab-size {vocab_size} is more than this text supports: {', '.join(map(str, inputs))} "
                    f"give {trained_size} pieces at most; ask for that or fewer, or add text"
                )
        details = {
            "input_names": [*map(shown_names, inputs)],
            "lines": len(lines),
            "special_ids": _SPECIAL_IDS,
        }
        return manifest.write_run(directory, request, {MODEL: content}, details, overwrite), False


def library_of(path: str | os.PathLike) -> str:
    """Return the library of a tokenizer model, after making sure that it is a whole one.

    Raises:
        InputError: as `check_tokenizer`.
    """
    return check_tokenizer(path)


def missing_marks(path: str | os.PathLike) -> list[str]:
    """Return which of padding, start, end and unknown a SentencePiece model has no piece for; training needs all."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_proto=read_bytes(path, TOKENIZER_BYTES))
    return [name for name in _SPECIAL_IDS if getattr(model, name)() < 0]


def name_libraries(model_config: MutableMapping[str, Any]) -> None:
    """Put the tokenizers' libraries into a `model` section, in place, where it has null for them."""
    for side in ("encoder_tokenizer", "decoder_tokenizer"):
        section = model_config.get(side)
        if section and section.get("tokenizer_model") and "library" in section and section["library"] is None:
            section["library"] = library_of(section["tokenizer_model"])


def _check(inputs: Sequence[str | os.PathLike], vocab_size: int, library: str, coverage: float) -> None:
    """Raise on the first setting that cannot be used."""
    if library not in LIBRARIES:
        raise InputError(f"--library {library!r} is unknown; give {' or '.join(compat.TOKENIZER_LIBRARIES)}")
    if library not in compat.TOKENIZER_LIBRARIES:
        raise InputError(f"--library {library}: {compat.NO_YTTM}")
    if importlib.util.find_spec(LIBRARIES[library]) is None:
        raise InputError(f"--library {library} needs the Python package '{LIBRARIES[library]}'; install it")
    if vocab_size <= len(_SPECIAL_IDS):
        raise InputError(f"--vocab-size {vocab_size} leaves no piece beside the {len(_SPECIAL_IDS)} special ones")
    if vocab_size > _MOST_PIECES:
        raise InputError(f"--vocab-size is above {_MOST_PIECES}, more than any text supports; give fewer")
    if not 0.0 < coverage <= 1.0:
        raise InputError(f"--coverage {coverage} is not in (0, 1]; 1.0 gives every character a piece")
    if not inputs:
        raise InputError("--input names no file; give the text to learn from")


def _read(inputs: Sequence[str | os.PathLike], hashes: Sequence[str]) -> list[str]:
    """Return the text of files with these hashes."""
    lines = []
    for path, wanted in zip(inputs, hashes, strict=True):
        content = [line for line in text_files.iterate_lines(path, wanted) if line.strip()]
        if not content:
            raise InputError(f"--input '{path}' is empty; give a file with one sentence a line")
        lines.extend(content)
    return lines


def _read_model(path: Path, library: str) -> tuple[bytes, int]:
    """Return a model and the number of its pieces, if it is whole: on a full disk YouTokenToMe leaves half of one."""
    content = read_bytes(path, TOKENIZER_BYTES)
    try:
        return content, vocabulary_size(library, content)
    except ValueError as error:
        raise InputError(f"'{path}' is no whole model ({error}); check the disk, and train it anew") from error


def _train_yttm(text: Path, model: Path, vocab_size: int, coverage: float) -> int:
    """Train with YouTokenToMe; return the number of pieces."""
    import youtokentome

    try:
        with _quiet():
            trained = youtokentome.BPE.train(
                data=str(text), model=str(model), vocab_size=vocab_size, coverage=coverage, **_SPECIAL_IDS
            )
    except ValueError as error:
        raise InputError(f"--vocab-size {vocab_size} cannot be trained: {error}") from error
    return trained.vocab_size()


def _train_sentencepiece(text: Path, model: Path, vocab_size: int, coverage: float) -> int:
    """Train with SentencePiece; return the number of pieces. No path enters the model."""
    import sentencepiece

    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text.read_bytes().decode().split("\n")),
            model_writer=written,
            model_type="bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=True,
            character_coverage=coverage,
            normalization_rule_name="identity",
            max_sentence_length=1 << 20,
            num_threads=1,
            minloglevel=2,
            **_SPECIAL_IDS,
        )
    except RuntimeError as error:
        raise InputError(f"--vocab-size {vocab_size} cannot be trained: {error}") from error
    model.write_bytes(written.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue()).get_piece_size()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Send what C++ code prints to standard error nowhere; its errors arrive as exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
