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
"""A cache that is killed at random moments, its token store and index too, ends with an undisturbed one's bytes."""

import multiprocessing
import random
import time
from pathlib import Path

import pytest

from nemo_distill.teachers.cache_writer import CacheSettings, write_cache


def contents(directory: Path) -> dict[str, bytes]:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_twenty_kills(tiny_corpus, tiny_teacher_path, tmp_path):
    text = [(str(tiny_corpus / f"{split}.de"), str(tiny_corpus / f"{split}.en")) for split in ("train", "valid")]
    settings = CacheSettings(4, (1.0, 2.0), shard_tokens=60, sampled=6)
    context, generator = multiprocessing.get_context("fork"), random.Random(5)

    def write(name: str) -> None:
        write_cache([str(tiny_teacher_path)], text, tmp_path / name, settings, token_store=tmp_path / name / "tokens")

    def started(name: str):
        process = context.Process(target=write, args=(name,))
        process.start()
        return process

    begun = time.monotonic()
    process = started("undisturbed")
    process.join()
    longest = 0.6 * (time.monotonic() - begun)
    assert process.exitcode == 0
    found = []
    for _ in range(20):
        process = started("killed")
        time.sleep(generator.uniform(0, longest))
        process.kill()
        process.join()
        found.append(len(list((tmp_path / "killed").glob("shards/*.rows.npy"))))
    assert found == sorted(found)  # each went on, none began again
    assert len(set(found)) > 3, found
    process = started("killed")
    process.join()
    assert process.exitcode == 0
    undisturbed = contents(tmp_path / "undisturbed")
    assert len(undisturbed) > 40
    assert contents(tmp_path / "killed") == undisturbed
