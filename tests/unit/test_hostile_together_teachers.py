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
"""Two commands at once in one place, and what killed ones leave, for caches, corpora and tokenizers."""

import contextlib
import os
import re

import pytest
from damage import tree

from nemo_distill import cli
from nemo_distill.data.corpora import wheel
from nemo_distill.errors import InputError
from nemo_distill.support.lock import locked, locked_file
from nemo_distill.support.share import Share
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache


@pytest.fixture
def commands(tiny_corpus, tiny_teacher_path, tmp_path) -> dict[str, list[str]]:
    """One command of each verb, each into `out`."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for prefix in ("train", "val", "test_2016_flickr"):
        for language in ("de", "en"):
            (raw / f"{prefix}.{language}").write_text("ein Satz\n")
    text = [str(tiny_corpus / "valid.de"), str(tiny_corpus / "valid.en")]
    found = {
        "cache": ["cache", "--teacher", str(tiny_teacher_path), "--source", text[0], "--target", text[1]],
        "multi30k": ["corpus", "multi30k", "--from", str(raw), "--source", "de", "--target", "en"],
        "ui-strings": ["corpus", "ui-strings", "--source", "de", "--target", "en", "--cache-dir", str(tmp_path)],
        "tokenizer": ["tokenizer", "--input", *text, "--vocab-size", "60"],
    }
    return {name: [*command, "--output-dir", str(tmp_path / "out")] for name, command in found.items()}


@pytest.mark.parametrize("verb", ["cache", "multi30k", "ui-strings", "tokenizer"])
def test_the_second_of_two_at_once_is_refused(commands, verb, tmp_path, capsys):
    with locked(tmp_path / "out"):
        before = tree(tmp_path)
        assert cli.main(commands[verb]) == 2
        assert tree(tmp_path) == before
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(rf"out' is in use: process {os.getpid()} on '.+' since .+; wait until it has ended", error)


def test_a_second_process_of_a_rank_is_refused(tiny_corpus, tiny_teacher_path, tmp_path):
    pair = [(str(tiny_corpus / "valid.de"), str(tiny_corpus / "valid.en"))]
    with locked(tmp_path / "out", Share(1, 2)):
        with pytest.raises(InputError, match="is in use"):
            write_cache([str(tiny_teacher_path)], pair, tmp_path / "out", share=Share(1, 2))
        with pytest.raises(InputError, match="is in use"):  # alone, while a job is at work
            write_cache([str(tiny_teacher_path)], pair, tmp_path / "out")
        with contextlib.suppress(TimeoutError):
            write_cache([str(tiny_teacher_path)], pair, tmp_path / "out", share=Share(0, 2, wait_minutes=0.001))


def test_two_downloads_at_once(tmp_path):
    with locked_file(tmp_path / wheel.WHEEL_NAME), pytest.raises(InputError, match="whl' is in use: process"):
        wheel.fetch_wheel(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_cache_left_goes_and_nothing_is_made_twice(tiny_corpus, tiny_teacher_path, tmp_path):
    pair = [(str(tiny_corpus / "valid.de"), str(tiny_corpus / "valid.en"))]
    arguments = [str(tiny_teacher_path)], pair, tmp_path / "out", CacheSettings(4, shard_tokens=200)
    manifest, _ = write_cache(*arguments)
    whole = tree(tmp_path / "out")
    (tmp_path / "out/manifest.json").unlink()
    (tmp_path / "out/.started.json").write_text("[]")
    for name in (".manifest.json", "shards/.000001.rows.npy"):
        path = tmp_path / "out" / name
        path.with_name(f".{path.name.lstrip('.')}.nemo_distill-0123abcd.tmp").write_text("half")
    kept = (tmp_path / "out/shards/000000.rows.npy").stat().st_mtime_ns
    assert write_cache(*arguments) == (manifest, False)
    assert tree(tmp_path / "out") == whole
    assert (tmp_path / "out/shards/000000.rows.npy").stat().st_mtime_ns == kept
    assert write_cache(*arguments) == (manifest, True)
