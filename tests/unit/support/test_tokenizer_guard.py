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

import io

import pytest
import sentencepiece

from nemo_distill.support.text_files import read_lines
from nemo_distill.support.tokenizer_guard import vocabulary_size


@pytest.fixture(scope="module")
def model(tiny_corpus) -> bytes:
    """A small SentencePiece model, with NFKC."""
    written = io.BytesIO()
    lines = iter(read_lines(tiny_corpus / "train.de"))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=written, vocab_size=60, minloglevel=2
    )
    return written.getvalue()


def field(number: int, content: bytes) -> bytes:
    """Return a field of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def test_a_good_model(model):
    assert vocabulary_size("sentencepiece", model) == 60


def test_an_unknown_piece_that_becomes_a_long_text(model):
    grown = model + field(2, field(44, b"x" * 100_000))  # fields that come again take the place of the first ones
    assert len(sentencepiece.SentencePieceProcessor(model_proto=grown).decode([0])) == 100_000
    with pytest.raises(ValueError, match="its unknown piece becomes a text of 100000 bytes"):
        vocabulary_size("sentencepiece", grown)


def test_a_character_that_becomes_a_long_text(tiny_corpus, tmp_path):
    (tmp_path / "rules.tsv").write_text("51\t" + " ".join(["41"] * 5000) + "\n")
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(read_lines(tiny_corpus / "train.de")),
        model_writer=written,
        vocab_size=60,
        hard_vocab_limit=False,
        max_sentence_length=1 << 24,
        normalization_rule_tsv=str(tmp_path / "rules.tsv"),
        minloglevel=2,
    )
    with pytest.raises(ValueError, match="its normalization makes 5000 bytes of a character"):
        vocabulary_size("sentencepiece", written.getvalue())


def test_cut_models(model):
    for size in range(0, len(model), 7):
        try:
            vocabulary_size("sentencepiece", model[:size])
        except ValueError:
            continue
