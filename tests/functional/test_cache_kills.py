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

from nemo_distill.support.share import Share
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache

CONTEXT = multiprocessing.get_context("fork")


def contents(directory: Path) -> dict[str, bytes]:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


@pytest.fixture
def start(tiny_corpus, tiny_teacher_path, tmp_path):
    """A function that starts a process which writes a cache, or one rank's share of it."""
    text = [(str(tiny_corpus / f"{split}.de"), str(tiny_corpus / f"{split}.en")) for split in ("train", "valid")]
    settings = CacheSettings(4, (1.0, 2.0), shard_tokens=60, sampled=6)

    def write(name: str, share: Share) -> None:
        store = tmp_path / name / "tokens"
        write_cache([str(tiny_teacher_path)], text, tmp_path / name, settings, token_store=store, share=share)

    def begin(name: str, share: Share | None = None):
        process = CONTEXT.Process(target=write, args=(name, share or Share()))
        process.start()
        return process

    return begin


def seconds_of(process) -> float:
    begun = time.monotonic()
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - begun


@pytest.mark.slow
def test_twenty_kills(start, tmp_path):
    generator, found = random.Random(5), []
    longest = 0.6 * seconds_of(start("undisturbed"))
    for _ in range(20):
        process = start("killed")
        time.sleep(generator.uniform(0, longest))
        process.kill()
        process.join()
        found.append(len(list((tmp_path / "killed").glob("shards/*.rows.npy"))))
    assert found == sorted(found)  # each went on, none began again
    assert len(set(found)) > 3, found
    seconds_of(start("killed"))
    undisturbed = contents(tmp_path / "undisturbed")
    assert len(undisturbed) > 40
    assert contents(tmp_path / "killed") == undisturbed


@pytest.mark.slow
def test_another_number_of_processes_goes_on(start, tmp_path):
    """Each of one to three is killed at a moment of its own, inside of a shard or wherever it is."""
    generator, found = random.Random(6), []
    longest = 0.6 * seconds_of(start("undisturbed"))
    for _ in range(20):
        size = generator.randint(1, 3)
        processes = [start("killed", Share(rank, size)) for rank in range(size)]
        generator.shuffle(processes)
        for process in processes:
            time.sleep(generator.uniform(0, longest / size))
            process.kill()
        for process in processes:
            process.join()
        found.append(len(list((tmp_path / "killed").glob("shards/*.rows.npy"))))
    assert found == sorted(found)
    assert len(set(found)) > 3, found
    for process in [start("killed", Share(rank, 2)) for rank in range(2)]:
        seconds_of(process)
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")
