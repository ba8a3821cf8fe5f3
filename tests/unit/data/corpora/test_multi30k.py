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
import gzip

import pytest

from nemo_distill import cli
from nemo_distill.data.corpora import multi30k
from nemo_distill.errors import InputError
from nemo_distill.support import files, text_files

LINES = {
    "train": [("Ein Hund läuft .", "A dog runs ."), ("Zwei  Katzen\u2028schlafen", "Two cats\u2028sleep")],
    "val": [("Ein Kind lacht", "A child laughs")],
    "test_2016_flickr": [("Eine Frau liest", "A woman reads")],
}


@pytest.fixture
def raw(tmp_path):
    """Files of our own under the names of the corpus, one of them not compressed."""
    directory = tmp_path / "raw"
    directory.mkdir()
    for prefix, pairs in LINES.items():
        for place, language in enumerate(("de", "en")):
            content = "".join(pair[place] + "\n" for pair in pairs).encode()
            if (prefix, language) == ("val", "en"):
                (directory / "val.en").write_bytes(content)
            else:
                (directory / f"{prefix}.{language}.gz").write_bytes(gzip.compress(content))
    return directory


def test_build_copies_the_lines_as_they_are(raw, tmp_path):
    manifest, was_finished = multi30k.build(raw, "de", "en", tmp_path / "out")
    assert not was_finished
    for split, prefix in (("train", "train"), ("valid", "val"), ("test", "test_2016_flickr")):
        assert (
            text_files.read_parallel(tmp_path / "out" / f"{split}.de", tmp_path / "out" / f"{split}.en")
            == LINES[prefix]
        )
        assert manifest["splits"][split]["pairs"] == len(LINES[prefix])
    assert manifest["request"]["inputs"]["train.de.gz"] == files.sha256(raw / "train.de.gz")
    assert "non-commercial" in manifest["licence"]
    assert multi30k.build(raw, "de", "en", tmp_path / "out") == (manifest, True)


def test_changed_input_is_another_run(raw, tmp_path):
    multi30k.build(raw, "de", "en", tmp_path / "out")
    (raw / "val.en").write_text("A child smiles\n")
    with pytest.raises(InputError, match="already holds another run, made with other content of inputs.val.en"):
        multi30k.build(raw, "de", "en", tmp_path / "out")


def test_missing_files_are_named_all_at_once(raw, tmp_path):
    (raw / "train.de.gz").unlink()
    (raw / "val.en").unlink()
    with pytest.raises(InputError, match=r"lacks train\.de\.gz, val\.en\.gz \(.*https://github\.com/multi30k/dataset"):
        multi30k.build(raw, "de", "en", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_directory(tmp_path):
    with pytest.raises(InputError, match="absent' is not a directory"):
        multi30k.build(tmp_path / "absent", "de", "en", tmp_path / "out")


def test_unequal_files_are_refused(raw, tmp_path):
    (raw / "val.en").write_text("one\ntwo\n")
    with pytest.raises(InputError, match=r"val\.de\.gz' has 1 lines but .*val\.en' has 2"):
        multi30k.build(raw, "de", "en", tmp_path / "out")


def test_bad_utf8_names_file_and_line(raw, tmp_path):
    (raw / "val.en").write_bytes(b"A child\xe9 laughs\n")
    with pytest.raises(InputError, match=r"val\.en', line 1: byte 0xe9"):
        multi30k.build(raw, "de", "en", tmp_path / "out")


def test_command_line_round_trip(raw, tmp_path, capsys):
    command = ["corpus", "multi30k", "--from", str(raw), "--source", "en", "--target", "de"]
    command += ["--output-dir", str(tmp_path / "out")]
    assert cli.main(command) == 0
    assert "multi30k en-de, pairs: train 2, valid 1, test 1 (written)" in capsys.readouterr().out
    assert cli.main(command) == 0
    assert "already there" in capsys.readouterr().out
    (raw / "train.en.gz").unlink()
    assert cli.main(command) == 2
    assert "lacks train.en.gz" in capsys.readouterr().err
