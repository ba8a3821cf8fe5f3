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
import importlib.util
import os
import tempfile

import pytest

from nemo_distill.archives.restore import restore_model
from nemo_distill.config.languages import Languages
from nemo_distill.data import processors
from nemo_distill.data.processors import Processing
from nemo_distill.support import jieba_dictionary

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("jieba", "opencc", "pangu"))), reason="needs jieba, opencc and pangu"
)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The directory of temporary files of a process in which Jieba has not read its dictionary."""
    import jieba

    monkeypatch.setattr(jieba.dt, "initialized", False)
    monkeypatch.setattr(jieba.dt, "tmp_dir", None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    jieba_dictionary.keep_private.cache_clear()
    processors._processors.cache_clear()
    (tmp_path / "jieba.cache").write_bytes(b"of anybody")
    yield tmp_path
    jieba_dictionary.keep_private.cache_clear()


@pytest.mark.parametrize("opened", [True, False])
def test_no_dictionary_is_read_that_others_can_write(opened, temporary, tiny_teacher_path):
    """Neither where text is processed nor in a model that is opened, whose processor NeMo makes."""
    import jieba

    if opened:
        line = restore_model(tiny_teacher_path, languages=Languages("zh", "en")).source_processor.tokenize(
            "我来到北京"
        )
    else:
        line = Processing("zh", "en").process("source", "我来到北京")
    assert line == "我 来到 北京"
    assert "nemo_distill" in jieba.dt.tmp_dir
    assert os.stat(jieba.dt.tmp_dir).st_mode & 0o022 == 0
    assert (temporary / "jieba.cache").read_bytes() == b"of anybody"
