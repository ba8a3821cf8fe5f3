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
"""What lies in an output directory and is not ours stays, whatever a manifest says and with --overwrite too."""

import json
import os
import shutil
from pathlib import Path

import pytest
from damage import tree

from nemo_distill import cli
from nemo_distill.data import tokenizer
from nemo_distill.data.corpora import multi30k, wheel
from nemo_distill.errors import InputError
from nemo_distill.support import files, manifest
from nemo_distill.support.manifest import write_run
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache

REQUEST = {"corpus": "own", "seed": 0}


def listed(directory: Path, names: list[str], **other) -> None:
    """Write a manifest that lists files with their right hashes."""
    entries = {name: {"sha256": files.sha256(directory / name)} for name in names}
    (directory / manifest.MANIFEST).write_text(json.dumps({"request": REQUEST, "files": entries, **other}))


def test_a_manifest_from_elsewhere_removes_nothing_of_the_users(tmp_path):
    for name in ("thesis.tex", "train.fr", "train.es", "link.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "train.it").symlink_to(tmp_path / "thesis.tex")
    listed(tmp_path, ["thesis.tex", "train.fr", "train.es", "train.it"])
    (tmp_path / "train.es").write_text("changed since")
    manifest.write_run(tmp_path, REQUEST | {"seed": 1}, {"train.de": b"a\n"}, {}, overwrite=True)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"thesis.tex", "train.es", "train.it", "link.txt", "train.de", "manifest.json"}


@pytest.mark.parametrize("content", ['{"name": "web page", "icons": []}', "[]", '{"request": {}, "files": {"/x": 1}}'])
def test_the_manifest_of_another_tool_is_not_overwritten(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    before = tree(tmp_path)
    for act in (manifest.claim, manifest.start_run):
        with pytest.raises(InputError, match="manifest of another tool"):
            act(tmp_path, ["a.txt"], True)
    assert tree(tmp_path) == before


def test_a_wheel_with_another_hash_stays(tmp_path):
    path = tmp_path / wheel.WHEEL_NAME
    path.write_bytes(b"of the user")
    with pytest.raises(InputError, match="remove it and run"):
        wheel.fetch_wheel(tmp_path, "0" * 64)
    assert path.read_bytes() == b"of the user"


@pytest.fixture(scope="module")
def whole(tiny_corpus, tiny_teacher_path, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("deletion") / "cache"
    pair = str(tiny_corpus / "valid.de"), str(tiny_corpus / "valid.en")
    write_cache([str(tiny_teacher_path)], [pair], directory, CacheSettings(4))
    return directory


@pytest.fixture
def overwrite(whole, tiny_corpus, tiny_teacher_path, tmp_path):
    """A cache, and what writes another one there."""
    directory = Path(shutil.copytree(whole, tmp_path / "cache"))
    pair = str(tiny_corpus / "valid.de"), str(tiny_corpus / "valid.en")

    def write(**options):
        return write_cache([str(tiny_teacher_path)], [pair], directory, CacheSettings(3), **options)

    return directory, write


@pytest.mark.parametrize("name", ["results.ods", "000000.tokens.npy.bak", "0.rows.npy", "folder/000000.rows.npy"])
def test_a_cache_with_something_unknown_in_it_is_not_overwritten(overwrite, name):
    directory, write = overwrite
    path = directory / "shards" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    before = tree(directory)
    with pytest.raises(InputError, match=r"is no file of a cache; move it elsewhere"):
        write(overwrite=True)
    assert tree(directory) == before


def test_shards_behind_a_link_are_not_removed(overwrite, tmp_path):
    directory, write = overwrite
    os.rename(directory / "shards", tmp_path / "elsewhere")
    (directory / "shards").symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path)
    with pytest.raises(InputError, match="shards' is a link"):
        write(overwrite=True)
    assert tree(tmp_path) == before


def test_a_cache_is_overwritten(overwrite):
    _, write = overwrite
    with pytest.raises(InputError, match="top_k 4 \\(now 3\\)"):
        write()
    written, was_finished = write(overwrite=True)
    assert not was_finished
    assert written["request"]["top_k"] == 3


def test_shards_of_unknown_origin_are_not_taken_for_ours(overwrite):
    directory, write = overwrite
    (directory / "manifest.json").unlink()
    (directory / "shards/request.json").unlink()
    with pytest.raises(InputError, match="no request.json says of what"):
        write()


def test_shards_behind_a_link_to_an_empty_directory(tiny_corpus, tiny_teacher_path, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/shards").symlink_to(tmp_path / "elsewhere")
    pair = str(tiny_corpus / "valid.de"), str(tiny_corpus / "valid.en")
    with pytest.raises(InputError, match="shards' is a link"):
        write_cache([str(tiny_teacher_path)], [pair], tmp_path / "cache", CacheSettings(3))
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("request_text", [None, "{}", '{"verb": "pseudo-label"}', "[", "directory"])
def test_files_that_are_only_named_like_shards_are_not_removed(overwrite, request_text):
    directory, write = overwrite
    (directory / "manifest.json").unlink()
    (directory / "shards/request.json").unlink()
    if request_text == "directory":
        (directory / "shards").rename(directory / "away")
        (directory / "shards").write_text("mine")
    elif request_text is not None:
        (directory / "shards/request.json").write_text(request_text)
    before = tree(directory)
    with pytest.raises(InputError, match="named like shards, and neither request.json in it|is no directory"):
        write(overwrite=True)
    assert tree(directory) == before


@pytest.mark.parametrize("proof", ["shards/request.json", "manifest.json"])
def test_either_record_proves_that_shards_are_a_caches(overwrite, proof):
    directory, write = overwrite
    (directory / proof).unlink()
    assert write(overwrite=True)[0]["request"]["top_k"] == 3


def test_an_input_is_not_replaced(overwrite, tiny_corpus, tiny_teacher_path, capsys):
    directory, _ = overwrite
    for place in ("manifest.json", "shards/000001.rows.npy"):
        (directory / place).write_bytes((tiny_corpus / "valid.de").read_bytes())
        before = tree(directory)
        pair = str(directory / place), str(tiny_corpus / "valid.en")
        with pytest.raises(InputError, match="is an input, and would be replaced"):
            write_cache([str(tiny_teacher_path)], [pair], directory, CacheSettings(3), overwrite=True)
        assert tree(directory) == before


@pytest.mark.parametrize("with_manifest", [True, False])
def test_labels_are_not_replaced_by_their_cache(tiny_corpus, tiny_teacher_path, tmp_path, capsys, with_manifest):
    contents = {
        "source.txt": (tiny_corpus / "valid.de").read_bytes(),
        "hypotheses.txt": (tiny_corpus / "valid.en").read_bytes(),
    }
    if with_manifest:
        write_run(tmp_path / "labels", {"verb": "pseudo-label"}, contents, {})
    else:
        (tmp_path / "labels").mkdir()
        for name, content in contents.items():
            (tmp_path / "labels" / name).write_bytes(content)
    before = tree(tmp_path)
    command = ["cache", "--teacher", str(tiny_teacher_path), "--overwrite"]
    assert cli.main([*command, "--labels", str(tmp_path / "labels"), "--output-dir", str(tmp_path / "labels")]) == 2
    assert "labels/manifest.json' is an input, and would be replaced" in capsys.readouterr().err
    text = [*("--source", str(tiny_corpus / "valid.de")), *("--target", str(tiny_corpus / "valid.en"))]
    if with_manifest:
        assert cli.main([*command, *text, "--output-dir", str(tmp_path / "labels")]) == 2
        assert "holds the output of another verb" in capsys.readouterr().err
    assert tree(tmp_path) == before


def test_text_is_not_replaced_by_what_is_made_of_it(tmp_path):
    for prefix in ("train", "val", "test_2016_flickr"):
        for language in ("de", "en"):
            (tmp_path / f"{prefix}.{language}").write_text("ein Satz\n")
    (tmp_path / "tokenizer.model").write_text("ein Satz\n")
    listed(tmp_path, ["train.de", "train.en", "tokenizer.model"])
    before = tree(tmp_path)
    with pytest.raises(InputError, match="train.de' is an input, and would be replaced"):
        multi30k.build(tmp_path, "de", "en", tmp_path, overwrite=True)
    with pytest.raises(InputError, match="tokenizer.model' is an input, and would be replaced"):
        tokenizer.train([tmp_path / "tokenizer.model"], 40, tmp_path, overwrite=True)
    assert tree(tmp_path) == before
