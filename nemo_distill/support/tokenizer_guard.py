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
"""Tokenizer models are checked before the library behind them reads them.

YouTokenToMe ends the whole process, or never returns, on a damaged file.
"""

import os
import re
from collections.abc import Iterator

import sentencepiece

from nemo_distill.errors import InputError
from nemo_distill.support.incoming import read_bytes

TOKENIZER_BYTES = 64 << 20
"""Most bytes of a tokenizer model: they have some 100 KB to 1 MB."""
_TRAINER_SPEC, _NORMALIZER_SPEC, _DENORMALIZER_SPEC, _UNK_SURFACE, _CHARSMAP = 2, 3, 5, 44, 2
_MOST_EXPANSION = 256  # bytes; NFKC makes 33 of U+FDFA, an unknown piece becomes " \u2047 "
_YTTM_START = re.compile(rb"\d{1,8} \d{1,8}\r?\n")
_YTTM_LINE = re.compile(rb"-?\d{1,8}( -?\d{1,8})*\r?")


def library_of(content: bytes) -> str:
    """Return the library of a tokenizer model: YouTokenToMe's begin with two numbers, SentencePiece's do not."""
    return "yttm" if _YTTM_START.match(content) else "sentencepiece"


def check_tokenizer(path: str | os.PathLike, library: str | None = None) -> str:
    """Make sure that a file is a whole tokenizer model; return its library.

    Args:
        path: of the file.
        library: `yttm` or `sentencepiece`; None: told by the file.

    Raises:
        InputError: it is not there, too large, or damaged.
    """
    content = read_bytes(path, TOKENIZER_BYTES)
    library = library or library_of(content)
    try:
        vocabulary_size(library, content)
    except ValueError as error:
        raise InputError(f"'{path}' is no tokenizer model of {library} ({error}); give a whole one") from error
    return library


def vocabulary_size(library: str, content: bytes) -> int:
    """Check a tokenizer model, and return the number of its pieces.

    Raises:
        ValueError: it is damaged.
    """
    if library == "sentencepiece":
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(content)  # of the constructor, empty content is none
            size = processor.vocab_size()
        except RuntimeError as error:
            raise ValueError(" ".join(str(error).split())) from error
        _check_expansion(content)
        return size
    return _check_yttm(content)


def _check_expansion(content: bytes) -> None:
    """Refuse a SentencePiece model that makes long text of short one: what a character or an unknown piece becomes.

    Numbers are those of sentencepiece_model.proto; its Python module does not load beside every protobuf.
    """
    for number, section in _proto_fields(content):
        if number not in (_TRAINER_SPEC, _NORMALIZER_SPEC, _DENORMALIZER_SPEC):
            continue
        for inner, value in _proto_fields(section):
            if number == _TRAINER_SPEC and inner == _UNK_SURFACE and len(value) > _MOST_EXPANSION:
                raise ValueError(f"its unknown piece becomes a text of {len(value)} bytes")
            if number != _TRAINER_SPEC and inner == _CHARSMAP and len(value) >= 4:
                strings = value[4 + int.from_bytes(value[:4], "little") :].split(b"\0")
                longest = max(map(len, strings), default=0)
                if longest > _MOST_EXPANSION:
                    raise ValueError(f"its normalization makes {longest} bytes of a character")


def _proto_fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of the fields of a protobuf message that hold bytes; the others are passed over."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte, place = content[place], place + 1
            value, shift = value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise ValueError("it is no SentencePiece model")

    try:
        while place < len(content):
            number, kind = divmod(varint(), 8)
            if kind == 0:
                varint()
            elif kind in (1, 5):
                place += 8 if kind == 1 else 4
            elif kind == 2:
                size = varint()
                yield number, content[place : place + size]
                place += size
            else:
                raise ValueError("it is no SentencePiece model")
    except IndexError as error:
        raise ValueError("it is no whole SentencePiece model") from error


def _check_yttm(content: bytes) -> int:
    """Make sure of a YouTokenToMe model: characters, merge rules and special tokens number all pieces, each once."""
    lines = content.removesuffix(b"\n").split(b"\n")
    if not all(_YTTM_LINE.fullmatch(line) for line in lines):
        raise ValueError("it is no YouTokenToMe model")
    rows = [[int(number) for number in line.split()] for line in lines]
    if not rows or len(rows[0]) != 2 or min(rows[0]) < 0 or len(rows) != sum(rows[0]) + 2:
        raise ValueError("it is no whole YouTokenToMe model")
    characters, rules, special = rows[1 : 1 + rows[0][0]], rows[1 + rows[0][0] : -1], rows[-1]
    if {len(row) for row in characters} - {2} or {len(row) for row in rules} - {3} or len(special) != 4:
        raise ValueError("it is no whole YouTokenToMe model")
    codes, pieces = [code for code, _ in characters], [piece for _, piece in characters]
    if len(set(codes)) != len(codes) or 0x2581 not in codes or any(not _is_character(code) for code in codes):
        raise ValueError("its characters are damaged")
    known = set(pieces)
    for left, right, merged in rules:
        if left not in known or right not in known:
            raise ValueError("its merge rules are damaged")
        known.add(merged)
    numbers = sorted([*pieces, *(row[2] for row in rules), *(number for number in special if number != -1)])
    if numbers != list(range(len(numbers))):
        raise ValueError("its pieces are not numbered 0, 1, 2 ...")
    if len({tuple(row[:2]) for row in rules}) != len(rules):
        raise ValueError("its merge rules are damaged")
    return len(numbers)


def _is_character(code: int) -> bool:
    return 0 <= code < 0x110000 and not 0xD800 <= code < 0xE000
