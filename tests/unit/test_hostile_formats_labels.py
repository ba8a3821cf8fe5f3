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
"""Values and types of each file of pseudo-labels, changed at random: one documented error, or the right labels."""

import gzip
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damage import contents, damaged, damaged_json, time_limit, write_damaged_json

from nemo_distill.config.mixture import ComponentConfig, MixtureConfig
from nemo_distill.data.checks import check_model_files
from nemo_distill.decoding.engine import SearchSettings
from nemo_distill.errors import InputError
from nemo_distill.labels.labelling import label
from nemo_distill.labels.nbest import NBest, read_nbest
from nemo_distill.labels.selection import select
from nemo_distill.support import text_files
from nemo_distill.support.quoting import one_line

OPTIONS = {"teacher": {"teachers": ["words"]}, "shard_lines": 2, "progress": False}
SEARCH = SearchSettings(num_hypotheses=2)


@pytest.fixture
def text(tmp_path) -> Path:
    """A text of six lines."""
    path = tmp_path / "input.de"
    path.write_text("".join(f"Satz {number} ist gut\n" for number in range(6)))
    return path


@pytest.fixture
def labels(word_engine, text, tmp_path) -> Path:
    """A finished directory of labels."""
    label(word_engine, text, tmp_path / "labels", SEARCH, **OPTIONS)
    return tmp_path / "labels"


@pytest.fixture
def interrupted(word_engine, text, tmp_path) -> Path:
    """A directory with two of three shards."""

    class Stopping(word_engine):
        def translate(self, *arguments):
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().translate(*arguments)

    with pytest.raises(KeyboardInterrupt):
        label(Stopping, text, tmp_path / "interrupted", SEARCH, **OPTIONS)
    return tmp_path / "interrupted"


def refusal(call: Callable[[], Any]) -> str | None:
    """Return what an InputError says, on one line; None where there is none."""
    try:
        with time_limit(5):
            call()
    except InputError as error:
        message = str(error)
    else:
        return None
    assert "\n" not in message
    return message


def damaged_line(line: str, generator: random.Random) -> str:
    """Return a record with one value changed."""
    return json.dumps(damaged_json(json.loads(line), generator), ensure_ascii=generator.random() < 0.5)


def test_nbest_lists(labels, tmp_path):
    """As they come from elsewhere: the manifest has the hash of the damaged file."""
    generator, good = random.Random(1), text_files.read_lines(labels / "nbest.jsonl")
    manifest = json.loads((labels / "manifest.json").read_text())
    refused = 0
    for number in range(160):
        lines = list(good)
        place = generator.randrange(len(lines))
        lines[place] = damaged_line(lines[place], generator)
        content = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
        if number % 4 == 0:
            content = damaged("".join(f"{line}\n" for line in good).encode(), generator)
        (labels / "nbest.jsonl").write_bytes(content)
        manifest["files"]["nbest.jsonl"]["sha256"] = hashlib.sha256(content).hexdigest()
        (labels / "manifest.json").write_text(json.dumps(manifest))
        shutil.rmtree(tmp_path / "chosen", ignore_errors=True)
        if refusal(lambda: select(labels, tmp_path / "chosen", progress=False)):
            refused += 1
            assert not (tmp_path / "chosen/source.txt").exists()
        else:
            assert all(map(is_right, read_nbest(labels / "nbest.jsonl")))
            pairs = text_files.read_parallel(tmp_path / "chosen/source.txt", tmp_path / "chosen/hypotheses.txt")
            assert len(pairs) <= 6
    assert refused > 80


def is_right(row: NBest) -> bool:
    texts = [row.source, *(one.text for one in row.hypotheses)]
    return all(text == one_line(text) for text in texts) and all(
        one.score <= 0.01 and one.length >= 0 for one in row.hypotheses
    )


@pytest.mark.parametrize("sealed", [True, False])
def test_shards(word_engine, text, labels, interrupted, tmp_path, sealed):
    """A shard is that which was written, or is made again: the labels are right in any case."""
    generator, wanted = random.Random(2), contents(labels)
    for _ in range(40):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(interrupted, tmp_path / "copy")
        shard = generator.choice(sorted((tmp_path / "copy").glob(".shards-*/*.jsonl.gz")))
        lines = text_files.read_lines(shard)[:-1]
        if sealed:  # made by somebody who knows how: what no engine gives is refused all the same
            place = generator.randrange(len(lines))
            lines[place] = damaged_line(lines[place], generator)
            content = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
            shard.write_bytes(gzip.compress(content + hashlib.sha256(content).hexdigest().encode() + b"\n"))
        else:
            shard.write_bytes(damaged(shard.read_bytes(), generator))
        with time_limit(5):
            label(word_engine, text, tmp_path / "copy", SEARCH, **OPTIONS)
        rows = list(read_nbest(tmp_path / "copy/nbest.jsonl"))
        assert all(map(is_right, rows))
        assert [row.source for row in rows] == text_files.read_lines(text)
        if not sealed:
            assert contents(tmp_path / "copy") == wanted


@pytest.mark.parametrize("name", ["request.json", "engine.json"])
def test_records_beside_the_shards(word_engine, text, labels, interrupted, tmp_path, name):
    generator, wanted, refused = random.Random(3), contents(labels), 0
    for _ in range(60):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(interrupted, tmp_path / "copy")
        path = next((tmp_path / "copy").glob(f".shards-*/{name}"))
        write_damaged_json(path, json.loads(path.read_text()), generator)
        before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
        if refusal(lambda: label(word_engine, text, tmp_path / "copy", SEARCH, **OPTIONS)):
            refused += 1
            assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before
        else:
            assert contents(tmp_path / "copy") == wanted
    assert refused > 35


def test_the_note_of_a_start(word_engine, text, labels, tmp_path):
    """Only names that this verb writes are taken from it, and only as being its own."""
    generator = random.Random(4)
    names = sorted(contents(labels))
    for _ in range(40):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        (copy / "source.txt").write_text("mine\n")
        write_damaged_json(copy / ".started.json", ["dropped.tsv", "../input.de", {"source.txt": 1}], generator)
        with time_limit(5), pytest.raises(InputError):
            label(word_engine, text, copy, SEARCH, **OPTIONS)
        assert (copy / "source.txt").read_text() == "mine\n"
    assert sorted(contents(labels)) == names


def test_manifests(word_engine, text, labels, tmp_path):
    generator, refused = random.Random(5), 0
    select(labels, tmp_path / "chosen", progress=False)
    good = {path: json.loads(path.read_text()) for path in tmp_path.glob("*/manifest.json")}
    before = {path: contents(path.parent) for path in good}
    mixture = MixtureConfig(components={"pseudo": ComponentConfig(directory=str(labels))})
    calls = [
        lambda: label(word_engine, text, labels, SEARCH, **OPTIONS),
        lambda: select(labels, tmp_path / "chosen", progress=False),
        lambda: check_model_files({}, mixture),
    ]
    for number in range(160):
        path = sorted(good)[number % 2]
        write_damaged_json(path, good[path], generator)
        damage = path.read_bytes()
        refused += sum(refusal(call) is not None for call in calls)
        assert contents(path.parent) == before[path] | {"manifest.json": damage}
        path.write_bytes(before[path]["manifest.json"])
    assert refused > 80
    assert not list(labels.glob(".*"))
