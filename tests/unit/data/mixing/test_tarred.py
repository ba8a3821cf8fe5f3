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
import pickle
import shutil
import tarfile

import numpy as np
import pytest

from nemo_distill.config.mixture import ComponentConfig
from nemo_distill.data.mixing.tarred import TarredBatches, index_shards, shard_paths
from nemo_distill.errors import InputError

SOURCE, TARGET = np.array([[2, 5, 3], [2, 3, 0]]), np.array([[2, 6, 7, 3], [2, 6, 3, 0]])


@pytest.fixture
def shards(tiny_tarred, tmp_path):
    """A copy of the tarred set: its directory, with the metadata as `metadata.json`."""
    for path in tiny_tarred.parent.iterdir():
        shutil.copy(path, tmp_path / ("metadata.json" if path.suffix == ".json" else path.name))
    return tmp_path


@pytest.fixture
def component(shards):
    return ComponentConfig(metadata_file=str(shards / "metadata.json"))


@pytest.fixture
def one_batch(tmp_path):
    """A function that stores one object as a tarred set of one batch and returns what reads it."""

    def store(content: bytes) -> TarredBatches:
        (tmp_path / "b.pkl").write_bytes(content)
        with tarfile.open(tmp_path / "b.tar", "w") as shard:
            shard.add(tmp_path / "b.pkl", "batch-0.pkl")
        (tmp_path / "m.json").write_text(json.dumps({"num_batches": 1, "tar_files": [str(tmp_path / "b.tar")]}))
        entries = index_shards(ComponentConfig(metadata_file=str(tmp_path / "m.json")))
        return TarredBatches(entries, pads=(0, 0), vocabulary_sizes=(8, 8))

    return store


def test_every_shard_is_indexed(component, shards):
    entries = index_shards(component)
    assert len(entries) == json.loads((shards / "metadata.json").read_text())["num_batches"]
    assert len({(entry.path, entry.name) for entry in entries}) == len(entries)
    assert {entry.path for entry in entries} == {str(path) for path in shards.glob("*.tar")}


def test_shards_may_be_named(component, shards):
    all_shards = sorted(shards.glob("*.tar"))
    component.tar_files = [str(path) for path in all_shards[:2]]
    assert len(index_shards(component)) < 22
    for number, path in enumerate(all_shards):
        path.rename(shards / f"s.{number}.tar")
    patterns = ("s.{0..3}.tar", "s._OP_0..3_CL_.tar", "s.(0..3).tar", "s.<0,1,2,3>.tar", "s.([0..1],<2,3>).tar")
    for pattern in patterns:
        component.tar_files = str(shards / pattern)
        assert [path.name for path in shard_paths(component)] == [f"s.{number}.tar" for number in range(4)]


def test_brackets_in_names_are_brackets(component, shards):
    """Of a directory, and of a file that is there, whatever its name would give."""
    place = shards / "set (1) [new] <2> {3}"
    place.mkdir()
    for number, path in enumerate(sorted(shards.glob("*.tar"))[:2]):
        path.rename(place / f"s.{number}.tar")
    component.tar_files = f"{place}/s.(0..1).tar"
    assert [path.name for path in shard_paths(component)] == ["s.0.tar", "s.1.tar"]
    component.tar_files = str((place / "s.0.tar").rename(place / "s (a, b) {0..1}.tar"))
    assert shard_paths(component) == [place / "s (a, b) {0..1}.tar"]


@pytest.mark.parametrize("protocol", range(2, 6))
def test_rows_come_without_padding(one_batch, protocol):
    sources, targets, items = one_batch(pickle.dumps({"src": SOURCE, "tgt": TARGET}, protocol)).rows(0)
    assert [row.tolist() for row in sources] == [[2, 5, 3], [2, 3]]
    assert [row.tolist() for row in targets] == [[2, 6, 7, 3], [2, 6, 3]]
    assert len(set(items)) == 2


def test_pairs_without_positions_are_left_out(component, monkeypatch):
    """They ended a run in the middle, by an index out of range. In place of a whole batch comes the next one."""
    said = []
    monkeypatch.setattr("nemo.utils.logging.warning", said.append)
    entries = index_shards(component)
    batches, plain = (TarredBatches(entries, (0, 0), (120, 120)) for _ in range(2))
    rows = [list(zip(*plain.rows(number), strict=True)) for number in range(len(entries))]
    lengths = sorted(len(source) for batch in rows for source, _, _ in batch)
    longest = lengths[len(lengths) // 3]
    batches.keep_to(lambda source, target: len(source) <= longest)
    fitting = [[item for source, _, item in batch if len(source) <= longest] for batch in rows]
    assert [] in fitting
    for number in range(len(entries)):
        sources, targets, items = batches.rows(number)
        turned = fitting[number:] + fitting[:number]
        assert items == next(filter(None, turned))
        assert max(map(len, sources)) <= longest
        assert len(sources) == len(targets) == len(items)
    assert len(said) == 1
    assert "have more tokens than the models have positions and are left out" in said[0]
    batches.keep_to(lambda source, target: False)
    with pytest.raises(InputError, match="no sentence pair of this tarred set has room in the models' positions"):
        batches.rows(0)


class Command:
    """What a hostile pickle does."""

    def __reduce__(self):
        return os.mkdir, ("opened",)


def test_a_pickle_runs_nothing(one_batch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    batches = one_batch(pickle.dumps({"src": SOURCE, "tgt": TARGET, "extra": Command()}))
    with pytest.raises(InputError, match=r"b.tar, batch-0.pkl is no batch .*: it holds posix.mkdir, no array"):
        batches.rows(0)
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"src": SOURCE}), "is no batch of a NeMo tarred data set: 'tgt'"),
        (pickle.dumps([1, 2]), "is no batch of a NeMo tarred data set"),
        (pickle.dumps({"src": SOURCE, "tgt": TARGET[:1]}), r"src and tgt have the shapes .*\(2, 3\).*\(1, 4\)"),
        (pickle.dumps({"src": SOURCE * 1.5, "tgt": TARGET}), "src and tgt have the shapes"),
        (pickle.dumps({"src": SOURCE, "tgt": TARGET})[:-40], "is no batch of a NeMo tarred data set"),
        (pickle.dumps({"src": SOURCE, "tgt": TARGET + 2}), "token id 9 in tgt is beyond the vocabulary of 8; the set"),
    ],
)
def test_bad_batches(one_batch, content, message):
    batches = one_batch(content)
    with pytest.raises(InputError, match=message):
        batches.rows(0)


def test_missing_shard(component, shards):
    next(shards.glob("*.tar")).unlink()
    with pytest.raises(InputError, match=r"no file \S+.tar \(1 of \d shards of \S+metadata.json are missing\)"):
        index_shards(component)


def test_shard_with_lost_batches(component, shards):
    shutil.copy(*sorted(shards.glob("*.tar"), key=lambda path: path.stat().st_size)[:2])
    with pytest.raises(InputError, match=r"metadata.json says 22 batches, its shards hold 2\d?; make the set again"):
        index_shards(component)


def test_shard_that_is_no_tar(component, shards):
    next(shards.glob("*.tar")).write_bytes(b"text" * 500)
    with pytest.raises(InputError, match=r"\.tar is not a whole, uncompressed tar file"):
        index_shards(component)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{}", "metadata.json names no tar_files; give tar_files beside metadata_file"),
        ("[]", "metadata.json is no metadata of a NeMo tarred data set"),
        ("x", "metadata.json' is not valid JSON"),
    ],
)
def test_bad_metadata(component, shards, metadata, message):
    (shards / "metadata.json").write_text(metadata)
    with pytest.raises(InputError, match=message):
        shard_paths(component)


def test_a_command_in_the_metadata_is_not_run(component, shards):
    (shards / "metadata.json").write_text(json.dumps({"num_batches": 1, "tar_files": ["pipe:mkdir opened"]}))
    with pytest.raises(InputError, match=r"no file \S+pipe:mkdir opened"):
        shard_paths(component)
