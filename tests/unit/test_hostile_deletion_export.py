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
"""What `export --overwrite` removes proves to be an export, whole and unchanged; all else stays where it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import tree

from nemo_distill.decoding.exporting import export, open_export
from nemo_distill.errors import InputError


def write(name: str) -> Callable[[Path], None]:
    """Return what writes a file of that name into a directory."""

    def change(directory: Path) -> None:
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text("years of work")

    return change


def link(directory: Path) -> None:
    (directory / "model.bin").rename(directory.parent / "model.bin")
    (directory / "model.bin").symlink_to(directory.parent / "model.bin")


def foreign(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()
    (directory / "export.json").write_text(json.dumps({"format_version": 2}))
    (directory / "thesis.txt").write_text("years of work")


KINDS = {
    "unknown file": (write("thesis.txt"), "holds 'thesis.txt', which the export there did not write; move that away"),
    "hidden file": (write(".notes"), "holds '.notes', which"),
    "below": (write("more/thesis.txt"), "holds 'more', which"),
    "in the place of the compiled program": (write("__pycache__/thesis.txt"), "holds '__pycache__/thesis.txt', which"),
    "changed": (write("model.bin"), "model.bin' has changed since the model was exported"),
    "changed page": (write("README.md"), "README.md' has changed since the model was exported"),
    "link": (link, "holds 'model.bin', which"),
    "of another tool": (foreign, "holds no whole export of this release"),
    "missing": (lambda directory: (directory / "model.bin").unlink(), "model.bin' does not exist"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_unknown_is_replaced(kind, exported, tiny_teacher_path, tmp_path):
    change, message = KINDS[kind]
    directory = Path(shutil.copytree(exported, tmp_path / "out"))
    change(directory)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=message):
        export(tiny_teacher_path, directory, "int8", overwrite=True)
    assert tree(tmp_path) == before


def test_links_and_odd_places_are_not_replaced(exported, tiny_teacher_path, tmp_path, monkeypatch):
    directory = Path(shutil.copytree(exported, tmp_path / "real"))
    (tmp_path / "link").symlink_to(directory)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "file").write_text("years of work")
    before = tree(tmp_path)
    for name in ("link", "dangling", "file"):
        with pytest.raises(InputError, match="is no directory, or a link to one"):
            export(tiny_teacher_path, tmp_path / name, "int8", overwrite=True)
    monkeypatch.chdir(directory)
    for name in (".", "/", "../real/"):
        with pytest.raises(InputError, match="is the current directory, or the root"):
            export(tiny_teacher_path, name, "int8", overwrite=True)
    assert tree(tmp_path) == before


def test_an_export_that_was_imported_is_replaced(exported, tiny_teacher_path, tmp_path):
    """Python leaves a compiled program there."""
    directory = Path(shutil.copytree(exported, tmp_path / "out"))
    (directory / "__pycache__").mkdir()
    (directory / "__pycache__/translate.cpython-311.pyc").write_bytes(b"x")
    export(tiny_teacher_path, directory, "int8", overwrite=True)
    assert open_export(directory).name == "ctranslate2 int8"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
