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
"""Untrained models are measured: of the right size, for as many tokens as the text has."""

import statistics
from pathlib import Path

import pytest

from nemo_distill.archives.restore import restore_model
from nemo_distill.evaluation.engines import count_parameters
from nemo_distill.jobs.latency import choose
from nemo_distill.jobs.recipe import read_recipe
from nemo_distill.jobs.teachers import GivenTeachers
from nemo_distill.jobs.untrained import Untrained


@pytest.fixture
def text(tiny_corpus):
    return tuple(tiny_corpus / f"train.{language}" for language in ("de", "en"))


def test_a_student_of_a_given_teacher(tiny_teacher_path, tiny_corpus, text, tmp_path, capsys):
    """Nothing is too slow, so that the teacher's size is the limit."""
    given, teacher = GivenTeachers.open([str(tiny_teacher_path)]), restore_model(tiny_teacher_path)
    size = "[model.encoder.hidden_size=16, model.encoder.inner_size=32, model.encoder.num_attention_heads=2]"
    recipe = read_recipe(None, {"corpus": str(tiny_corpus)}, [f"student={{latency_ms: 1000, overrides: {size}}}"])
    choice = choose(recipe, given, text, tmp_path / "student.json")
    assert choice.width is None
    assert 1000 < choice.parameters <= count_parameters(teacher)
    assert 0.01 < choice.latency_ms < 1000
    tokenizers = [teacher.encoder_tokenizer, teacher.decoder_tokenizer]
    typical = [
        int(statistics.median(len(tokenizer.text_to_ids(line)) for line in path.read_text("utf-8").splitlines()))
        for tokenizer, path in zip(tokenizers, text, strict=True)
    ]
    assert (choice.source_tokens, choice.target_tokens) == (typical[0], typical[1] + 1)
    assert capsys.readouterr().err.count(" ms\n") >= 2
    assert not list(tmp_path.iterdir())


def test_widths_between_two_sizes(tiny_corpus, text, tmp_path):
    """As far as a megabyte goes, with the vocabulary of the recipe."""
    settings = ["student={latency_ms: 1000, size_mb: 1}", "teacher={model: small_3x3}", "vocab_size=120"]
    choice = choose(read_recipe(None, {"corpus": str(tiny_corpus)}, settings), None, text, tmp_path / "student.json")
    assert (choice.model, choice.request["vocabularies"]) == ("small_1x1", [120, 120])
    assert 128 < choice.width[0] < 256
    assert 0.8e6 < choice.parameters <= 1e6


def test_without_a_teacher_the_tokenizer_is_the_jobs_own_or_of_its_size(tiny_corpus, text, tmp_path):
    recipe = read_recipe(None, {"corpus": str(tiny_corpus)}, ["vocab_size=120"])
    measure = Untrained(recipe, None, text, "int8", tmp_path)
    assert not list(tmp_path.iterdir())
    short = measure.lengths
    (tmp_path / "tokenizer").mkdir()
    own = tmp_path / "tokenizer/tokenizer.model"
    own.write_bytes(Path(measure._tokenizers["encoder"]["tokenizer_model"]).read_bytes())
    again = Untrained(read_recipe(None, {}, ["vocab_size=4000"]), None, text, "int8", tmp_path)
    assert again._tokenizers["decoder"]["tokenizer_model"] == str(own)
    assert again.lengths == short
