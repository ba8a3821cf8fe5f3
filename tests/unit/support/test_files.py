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
import json
import os
from pathlib import Path

import pytest
from damage import small_disk

from nemo_distill.errors import InputError
from nemo_distill.support import files, incoming, text_files


def test_atomic_path_keeps_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "result.txt"
    files.write_text_atomic(path, "old")

    def write_half() -> None:
        with files.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.txt"]


def test_write_text_keeps_line_ends_and_honours_umask(tmp_path):
    path = tmp_path / "new" / "result.txt"
    files.write_text_atomic(path, "a\r\nb\u2028ü\n")
    assert path.read_bytes() == "a\r\nb\u2028ü\n".encode()
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode


def test_write_lines_refuses_a_line_break(tmp_path):
    files.write_lines_atomic(tmp_path / "a", ["x\u2028y", ""])
    assert text_files.read_lines(tmp_path / "a") == ["x\u2028y", ""]
    with pytest.raises(ValueError, match="item 2 .* holds a line break"):
        files.write_lines_atomic(tmp_path / "b", ["x", "y\nz"])
    assert not (tmp_path / "b").exists()


def test_json_round_trip_is_strict(tmp_path):
    path = tmp_path / "a.json"
    files.write_json_atomic(path, {"Größe": [1, 2.5, None]})
    assert "Größe" in path.read_text(encoding="utf-8")
    assert incoming.read_json(path) == {"Größe": [1, 2.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json_atomic(path, {"loss": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"Größe": [1, 2.5, None]}
    path.write_text("{")
    with pytest.raises(InputError, match=r"a\.json' is not valid JSON"):
        incoming.read_json(path)
    with pytest.raises(InputError, match="does not exist"):
        incoming.read_json(tmp_path / "absent.json")


def test_sha256_of_known_text(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert files.sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_prepare_output_dir(tmp_path):
    path = files.prepare_output_dir(tmp_path / "runs" / "first")
    assert path.is_dir()
    (path / ".left.tmp").write_text("from an interrupted run")
    assert files.prepare_output_dir(path) == path
    (path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match=r"already holds another run \(manifest\.json\).*--overwrite"):
        files.prepare_output_dir(path)
    assert files.prepare_output_dir(path, overwrite=True) == path
    assert (path / "manifest.json").exists()
    assert files.prepare_output_dir(path, holds=["results.json"]) == path
    with pytest.raises(InputError, match="already holds"):
        files.prepare_output_dir(path, holds=["results.json", "manifest.json"])


def test_prepare_output_dir_under_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="is a file; give another path"):
            files.prepare_output_dir(path)


def fill(path: Path) -> None:
    path.write_bytes(bytes(1000))


def test_errors_of_writing_name_the_users_file(tmp_path):
    (tmp_path / "whole").write_bytes(b"old")
    with (
        small_disk(100),
        pytest.raises(OSError, match="File too large") as error,
        files.atomic_path(tmp_path / "whole") as temporary,
    ):
        fill(temporary)
    assert error.value.filename == str(tmp_path / "whole")
    with pytest.raises(OSError, match="No such file") as error, files.atomic_path(tmp_path / "whole"):
        pass  # nothing written
    assert error.value.filename == str(tmp_path / "whole")
    with (
        small_disk(100),
        pytest.raises(OSError, match="File too large") as error,
        files.replaced_directory(tmp_path / "new") as temporary,
    ):
        fill(temporary / "file")
    assert error.value.filename == str(tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole"]


def test_errors_of_reading_are_not_those_of_the_file_that_is_written(tmp_path):
    with pytest.raises(OSError, match="missing") as error, files.atomic_path(tmp_path / "whole") as temporary:
        temporary.write_bytes((tmp_path / "missing").read_bytes())
    assert error.value.filename == str(tmp_path / "missing")
    with pytest.raises(OSError, match="mem") as error, files.atomic_path(tmp_path / "whole") as temporary:
        temporary.write_text(files.sha256("/proc/self/mem"))
    assert error.value.filename == "/proc/self/mem"
    with pytest.raises(InputError, match="mine"), files.atomic_path(tmp_path / "whole"):
        raise InputError("mine")
