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
"""Labels in compressed files are those in plain ones."""

import json

import pytest
from labelled_lines import label_lines, write_lines

from nemo_distill.cli.parser import main
from nemo_distill.config.mixture import ComponentConfig, label_names
from nemo_distill.data.forms import labels_are_processed
from nemo_distill.errors import InputError
from nemo_distill.labels.given import label_given
from nemo_distill.labels.nbest import read_nbest
from nemo_distill.labels.selection import select
from nemo_distill.labels.settings import SelectionSettings
from nemo_distill.support import text_files
from nemo_distill.support.compressed import compress as packed

NAMES = ("source.txt", "hypotheses.txt", "dropped.tsv", "nbest.jsonl")


@pytest.fixture(params=["gz", "zst"])
def compress(request):
    """A kind of compression that is installed."""
    if request.param == "zst":
        pytest.importorskip("backports.zstd")
    return request.param


@pytest.fixture
def text(tmp_path):
    return write_lines(tmp_path / "input.de")


@pytest.fixture
def make(word_engine, text, tmp_path):
    """A function that labels the text, plain or compressed."""

    def make(name: str, compress: str | None, **options):
        return label_lines(word_engine, text, tmp_path / name, SelectionSettings(compress=compress), **options)

    return make


def same(directory, plain, suffix: str, names=NAMES) -> None:
    """Assert that compressed files hold what plain ones do, and no other file is there."""
    for name in names:
        path = directory / f"{name}.{suffix}"
        assert text_files.read_lines(path) == text_files.read_lines(plain / name)
    assert {path.name for path in directory.iterdir()} == {"manifest.json", *(f"{name}.{suffix}" for name in names)}


def test_all_files_but_the_manifest(make, tmp_path, compress):
    plain, _ = make("plain", None)
    manifest, was_finished = make("packed", compress)
    same(tmp_path / "packed", tmp_path / "plain", compress)
    assert not was_finished
    assert manifest["counts"] == plain["counts"]
    assert manifest["request"] == {**plain["request"], "compress": compress}
    assert make("packed", compress) == (manifest, True)
    with pytest.raises(InputError, match=rf"made with compress '{compress}' \(now None\)"):
        make("packed", None)
    make("packed", None, overwrite=True)
    assert {path.name for path in (tmp_path / "packed").iterdir()} == {"manifest.json", *NAMES}


def test_chosen_anew_from_compressed_lists_and_into_them(make, tmp_path, compress):
    make("plain", None)
    make("packed", compress)
    for source, kind in (("plain", compress), ("packed", None), ("packed", compress)):
        out = tmp_path / f"{source}-{kind}"
        select(tmp_path / source, out, SelectionSettings(compress=kind), progress=False)
        if kind is None:
            assert (out / "dropped.tsv").read_bytes() == (tmp_path / "plain/dropped.tsv").read_bytes()
        else:
            same(out, tmp_path / "plain", kind, NAMES[:3])


def test_everything_given_compressed(make, text, tmp_path, compress):
    make("plain", None)
    for name, path in (("in.de", text), ("given.jsonl", tmp_path / "plain/nbest.jsonl")):
        content = path.read_bytes()
        half = content.index(b"\n", len(content) // 2) + 1
        (tmp_path / f"{name}.{compress}").write_bytes(
            packed(content[:half], f".{compress}") + packed(content[half:], f".{compress}")
        )
    settings = SelectionSettings(compress=compress, tests=[tmp_path / f"in.de.{compress}"])
    given = tmp_path / f"given.jsonl.{compress}", tmp_path / f"in.de.{compress}"
    manifest, _ = label_given(*given, tmp_path / "given", settings, progress=False)
    assert manifest["counts"]["dropped"] == {"empty source": 20, "in test set": 100}
    assert list(read_nbest(tmp_path / f"given/nbest.jsonl.{compress}")) == list(
        read_nbest(tmp_path / "plain/nbest.jsonl")
    )


def test_training_reads_them(make, tmp_path, compress):
    make("packed", compress)
    assert label_names(tmp_path / "packed") == [(f"source.txt.{compress}", f"hypotheses.txt.{compress}")]
    component = ComponentConfig(directory=str(tmp_path / "packed"))
    [(source, target)] = component.text_files
    assert len(text_files.read_parallel(source, target)) == 80
    assert labels_are_processed((source, target)) is False


def test_from_the_command_line(make, text, tmp_path, compress, capsys):
    make("plain", None)
    command = ["select", "--nbest", str(tmp_path / "plain"), "--output-dir", str(tmp_path / "out")]
    assert main([*command, "--compress", compress, "--drop-duplicates"]) == 0
    assert json.loads((tmp_path / "out/manifest.json").read_text())["counts"]["dropped"]["duplicate"] == 76
    assert f"{tmp_path}/out/dropped.tsv.{compress})" in capsys.readouterr().out
    train = str(tmp_path / f"out/source.txt.{compress}")
    assert main(["leak-check", "--train", train, "--test", str(text)]) == 0
    assert "4 leaked lines" in capsys.readouterr().out
