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
"""An evaluation whose processes are killed inside of a batch, and gone on with by any number of them."""

import multiprocessing
import random
import re
import time
from pathlib import Path

import pytest

from nemo_distill.evaluation import shared
from nemo_distill.evaluation.scoring import evaluate
from nemo_distill.support.share import Share

CONTEXT = multiprocessing.get_context("fork")


def without_times(directory: Path) -> dict[str, bytes]:
    """Return the files below a directory; of times only that they are there."""
    pattern = re.compile(rb'("(?:seconds|sentences_per_second)"): [^,]+')
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): pattern.sub(rb"\1", path.read_bytes()) for path in paths}


@pytest.mark.slow
def test_twenty_kills(tiny_corpus, tiny_teacher_path, tmp_path, monkeypatch):
    """Each of one to three processes is killed at a moment of its own: a batch is decoded, and not yet written."""
    for language in ("de", "en"):
        lines = (tiny_corpus / f"train.{language}").read_text("utf-8").splitlines()[:100]
        (tmp_path / f"t.{language}").write_text("\n".join(lines) + "\n", "utf-8")
    write, generator = shared.files.write_lines_atomic, random.Random(7)

    def run(name: str, share: Share, pause: float) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(shared.files, "write_lines_atomic", lambda *what: (time.sleep(pause), write(*what))[1])
            evaluate(
                [tiny_teacher_path],
                [f"t:{tmp_path}/t.de:{tmp_path}/t.en"],
                tmp_path / name,
                batch_tokens=60,
                beam_size=2,
                engine="ctranslate2",
                progress=False,
                share=share,
            )

    def started(name: str, share: Share, pause: float = 0.0):
        process = CONTEXT.Process(target=run, args=(name, share, pause))
        process.start()
        return process

    def batches() -> int:
        return len(list((tmp_path / "killed").glob(".shards-*/0*.jsonl")))

    process = started("alone", Share())
    process.join()
    assert process.exitcode == 0
    found = []
    for _ in range(20):
        size, before = generator.randint(1, 3), batches()
        processes = [started("killed", Share(rank, size), pause=0.2) for rank in range(size)]
        deadline = time.monotonic() + 60
        while batches() == before and any(each.is_alive() for each in processes) and time.monotonic() < deadline:
            time.sleep(0.01)
        generator.shuffle(processes)
        for process in processes:
            time.sleep(generator.uniform(0, 0.2))
            process.kill()
        for process in processes:
            process.join()
        found.append(batches())
    assert found == sorted(found)
    assert len(set(found)) > 3, found
    last = [started("killed", Share(rank, 2)) for rank in range(2)]
    for process in last:
        process.join()
    assert [process.exitcode for process in last] == [0, 0]
    assert without_times(tmp_path / "killed") == without_times(tmp_path / "alone")
