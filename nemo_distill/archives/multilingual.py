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
"""The language tokens of one-to-many models of NeMo 1.2 to 1.5, which newer NeMo cannot open."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from nemo.collections.common.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer
from nemo.collections.nlp.models import MTEncDecModel

_TOKENIZERS, _LANGUAGES = "setup_enc_dec_tokenizers", "setup_multilingual_ids_and_processors"


@contextmanager
def known_language_ids() -> Iterator[None]:
    """Inside the block, NeMo gives a target language the id of its tokenizer's own piece, `<de>`, if there is one.

    So did NeMo 1.2 to 1.5, whose multilingual tokenizers have the languages as control symbols: no text encodes to
    them. Newer NeMo encodes the text `<de>`, gets several pieces, wants to add one, and fails; NeMo 2 before that.
    """
    stock = {name: vars(MTEncDecModel)[name] for name in (_TOKENIZERS, _LANGUAGES)}
    make_tokenizers, find_languages = (getattr(MTEncDecModel, name) for name in stock)

    def tokenizers(**arguments: Any) -> tuple:
        sides = [
            (arguments.get(f"{side}_tokenizer_library"), bool(arguments.get(f"{side}_sentencepiece_legacy")))
            for side in ("encoder", "decoder")
        ]
        if sides == [("sentencepiece", False)] * 2:  # which take no special tokens
            arguments["special_tokens"] = {}
        return make_tokenizers(**arguments)

    def languages(source: Any, target: Any, encoder: Any, decoder: Any, *libraries: str) -> tuple:
        with ExitStack() as stack:
            for tokenizer in {id(each): each for each in (encoder, decoder)}.values():
                stack.enter_context(_pieces_first(tokenizer))
            return find_languages(source, target, encoder, decoder, *libraries)

    setattr(MTEncDecModel, _TOKENIZERS, staticmethod(tokenizers))
    setattr(MTEncDecModel, _LANGUAGES, staticmethod(languages))
    try:
        yield
    finally:
        for name, descriptor in stock.items():
            setattr(MTEncDecModel, name, descriptor)


@contextmanager
def _pieces_first(tokenizer: Any) -> Iterator[None]:
    """Inside the block, text that is a piece of a SentencePiece model encodes to that piece."""
    if not isinstance(tokenizer, SentencePieceTokenizer) or tokenizer.legacy:
        yield
        return
    encode, pieces = tokenizer.text_to_ids, tokenizer.tokenizer

    def piece_or_text(text: str) -> list[int]:
        number = pieces.piece_to_id(text)
        return encode(text) if number == pieces.unk_id() else [number]

    tokenizer.text_to_ids = piece_or_text
    try:
        yield
    finally:
        del tokenizer.text_to_ids
