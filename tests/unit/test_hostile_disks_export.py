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
"""A disk that is full while models are converted, exported or opened: one line, nothing left behind."""

import tempfile
from pathlib import Path

import pytest
from damage import small_disk, tree

from nemo_distill import cli
from nemo_distill.archives import restore
from nemo_distill.archives.restore import extract_tokenizers, restore_model
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.exporting import export
from nemo_distill.decoding.opening import open_engine
from nemo_distill.errors import StorageError
from nemo_distill.support.temporary import TemporaryDirectory


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """The directory of temporary files, of this test alone."""
    restore._private_directory()  # made once by a process, for tokenizers
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


# of the program, the tokenizer and the page; then of the model
@pytest.mark.parametrize("size", [100, 8_000, 100_000])
def test_an_export(size, tiny_teacher_path, tmp_path, temporary, capsys):
    export(tiny_teacher_path, tmp_path / "out")
    before = tree(tmp_path / "out")
    for directory in ("new", "out"):
        command = ["export", "--model", str(tiny_teacher_path), "--output-dir", str(tmp_path / directory)]
        with small_disk(size):
            assert cli.main([*command, "--quantization", "int8", "--overwrite"]) == 1
        message = capsys.readouterr().err
        assert message.count("\n") == 1, message
        assert "cannot be written (File too large); make room there" in message
    assert tree(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "temporary"]
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("open_model", [open_engine, CTranslate2Engine.from_archive])
def test_the_converted_copy(open_model, tiny_teacher_path, temporary):
    restore_model(tiny_teacher_path)  # its tokenizers lie in the directory of this process
    with small_disk(100_000), pytest.raises(StorageError, match="temporary' cannot be written .*or set TMPDIR to"):
        open_model(tiny_teacher_path)
    assert not list(temporary.iterdir())


def test_tokenizers(tiny_teacher_path, tmp_path, temporary, monkeypatch):
    place = TemporaryDirectory()
    monkeypatch.setattr(restore, "_private_directory", lambda: place)
    with small_disk(100), pytest.raises(StorageError, match="temporary' cannot be written .*or set TMPDIR to"):
        restore_model(tiny_teacher_path)
    with small_disk(100), pytest.raises(StorageError, match=r"encoder.model' cannot be written"):
        extract_tokenizers(tiny_teacher_path, tmp_path / "out")
    assert not list(tmp_path.rglob("*.model"))


def test_no_directory_of_temporary_files(tiny_teacher_path, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    monkeypatch.setattr(restore, "_private_directory", TemporaryDirectory)
    with pytest.raises(StorageError, match="none' cannot be written .*or set TMPDIR to a directory with more"):
        restore_model(tiny_teacher_path)
