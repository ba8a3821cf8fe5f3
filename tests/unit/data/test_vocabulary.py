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
"""Two models must mean the same by an id."""

import pytest
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.data.vocabulary import check_vocabularies, is_of_tokenized_text
from nemo_distill.errors import TeacherError


@pytest.fixture
def student(tiny_model_config):
    """A plain model of another size than the teacher, with the same tokenizer."""
    return MTEncDecModel(tiny_model_config(hidden_size=16, num_layers=1))


@pytest.fixture(scope="session")
def other_tokenizers(tiny_corpus, train_tokenizer):
    """Two other tokenizers: one of another size, one of the same size with other tokens."""
    german, english = (tiny_corpus / f"train.{language}" for language in ("de", "en"))
    return {"smaller": str(train_tokenizer([german, english], 100)), "english": str(train_tokenizer([english], 120))}


def test_equal_vocabularies_pass(student, tiny_model):
    check_vocabularies(student, tiny_model)


@pytest.mark.parametrize(
    ("side", "key"), [("source", "encoder_tokenizer"), ("target", "decoder_tokenizer")], ids=["source", "target"]
)
@pytest.mark.parametrize(
    ("name", "difference"),
    [
        ("smaller", "100 tokens against the teacher's 120"),
        ("english", r"token \d+ is '.+' against the teacher's '.+'"),
    ],
)
def test_other_vocabularies_are_refused(tiny_model_config, tiny_model, other_tokenizers, side, key, name, difference):
    config = tiny_model_config(
        hidden_size=16,
        num_layers=1,
        shared_embeddings=False,
        shared_tokenizer=False,
        **{f"{key}.tokenizer_model": other_tokenizers[name]},
    )
    with pytest.raises(TeacherError, match=f"different {side} vocabularies: {difference}. Train the student with the"):
        check_vocabularies(MTEncDecModel(config), tiny_model)


def test_other_vocabularies_stop_the_student(student_config, other_tokenizers):
    tokenizer = other_tokenizers["english"]
    config = student_config(
        **{"encoder_tokenizer.tokenizer_model": tokenizer, "decoder_tokenizer.tokenizer_model": tokenizer}
    )
    with pytest.raises(TeacherError, match="student and teacher have different source vocabularies"):
        DistilledMTEncDecModel(config)


def test_of_what_text_a_vocabulary_is():
    """The third has no stop at all, as of Chinese text; bytes are numbers."""
    words = [f"\u2581w{number}" for number in range(300)]
    assert is_of_tokenized_text([".", *words[:40], "\u2581.", "\u2581,", *words[40:], "\u2581Mr."]) is True
    assert is_of_tokenized_text([".", *words, *(f"{letter}." for letter in "abcdefg")]) is False
    assert is_of_tokenized_text([".", *words, "\u2581."]) is False
    assert is_of_tokenized_text(words[:1]) is None
    assert is_of_tokenized_text(list(range(256))) is None
