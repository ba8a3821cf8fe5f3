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
"""What is removed around pseudo-labels proves itself ours: by name, request, content and owner."""

import json
import os
import re
from pathlib import Path

import pytest
from damage import time_limit, tree

from nemo_distill import cli
from nemo_distill.errors import InputError
from nemo_distill.labels import leak_check
from nemo_distill.labels.labelling import label
from nemo_distill.labels.selection import select
from nemo_distill.labels.settings import SelectionSettings
from nemo_distill.support import shard_directory

OPTIONS = {"teacher": {"teachers": ["words"]}, "shard_lines": 2, "progress": False}
REQUEST = {"verb": "pseudo-label", "seed": 1}
NAME = shard_directory.name_for(REQUEST)


@pytest.fixture
def text(tmp_path):
    """A text of three lines."""
    path = tmp_path / "input.de"
    path.write_text("".join(f"Satz {number} ist gut\n" for number in range(3)))
    return path


@pytest.fixture
def shards(tmp_path) -> Path:
    """A directory of shards of another request, none of them finished, as a killed process leaves it."""
    directory = tmp_path / "labels" / NAME
    directory.mkdir(parents=True)
    (directory / "request.json").write_text(json.dumps(REQUEST))
    (directory / "engine.json").write_text('{"name": "words"}')
    (directory / ".000001.jsonl.nemo_distill-0123abcd.tmp").write_text("half")
    return directory


def test_shards_of_ours_go(word_engine, text, shards):
    label(word_engine, text, shards.parent, **OPTIONS)
    assert not list(shards.parent.glob(".*"))


def test_an_empty_directory_goes(word_engine, text, shards):
    """Killed before the request was written."""
    for name in ("request.json", "engine.json"):
        (shards / name).unlink()
    label(word_engine, text, shards.parent, **OPTIONS)
    assert not shards.exists()


def linked(shards: Path) -> None:
    """A link in the directory's place."""
    shards.rename(shards.parent.parent / "elsewhere")
    shards.symlink_to(shards.parent.parent / "elsewhere")


def linked_file(shards: Path) -> None:
    """A link in a shard's place."""
    (shards / "000000.jsonl.gz").symlink_to(shards.parent.parent / "input.de")


FOREIGN = {
    "a file of another": lambda shards: (shards / "thesis.tex").write_text("mine"),
    "a directory": lambda shards: (shards / "000000.jsonl.gz").mkdir(),
    "a pipe": lambda shards: os.mkfifo(shards / "engine.jsonl"),
    "a link in a shard's place": linked_file,
    "a link": linked,
    "another request": lambda shards: (shards / "request.json").write_text('{"verb": "x"}'),
    "no request": lambda shards: (shards / "request.json").unlink(),
    "a name": lambda shards: shards.rename(shards.with_name(".shards-mine")),
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_not_ours_stays(word_engine, text, shards, tmp_path, kind, overwrite):
    FOREIGN[kind](shards)
    before = {path: path.lstat().st_ino for path in tmp_path.rglob("*")}
    with pytest.raises(InputError, match=r"has the name of a directory of shards, but is none .*; move it"):
        label(word_engine, text, tmp_path / "labels", overwrite=overwrite, **OPTIONS)
    assert {path: path.lstat().st_ino for path in tmp_path.rglob("*")} == before


def test_shards_of_another_user_stay(word_engine, text, shards, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(InputError, match="no file of a run|another user"):
        label(word_engine, text, shards.parent, **OPTIONS)
    assert len(list(shards.iterdir())) == 3


def test_what_comes_in_place_of_the_shards_stays_with_a_warning(word_engine, text, tmp_path, caplog):
    class Adding(word_engine):
        def translate(self, *arguments):
            (next((tmp_path / "labels").glob(".shards-*")) / "notes.txt").write_text("mine")
            return super().translate(*arguments)

    label(Adding, text, tmp_path / "labels", **OPTIONS)
    assert "'notes.txt' in it is no file of a run" in caplog.text
    assert next((tmp_path / "labels").glob(".shards-*/notes.txt")).read_text() == "mine"


def test_an_input_is_not_replaced(word_engine, text, tmp_path, capsys):
    label(word_engine, text, tmp_path / "labels", **OPTIONS)
    before = tree(tmp_path)
    source = tmp_path / "labels/source.txt"
    with pytest.raises(InputError, match="source.txt' is an input, and would be replaced by the output"):
        label(word_engine, source, tmp_path / "labels", overwrite=True, **OPTIONS)
    (tmp_path / "link").symlink_to(source)
    settings = SelectionSettings(tests=[tmp_path / "link"])
    with pytest.raises(InputError, match="link' is an input"):
        label(word_engine, text, tmp_path / "labels", selection=settings, overwrite=True, **OPTIONS)
    select(tmp_path / "labels", tmp_path / "chosen", progress=False)
    settings = SelectionSettings(tests=[tmp_path / "chosen/source.txt"])
    with pytest.raises(InputError, match="source.txt' is an input"):
        select(tmp_path / "labels", tmp_path / "chosen", settings, overwrite=True, progress=False)
    command = ["leak-check", "--train", str(text), "--test", str(source), "--overwrite", "--report"]
    for path in (text, tmp_path / "link"):
        assert cli.main([*command, str(path)]) == 2
        assert "is an input, and would be replaced" in capsys.readouterr().err
    assert {
        name: content for name, content in tree(tmp_path).items() if name in before and "link" not in name
    } == before


def test_overwriting_removes_only_what_the_older_run_wrote(word_engine, text, tmp_path):
    """A manifest may list anything: a file that has not the hash noted there was not written with it."""
    label(word_engine, text, tmp_path / "labels", **OPTIONS)
    path = tmp_path / "labels/manifest.json"
    (tmp_path / "labels/thesis.tex").write_text("mine")
    content = json.loads(path.read_text())
    content["files"]["thesis.tex"] = {"sha256": "0" * 64}
    path.write_text(json.dumps(content))
    label(word_engine, text, tmp_path / "labels", overwrite=True, **OPTIONS)
    assert (tmp_path / "labels/thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("kind", ["text", "empty", "fifo", "link", "directory", "dangling"])
def test_what_is_no_report_of_leaks_is_not_replaced_by_one(text, tmp_path, capsys, monkeypatch, kind, overwrite):
    """It is refused before any text is read."""
    (tmp_path / "mine.tsv").write_text("train\tline\nof the user\n")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "mine.tsv")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "directory").mkdir()
    monkeypatch.setattr(leak_check, "check_leaks", None)
    path = tmp_path / ("mine.tsv" if kind == "text" else kind)
    before = path.lstat().st_ino
    command = ["leak-check", "--train", str(text), "--test", str(tmp_path / "mine.tsv"), *overwrite]
    (tmp_path / "test.de").write_text("Satz\n")
    command[command.index("--test") + 1] = str(tmp_path / "test.de")
    with time_limit(10):
        assert cli.main([*command, "--report", str(path)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search("give another name", error)
    assert path.lstat().st_ino == before
