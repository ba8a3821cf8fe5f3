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
"""Inputs that are changed or swapped while they are in use: one error, no result, and the run can go on."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import tree

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.config.mixture import ComponentConfig
from nemo_distill.config.section import DistillationConfig
from nemo_distill.data.corpora import multi30k, wheel
from nemo_distill.data.mixing.tarred import TarredBatches, index_shards
from nemo_distill.errors import InputError, TeacherError
from nemo_distill.support import files, manifest
from nemo_distill.teachers import cache_writer
from nemo_distill.teachers.cache_format import LogitCache
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache
from nemo_distill.teachers.opening import open_teacher


@pytest.fixture
def other_teacher(tiny_model, tmp_path) -> Path:
    """An archive of the same model with other weights."""
    with torch.no_grad():
        next(tiny_model.parameters()).add_(1)
    tiny_model.save_to(str(tmp_path / "other.nemo"))
    return tmp_path / "other.nemo"


@pytest.fixture
def inputs(tiny_corpus, tiny_teacher_path, tmp_path) -> dict[str, Path]:
    """Copies of text and teacher."""
    found = {"source": tiny_corpus / "valid.de", "target": tiny_corpus / "valid.en", "teacher": tiny_teacher_path}
    return {name: Path(shutil.copy(path, tmp_path / path.name)) for name, path in found.items()}


@pytest.mark.parametrize("swapped", ["source", "target", "teacher"])
def test_a_cache_is_made_of_what_its_manifest_names(inputs, other_teacher, tmp_path, monkeypatch, swapped):
    def write():
        pair = [(str(inputs["source"]), str(inputs["target"]))]
        return write_cache([str(inputs["teacher"])], pair, tmp_path / "out", CacheSettings(4))[0]

    content, claim = inputs[swapped].read_bytes(), cache_writer.claim

    def swap(*arguments):  # hashed before, read behind it
        new = other_teacher.read_bytes() if swapped == "teacher" else content.replace(b"e", b"a")
        inputs[swapped].write_bytes(new)
        return claim(*arguments)

    monkeypatch.setattr(cache_writer, "claim", swap)
    with pytest.raises(InputError, match="has changed while it was in use|has the SHA-256"):
        write()
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    inputs[swapped].write_bytes(content)
    made = write()
    assert made["request"]["teachers"] == [files.sha256(inputs["teacher"])]
    assert made["request"]["text"] == [[files.sha256(inputs["source"]), files.sha256(inputs["target"])]]


def test_a_teacher_beside_a_cache_is_the_caches(inputs, other_teacher, student_config, tmp_path):
    pair = [(str(inputs["source"]), str(inputs["target"]))]
    write_cache([str(inputs["teacher"])], pair, tmp_path / "cache", CacheSettings(4))
    student = DistilledMTEncDecModel(student_config(objective={"word_kd": {"weight": 0}}))
    section = {"teacher": {"cache": str(tmp_path / "cache"), "model_path": str(inputs["teacher"])}}
    section["teacher"]["on_miss"] = "teacher"
    config = DistillationConfig.from_section(section)
    assert open_teacher(config, student).live is not None
    inputs["teacher"].write_bytes(other_teacher.read_bytes())  # behind `check_distillation`
    with pytest.raises(TeacherError, match="has the SHA-256"):
        open_teacher(config, student)
    several = replace(config.teacher, model_path=[str(inputs["teacher"])] * 2)
    with pytest.raises(TeacherError, match="made by another teacher"):
        open_teacher(replace(config, teacher=several), student)


def test_a_corpus_is_made_of_what_its_manifest_names(tmp_path, monkeypatch):
    for prefix in ("train", "val", "test_2016_flickr"):
        for language in ("de", "en"):
            (tmp_path / f"{prefix}.{language}").write_text("ein Satz\n")
    claim = manifest.claim

    def swap(*arguments):
        (tmp_path / "val.en").write_text("ein andrer\n")
        return claim(*arguments)

    monkeypatch.setattr(manifest, "claim", swap)
    with pytest.raises(InputError, match="val.en' has changed while it was in use"):
        multi30k.build(tmp_path, "de", "en", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wheel_is_read_as_it_was_hashed(tmp_path):
    import zipfile

    path = tmp_path / wheel.WHEEL_NAME
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("homeassistant/components/a/translations/en.json", '{"a": "text"}')
    opened = wheel.fetch_wheel(tmp_path, files.sha256(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("homeassistant/components/a/translations/en.json", '{"a": "evil"}')
    assert opened.strings("en") == {"a": {"/a": "text"}}


def test_a_tarred_set_that_changes_while_it_is_read(tiny_tarred, tmp_path):
    for path in tiny_tarred.parent.iterdir():
        shutil.copy(path, tmp_path / ("metadata.json" if path.suffix == ".json" else path.name))
    entries = index_shards(ComponentConfig(metadata_file=str(tmp_path / "metadata.json")))
    batches = TarredBatches(entries, (0, 0), (120, 120))
    assert batches.rows(0)
    shard = Path(entries[0].path)
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="has changed while it was in use"):
        batches.rows(0)
    shard.unlink()
    with pytest.raises(InputError, match="does not exist"):
        batches.rows(0)


def test_the_files_of_a_refused_run_are_as_they_were(inputs, tmp_path):
    pair = [(str(inputs["source"]), str(inputs["target"]))]
    write_cache([str(inputs["teacher"])], pair, tmp_path / "out", CacheSettings(4))
    before = tree(tmp_path / "out")
    inputs["source"].write_bytes(inputs["source"].read_bytes() + b"\n")
    with pytest.raises(InputError, match="text.*already holds another run|made with other content of text"):
        write_cache([str(inputs["teacher"])], pair, tmp_path / "out", CacheSettings(4))
    assert tree(tmp_path / "out") == before
    assert json.loads((tmp_path / "out/manifest.json").read_text())["pairs"] == 20
    assert np.load(tmp_path / "out/shards/000000.rows.npy").shape == (20,)


def test_a_tarred_set_that_changes_behind_its_old_time(tiny_tarred, tmp_path):
    """Size and time of change are those of before."""
    for path in tiny_tarred.parent.iterdir():
        shutil.copy(path, tmp_path / ("metadata.json" if path.suffix == ".json" else path.name))
    entries = index_shards(ComponentConfig(metadata_file=str(tmp_path / "metadata.json")))
    batches, shard = TarredBatches(entries, (0, 0), (120, 120)), Path(entries[0].path)
    found = shard.stat()
    shard.write_bytes(shard.read_bytes())
    os.utime(shard, ns=(found.st_atime_ns, found.st_mtime_ns))
    with pytest.raises(InputError, match="has changed while it was in use"):
        batches.rows(0)


def cut_short(path: Path) -> None:
    os.truncate(path, 200)


def rewritten(path: Path) -> None:
    """In place, with the same size and time."""
    found, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    with open(path, "rb+") as stream:
        stream.write(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def replaced(path: Path) -> None:
    shutil.copy2(path, path.with_name("new"))
    path.with_name("new").rename(path)


@pytest.mark.parametrize("change", [cut_short, rewritten, replaced, Path.unlink])
def test_a_cache_that_changes_while_a_student_trains(inputs, tmp_path, change):
    pair = [(str(inputs["source"]), str(inputs["target"]))]
    write_cache([str(inputs["teacher"])], pair, tmp_path / "cache", CacheSettings(4))
    cache = LogitCache(tmp_path / "cache")
    places = np.arange(len(cache))[::-1]
    assert len(cache.read(places)) == cache.manifest["tokens"]
    change(tmp_path / "cache/shards/000000.tokens.npy")
    with pytest.raises(TeacherError, match="of the cache has changed since it was opened|does not exist"):
        cache.read(places)
