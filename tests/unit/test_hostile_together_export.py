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
"""Two exports into one place, exports killed in the middle, and archives that change meanwhile."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from damage import rebuilt_archive, tree

from nemo_distill.archives.reader import archive_sha256
from nemo_distill.archives.restore import extract_tokenizers, read_archive_config
from nemo_distill.decoding import exporting
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.exporting import export, open_export
from nemo_distill.decoding.opening import open_engine
from nemo_distill.errors import ArchiveError, InputError

# Says that it is at work, and waits there until somebody ends it.
AT_WORK = """\
import sys, time
from nemo_distill.decoding import exporting

def stop(*_):
    print("at work", flush=True)
    time.sleep(600)

setattr(exporting, sys.argv[1], stop)
exporting.export(sys.argv[2], sys.argv[3], "int8", overwrite=True)
"""


@pytest.fixture
def at_work(tiny_teacher_path):
    """A function that starts an export that stops in the function of this name."""
    started = []

    def start(function: str, directory: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", AT_WORK, function, str(tiny_teacher_path), str(directory)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        started.append(process)
        assert any(line == "at work\n" for line in process.stdout), "it ended"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_one_at_a_time_and_a_killed_one_leaves_nothing(at_work, tiny_teacher_path, tmp_path):
    directory = tmp_path / "out"
    export(tiny_teacher_path, directory)
    before = tree(directory)
    process = at_work("write_json_atomic", directory)
    with pytest.raises(InputError, match=f"'.*out' is in use: process {process.pid} on .* works there"):
        export(tiny_teacher_path, directory, "int8", overwrite=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert tree(directory) == before
    assert len(list(tmp_path.iterdir())) == 3  # its lock and what it was writing
    assert export(tiny_teacher_path, directory)["request"]["quantization"] == "float32"
    assert tree(tmp_path) == tree(directory) == before
    assert list(tmp_path.iterdir()) == [directory]


def test_an_archive_swapped_meanwhile(tiny_teacher_path, tmp_path, monkeypatch):
    path = Path(shutil.copy(tiny_teacher_path, tmp_path / "model.nemo"))
    other = rebuilt_archive(tiny_teacher_path, tmp_path / "other.nemo", weights=lambda state: None)
    content = path.read_bytes()
    for name in ("read_archive_config", "restore_model", "extract_tokenizers"):
        original = getattr(exporting, name)

        def swap(*arguments, original=original, **more):
            path.write_bytes(other.read_bytes())
            return original(*arguments, **more)

        with monkeypatch.context() as patch:
            patch.setattr(exporting, name, swap)
            with pytest.raises(ArchiveError, match="model.nemo has the SHA-256 .*, not"):
                export(path, tmp_path / "out")
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.nemo", "other.nemo"]
        path.write_bytes(content)
    export(path, tmp_path / "out")


@pytest.mark.parametrize(
    "read",
    [
        lambda path, digest: read_archive_config(path, sha256=digest),
        lambda path, digest: extract_tokenizers(path, path.parent / "t", sha256=digest),
        lambda path, digest: open_engine(path, sha256=[digest]),
        lambda path, digest: open_engine([path, path], sha256=[digest, digest]),
        lambda path, digest: CTranslate2Engine.from_archive(path, sha256=digest),
    ],
)
def test_every_reading_asks_for_the_hash(read, tiny_teacher_path, tmp_path):
    path = Path(shutil.copy(tiny_teacher_path, tmp_path / "model.nemo"))
    read(path, archive_sha256(path))
    with pytest.raises(ArchiveError, match="model.nemo has the SHA-256"):
        read(path, "0" * 64)


def test_an_export_that_changes_while_it_is_open(tiny_teacher_path, tmp_path):
    """CTranslate2 reads the model again where it takes more workers, and for each batch that is sampled."""
    export(tiny_teacher_path, tmp_path / "out")
    engine = open_export(tmp_path / "out", threads=2)
    model = tmp_path / "out/model.bin"
    model.write_bytes(model.read_bytes())
    with pytest.raises(InputError, match="'.*out' has changed while it was in use; open it again"):
        engine._load(2)
