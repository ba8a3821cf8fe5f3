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
"""Two at once, and killed anywhere: labels are made by one job, and whatever it left, the same call ends them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from damage import contents

from nemo_distill import cli
from nemo_distill.errors import InputError
from nemo_distill.labels.labelling import label
from nemo_distill.labels.selection import select
from nemo_distill.labels.settings import SelectionSettings
from nemo_distill.support import shard_directory
from nemo_distill.support.lock import locked, locked_file
from nemo_distill.support.share import Share

OPTIONS = {"teacher": {"teachers": ["words"]}, "shard_lines": 2, "progress": False}


@pytest.fixture
def text(tmp_path):
    """A text of nine lines."""
    path = tmp_path / "input.de"
    path.write_text("".join(f"Satz {number} ist gut\n" for number in range(9)))
    return path


@pytest.fixture
def undisturbed(word_engine, text, tmp_path) -> dict[str, bytes]:
    """The files of an undisturbed run."""
    label(word_engine, text, tmp_path / "undisturbed", **OPTIONS)
    return contents(tmp_path / "undisturbed")


@pytest.mark.parametrize("share", [None, Share(0, 2), Share(1, 2)])
def test_a_second_call_is_refused_and_harms_nothing(word_engine, text, undisturbed, tmp_path, share):
    tried = []

    class Meanwhile(word_engine):
        def translate(self, *arguments):
            with pytest.raises(InputError, match="labels' is in use: process .* works there; wait until it has ended"):
                label(word_engine, text, tmp_path / "labels", share=share, overwrite=bool(tried), **OPTIONS)
            tried.append(True)
            return super().translate(*arguments)

    label(Meanwhile, text, tmp_path / "labels", **OPTIONS)
    assert len(tried) == 5
    assert contents(tmp_path / "labels") == undisturbed


def test_a_single_process_waits_for_no_rank(word_engine, text, tmp_path):
    with locked(tmp_path / "labels", Share(1, 2)), pytest.raises(InputError, match="is in use"):
        label(word_engine, text, tmp_path / "labels", **OPTIONS)
    assert not (tmp_path / "labels").exists()


def test_select_and_leak_check_alone(word_engine, text, undisturbed, tmp_path, capsys):
    with locked(tmp_path / "chosen"), pytest.raises(InputError, match="chosen' is in use"):
        select(tmp_path / "undisturbed", tmp_path / "chosen", progress=False)
    (tmp_path / "test.de").write_text("Satz\n")
    command = ["leak-check", "--train", str(text), "--test", str(tmp_path / "test.de"), "--report"]
    with locked_file(tmp_path / "leaks.tsv"):
        assert cli.main([*command, str(tmp_path / "leaks.tsv")]) == 2
    assert "leaks.tsv' is in use" in capsys.readouterr().err
    assert cli.main([*command, str(tmp_path / "leaks.tsv")]) == 0


def test_select_while_its_source_is_made(word_engine, text, tmp_path):
    """It reads finished lists alone."""

    class Meanwhile(word_engine):
        def translate(self, *arguments):
            with pytest.raises(InputError, match="holds no finished n-best lists"):
                select(tmp_path / "labels", tmp_path / "chosen", progress=False)
            return super().translate(*arguments)

    label(Meanwhile, text, tmp_path / "labels", **OPTIONS)
    assert select(tmp_path / "labels", tmp_path / "chosen", progress=False)[1] is False


def stop(*arguments):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "place",
    [
        "nemo_distill.support.manifest.finish_run",
        "nemo_distill.support.shard_directory.retire",
        "nemo_distill.support.shard_directory.remove",
        "nemo_distill.labels.labelling.write_selection",
        "nemo_distill.labels.shards.claim_shards",
    ],
)
@pytest.mark.parametrize("share", [Share(), Share(0, 2)])
def test_stopped_at_the_end(word_engine, text, undisturbed, tmp_path, monkeypatch, place, share):
    """Whatever lies there then, the next call says that it is finished, or finishes it, and leaves nothing behind."""
    directory = tmp_path / "labels"
    if share.world_size > 1:
        label(word_engine, text, directory, share=Share(1, 2), **OPTIONS)
    if place.endswith("remove"):
        unlink = os.unlink
        monkeypatch.setattr(os, "unlink", lambda path, dir_fd=None: stop() if dir_fd else unlink(path))
    else:
        monkeypatch.setattr(place, stop)
    if share.world_size > 1 and place.endswith("claim_shards"):
        label(word_engine, text, directory, share=share, **OPTIONS)  # the other process had claimed them
    else:
        with pytest.raises(KeyboardInterrupt):
            label(word_engine, text, directory, share=share, **OPTIONS)
    monkeypatch.undo()
    directory.mkdir(exist_ok=True)
    for name in (".nbest.jsonl.nemo_distill-0123abcd.tmp", ".started.json.nemo_distill-0123abcd.tmp"):
        (directory / name).write_text("left by a kill")
    label(word_engine, text, directory, share=share, **OPTIONS)
    assert contents(directory) == undisturbed
    assert not list(directory.glob(".*"))
    assert label(word_engine, text, directory, **OPTIONS)[1]


@pytest.mark.parametrize("shares", [[Share()], [Share(1, 2), Share(0, 2)]])
def test_locks_of_killed_processes(word_engine, text, undisturbed, tmp_path, shares):
    """A job of eight was killed; fewer processes go on."""
    directory = tmp_path / "labels"
    process = os.fork()
    if process == 0:
        with locked(directory, Share(7, 8)):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    (directory / ".lock.x").write_text("mine")
    (directory / ".lock.9").write_text("mine")
    assert (directory / ".lock.7").exists()
    for share in shares:
        label(word_engine, text, directory, share=share, **OPTIONS)
    assert contents(directory) == undisturbed | {".lock.x": b"mine", ".lock.9": b"mine"}


def test_killed_between_manifest_and_note(word_engine, text, undisturbed, tmp_path):
    directory = tmp_path / "undisturbed"
    chosen = tmp_path / "chosen"
    select(directory, chosen, progress=False)
    for path in (directory, chosen):
        (path / ".started.json").write_text("[]")
    assert label(word_engine, text, directory, **OPTIONS)[1]
    assert select(directory, chosen, progress=False)[1]
    assert contents(directory) == undisturbed
    assert not (chosen / ".started.json").exists()


def test_a_late_process_makes_nothing_again(word_engine, text, undisturbed, tmp_path, monkeypatch):
    """The first process finishes and removes the shards while the second one looks at its own."""
    directory = tmp_path / "labels"
    for rank in (1, 0):
        monkeypatch.setattr(shard_directory, "retire", lambda path: None)
        label(word_engine, text, directory, share=Share(rank, 2), **OPTIONS)
    monkeypatch.undo()
    (directory / "manifest.json").rename(tmp_path / "manifest.json")  # not yet written
    (directory / ".started.json").write_text('["source.txt", "hypotheses.txt", "nbest.jsonl", "dropped.tsv"]')
    read = shard_directory.check

    def finish(path):
        (tmp_path / "manifest.json").rename(directory / "manifest.json")
        (directory / ".started.json").unlink()
        monkeypatch.undo()
        names = read(path)
        shard_directory.retire(path)
        return names

    monkeypatch.setattr(shard_directory, "check", finish)
    assert label(word_engine, text, directory, share=Share(1, 2), **OPTIONS)[1]
    assert contents(directory) == undisturbed


def test_interrupted_by_the_keyboard(word_engine, text, undisturbed, tmp_path):
    """Status 130, one line, and the finished shards stay."""
    script, directory = str(word_engine.script), tmp_path / "labels"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, script, str(text), str(directory), "2", "0.3"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(directory.glob(".shards-*/000001.jsonl.gz")):
        pass
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=30)[1]
    assert (process.returncode, error) == (
        130,
        "word_engine: interrupted; run the same command again, and it goes on\n",
    )
    assert len(list(directory.glob(".shards-*/*.jsonl.gz"))) >= 2
    assert sorted(path.name for path in Path(directory).iterdir() if not path.name.startswith(".shards-")) == []


def test_other_settings_keep_an_older_result_until_the_new_one_is_there(word_engine, text, undisturbed, tmp_path):
    (tmp_path / "gold.en").write_text("x\n" * 8)
    settings = SelectionSettings("closest-chrf", tmp_path / "gold.en")
    with pytest.raises(InputError, match="num_hypotheses is 1"):
        label(word_engine, text, tmp_path / "undisturbed", selection=settings, overwrite=True, **OPTIONS)
    assert contents(tmp_path / "undisturbed") == undisturbed
