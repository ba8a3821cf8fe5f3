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
"""A teacher whose text is processed in another way than its student's."""

import pytest

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.errors import TeacherError
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache


def test_ids_must_mean_the_same_text(student_config):
    """The same tokenizer under another text processing is another vocabulary."""
    config = student_config(hidden_size=8, src_language="ignore")
    with pytest.raises(
        TeacherError,
        match=r"processes text in another way \(source MosesProcessor de, target MosesProcessor en\) than the student "
        r"\(source raw text, target MosesProcessor en\), .*data.processing=teacher",
    ):
        DistilledMTEncDecModel(config)
    config.distillation.teacher.source_language = "ignore"
    assert DistilledMTEncDecModel(config)._teacher.model.source_processor is None


def test_a_cache_of_processed_text_and_a_student_of_raw_text(
    tiny_corpus, tiny_teacher_path, student_config, tmp_path_factory
):
    directory = tmp_path_factory.mktemp("cache") / "cache"
    pair = str(tiny_corpus / "valid.de"), str(tiny_corpus / "valid.en")
    write_cache([str(tiny_teacher_path)], [pair], directory, CacheSettings(4), form="raw")
    config = student_config(hidden_size=8, src_language="ignore", tgt_language="ignore")
    config.distillation.teacher = {"cache": str(directory)}
    with pytest.raises(TeacherError, match="processes text in another way .* than the student .source raw text,"):
        DistilledMTEncDecModel(config)
