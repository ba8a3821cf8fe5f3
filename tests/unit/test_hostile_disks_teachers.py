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
"""A full disk and Ctrl-C while a cache, a corpus or a tokenizer is written: one line, and the same command goes on."""

import pytest
from damage import small_disk, tree

from nemo_distill import cli
from nemo_distill.support import compat
from nemo_distill.teachers import cache_shards


@pytest.fixture
def commands(tiny_corpus, tiny_teacher_path, tmp_path) -> dict[str, list[str]]:
    """One command of each verb, each into `out`."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for prefix, split in (("train", "train"), ("val", "valid"), ("test_2016_flickr", "test")):
        for language in ("de", "en"):
            (raw / f"{prefix}.{language}").write_text((tiny_corpus / f"{split}.{language}").read_text())
    text = [str(tiny_corpus / "valid.de"), str(tiny_corpus / "valid.en")]
    cache = ["cache", "--teacher", str(tiny_teacher_path), "--source", text[0], "--target", text[1]]
    found = {
        "cache": [*cache, "--shard-tokens", "100"],
        "multi30k": ["corpus", "multi30k", "--from", str(raw), "--source", "de", "--target", "en"],
        "tokenizer": ["tokenizer", "--input", *text, "--vocab-size", "60", "--library", "sentencepiece"],
    }
    return {name: [*command, "--output-dir", str(tmp_path / "out")] for name, command in found.items()}


def last_line(capsys) -> str:
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("verb", "size"), [("cache", 1000), ("cache", 2000), ("multi30k", 1000), ("tokenizer", 1000), ("tokenizer", 10)]
)
def test_a_full_disk(commands, verb, size, tmp_path, capsys):
    with small_disk(size):
        assert cli.main(commands[verb]) == 1
    assert "File too large" in last_line(capsys)
    left = [path.name for path in (tmp_path / "out").rglob("*")] if (tmp_path / "out").exists() else []
    assert not [name for name in left if name.endswith(".tmp") or name.startswith((".nemo_distill", ".lock"))]
    assert cli.main(commands[verb]) == 0
    assert cli.main(commands[verb]) == 0
    assert "already there" in capsys.readouterr().out


@pytest.mark.skipif("yttm" not in compat.TOKENIZER_LIBRARIES, reason="NeMo 2 has no YouTokenToMe")
def test_half_a_model_of_youtokentome_is_noticed(tmp_path, capsys):
    words = "".join(f"{chr(97 + number % 26)}{chr(97 + number // 26)} " for number in range(26 * 26))
    (tmp_path / "text").write_text(words)  # 2,028 bytes; the model has more
    command = ["tokenizer", "--input", str(tmp_path / "text"), "--vocab-size", "590", "--library", "yttm"]
    command += ["--output-dir", str(tmp_path / "out")]
    with small_disk(2100):
        assert cli.main(command) == 2
    assert "is no whole model" in last_line(capsys)
    assert not (tmp_path / "out").exists()
    assert cli.main(command) == 0


def test_ctrl_c_keeps_what_is_finished(commands, tmp_path, monkeypatch, capsys):
    write, done = cache_shards._write_shard, []

    def write_two(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        write(*arguments)
        done.append(arguments[1])

    monkeypatch.setattr(cache_shards, "_write_shard", write_two)
    assert cli.main(commands["cache"]) == 130
    assert last_line(capsys).endswith("interrupted; run the same command again, and it goes on")
    kept = tree(tmp_path / "out/shards")
    assert len(kept) == 5  # two shards and the request
    monkeypatch.undo()
    assert cli.main(commands["cache"]) == 0
    assert kept.items() <= tree(tmp_path / "out/shards").items()
    assert not list((tmp_path / "out").rglob(".*"))
