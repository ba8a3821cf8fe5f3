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
"""Every file of a cache, a corpus, a tarred set or a tokenizer, with values of it changed: only documented errors."""

import contextlib
import json
import pickle
import random
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from damage import JSON_VALUES, damaged, damaged_json, time_limit, tree, write_damaged_json

from nemo_distill.config.mixture import ComponentConfig
from nemo_distill.config.section import DistillationConfig
from nemo_distill.data.corpora import multi30k
from nemo_distill.data.mixing.tarred import TarredBatches, index_shards
from nemo_distill.errors import ConfigurationError, InputError, TeacherError
from nemo_distill.support import compat, files
from nemo_distill.support.manifest import MANIFEST
from nemo_distill.support.tokenizer_guard import check_tokenizer
from nemo_distill.teachers.cache_format import LogitCache
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache


@pytest.fixture(scope="module")
def whole(tiny_corpus, tiny_teacher_path, tmp_path_factory) -> Path:
    """A small cache."""
    directory = tmp_path_factory.mktemp("formats") / "cache"
    pair = str(tiny_corpus / "valid.de"), str(tiny_corpus / "valid.en")
    write_cache([str(tiny_teacher_path)], [pair], directory, CacheSettings(4, shard_tokens=200))
    return directory


def test_values_in_the_arrays_of_a_cache(whole, tmp_path):
    """What opens can be read and used: every id is a word, every number finite."""
    generator = random.Random(1)
    copy = Path(shutil.copytree(whole, tmp_path / "cache"))
    manifest = json.loads((copy / MANIFEST).read_text())
    names = sorted(manifest["files"])
    opened = 0
    for _ in range(150):
        name = generator.choice(names)
        array = np.load(whole / name)
        part = array[generator.choice(array.dtype.names)] if array.dtype.names else array
        raw = part.view(f"<u{part.dtype.itemsize}")
        raw.reshape(-1)[generator.randrange(raw.size)] = generator.getrandbits(8 * raw.dtype.itemsize)
        np.save(copy / name, array)
        changed = json.loads(json.dumps(manifest))
        changed["files"][name] = {"sha256": files.sha256(copy / name)}
        (copy / MANIFEST).write_text(json.dumps(changed))
        with contextlib.suppress(TeacherError), time_limit(10):
            cache = LogitCache(copy)
            records = cache.read(np.arange(len(cache)))
            assert len(records) == manifest["tokens"]
            targets = cache.targets(records, 1.0, "cpu")
            assert targets.ids.max() < 120
            assert all(values.isfinite().all() for values in vars(targets).values())
            opened += 1
        shutil.copy(whole / name, copy / name)
    assert opened < 100


def test_manifests_and_requests_of_a_cache(whole, tiny_corpus, tiny_teacher_path, tmp_path):
    generator = random.Random(2)
    copy = Path(shutil.copytree(whole, tmp_path / "cache"))
    manifest = json.loads((copy / MANIFEST).read_text())
    for number in range(150):
        write_damaged_json(copy / MANIFEST, manifest, generator)
        for verify in (True, False):
            with contextlib.suppress(TeacherError), time_limit(10):
                assert len(LogitCache(copy, verify)) == 20, number
    (copy / MANIFEST).unlink()
    request = json.loads((copy / "shards/request.json").read_text())
    pair = str(tiny_corpus / "valid.de"), str(tiny_corpus / "valid.en")
    for _ in range(15):
        write_damaged_json(copy / "shards/request.json", request, generator)
        before = tree(copy / "shards")
        try:
            with time_limit(20):
                write_cache([str(tiny_teacher_path)], [pair], copy, CacheSettings(4, shard_tokens=200))
            (copy / MANIFEST).unlink()
        except InputError:
            assert tree(copy / "shards") == before


def test_manifests_of_a_corpus(tmp_path):
    generator = random.Random(3)
    for prefix in ("train", "val", "test_2016_flickr"):
        for language in ("de", "en"):
            (tmp_path / f"{prefix}.{language}").write_text("ein Satz\n")
    arguments = tmp_path, "de", "en", tmp_path / "out"
    manifest, _ = multi30k.build(*arguments)
    for _ in range(200):
        write_damaged_json(tmp_path / "out" / MANIFEST, manifest, generator)
        before = tree(tmp_path / "out")
        with contextlib.suppress(InputError), time_limit(10):
            found, was_finished = multi30k.build(*arguments)
            assert was_finished
            assert [found["splits"][split]["pairs"] for split in ("train", "valid", "test")] == [1, 1, 1]
        assert tree(tmp_path / "out") == before


def test_values_in_the_batches_and_metadata_of_a_tarred_set(tmp_path):
    generator = random.Random(4)
    path, metadata = tmp_path / "s.tar", tmp_path / "m.json"
    right = {"num_batches": 1, "tar_files": ["s.tar"]}
    values = [None, True, "x", [], [1], 10**400, -1, 1.5, np.float32(2), np.zeros(0), np.zeros((2, 3), "O"), {1: 2}]
    arrays = [
        np.full((2, 3), 7),
        np.full((2, 3), 8, "u8"),
        np.full((2, 3), -1),
        np.full((1, 3), 2),
        np.ones((2, 3, 1)),
    ]
    read = 0
    for _ in range(200):
        batch = {"src": np.full((2, 3), 2), "tgt": np.full((2, 4), 2)}
        batch[generator.choice(["src", "tgt"])] = generator.choice([*values, *arrays])
        with tarfile.open(path, "w") as shard:
            (tmp_path / "b.pkl").write_bytes(pickle.dumps(batch, generator.randrange(2, 6)))
            shard.add(tmp_path / "b.pkl", "b.pkl")
        content = damaged_json(right, generator) if generator.random() < 0.3 else right
        metadata.write_text(json.dumps(content))
        with contextlib.suppress(InputError), time_limit(5):
            batches = TarredBatches(index_shards(ComponentConfig(metadata_file=str(metadata))), (0, 0), (8, 8))
            sources, targets, _ = batches.rows(0)
            assert max(int(row.max()) for row in (*sources, *targets)) < 8
            read += 1
    assert 0 < read < 150


USE = (  # in another process: YouTokenToMe ends its process, or never returns, on damaged files
    "import sys, {library}\nfor path in sys.argv[1:]:\n    model = {load}\n    {use}\n"
)
LIBRARIES = {
    "yttm": ("youtokentome", "youtokentome.BPE(path)", "model.decode(model.encode(['die Lampe', '', 'x' * 50]))"),
    "sentencepiece": (
        "sentencepiece",
        "sentencepiece.SentencePieceProcessor(model_file=path)",
        "model.decode(model.encode(['die Lampe', '', 'x' * 50]))",
    ),
}


@pytest.mark.parametrize("library", compat.TOKENIZER_LIBRARIES)
def test_tokenizers_that_pass_can_be_used(library, tiny_corpus, tmp_path):
    from nemo_distill.data import tokenizer

    tokenizer.train([tiny_corpus / "train.de"], 80, tmp_path / "whole", library=library)
    content = (tmp_path / "whole/tokenizer.model").read_bytes()
    generator, passed = random.Random(5), []
    for number in range(400):
        changed = damaged(content, generator)
        if library == "yttm" and number % 2:  # one number of the text in place of bytes
            words = content.split(b" ")
            words[generator.randrange(len(words))] = str(generator.choice([0, -1, 1, 79, 80, 9999, 2**31])).encode()
            changed = b" ".join(words)
        path = tmp_path / f"{number}.model"
        path.write_bytes(changed)
        with contextlib.suppress(InputError), time_limit(10):
            check_tokenizer(path, library)
            passed.append(str(path))
    assert len(passed) < 300
    name, load, use = LIBRARIES[library]
    code = USE.format(library=name, load=load, use=use)
    done = subprocess.run([sys.executable, "-c", code, *passed], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]


SECTION = {
    "teacher": {"model_path": ["a.nemo"], "precision": "fp32", "sha256": "0" * 64, "trust_archive": False},
    "objective": {
        "hybrid": {"alpha_seq_nll": 1.0, "alpha_seq_kd": 1.0, "alpha_word_kd": 0.5},
        "hidden": {"weight": 1.0, "encoder": [0, 1], "decoder": None},
        "terms": [{"_target_": "my.Term", "weight": 1.0, "name": "mine"}],
    },
    "mixture": {
        "components": {
            "gold": {"source": ["a"], "target": ["b"], "fraction": 0.5},
            "pseudo": {"metadata_file": "m.json", "tar_files": "s.{0..3}.tar"},
        },
        "seed": 3,
        "epoch_size": 100,
        "noise": {"word_dropout": 0.1, "word_swap": 3, "word_mask": 0.1, "apply_to": ["gold"]},
    },
    "init": {"from_teacher": "every_nth", "encoder": [[0, 0]], "width": "select"},
}


def every_place(content, path=()):
    """Yield the path to every value."""
    yield path
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, item in items:
        yield from every_place(item, (*path, key))


def test_sections_with_every_value_replaced():
    DistillationConfig.from_section(SECTION)
    for path in every_place(SECTION):
        for value in (*JSON_VALUES, float("nan"), 10**5000, "\ud800", "\u202e\n"):
            section = json.loads(json.dumps(SECTION))
            if path:
                node = section
                for key in path[:-1]:
                    node = node[key]
                node[path[-1]] = value
            else:
                section = value
            with contextlib.suppress(ConfigurationError), time_limit(10):
                DistillationConfig.from_section(section)
