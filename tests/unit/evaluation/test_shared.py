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
"""Several processes that share one evaluation: the same bytes as one, stopped anywhere, late, damaged, or alone."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from damage import tree
from slow_cases import slow

from nemo_distill import cli
from nemo_distill.errors import InputError
from nemo_distill.evaluation import scoring, shared
from nemo_distill.evaluation.report import build_report
from nemo_distill.evaluation.results import EvaluationResult
from nemo_distill.evaluation.scoring import evaluate
from nemo_distill.support import files
from nemo_distill.support.share import Share


class Stop(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def test_set(tiny_corpus, tmp_path_factory) -> str:
    """Sentences, and empty lines."""
    place = tmp_path_factory.mktemp("text")
    for language in ("de", "en"):
        lines = (tiny_corpus / f"test.{language}").read_text("utf-8").splitlines()[:12]
        lines[5], lines[9] = "", " "
        (place / f"t.{language}").write_text("\n".join(lines) + "\n", "utf-8")
    return f"t:{place}/t.de:{place}/t.en"


@pytest.fixture(scope="module")
def run(tiny_teacher_path, test_set):
    """A function that evaluates the teacher in small batches."""

    def run(directory: Path, share: Share | None = None, **options) -> EvaluationResult | None:
        options = {"batch_tokens": 60, "progress": False, "engine": "ctranslate2", "beam_size": 2, **options}
        return evaluate([tiny_teacher_path], [test_set], directory, share=share, **options)

    return run


@pytest.fixture(scope="module")
def alone(run, tmp_path_factory) -> dict[str, Path]:
    """The output of one process, by engine."""
    found = {}
    for engine in ("ctranslate2", "nemo"):
        found[engine] = tmp_path_factory.mktemp("alone") / engine
        run(found[engine], engine=engine)
    return found


@pytest.fixture
def stop_after(monkeypatch):
    """A function that stops an evaluation once it has written so many batches."""

    def stop_after(count: int, call, *arguments, **options) -> None:
        left, original = [count], files.write_lines_atomic

        def write(path, lines):
            if not left[0]:
                raise Stop
            left[0] -= 1
            original(path, lines)

        with monkeypatch.context() as patch:
            patch.setattr(shared.files, "write_lines_atomic", write)
            with pytest.raises(Stop):
                call(*arguments, **options)

    return stop_after


def without_times(directory: Path) -> dict[str, bytes]:
    """Return the files below a directory; of times only that they are there."""
    pattern = re.compile(rb'("(?:seconds|sentences_per_second)"): [^,]+')
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): pattern.sub(rb"\1", path.read_bytes()) for path in paths}


def shards(directory: Path) -> list[Path]:
    return sorted(directory.glob(".shards-*/0*.jsonl"))


@pytest.mark.parametrize(("engine", "processes"), [("ctranslate2", 9), ("nemo", 3), *slow(("ctranslate2", 2))])
def test_the_same_bytes_as_one_process(engine, processes, run, alone, tmp_path):
    made = set()
    for rank in reversed(range(processes)):
        result = run(tmp_path, Share(rank, processes), engine=engine)
        assert (result is None) == (rank > 0)
        if rank:
            new = {int(path.stem) for path in shards(tmp_path)} - made
            assert {number % processes for number in new} <= {rank}
            assert new or rank > 3
            made |= new
    assert without_times(tmp_path) == without_times(alone[engine])
    (score,) = result.scores
    assert (score.seconds, score.sentences_per_second, score.decoded) == (None, None, 10)
    assert EvaluationResult.load(tmp_path) == result


def test_no_speed_is_shown_of_shared_work(run, alone, tmp_path):
    for rank in (1, 0):
        run(tmp_path, Share(rank, 2))
    result = EvaluationResult.load(tmp_path)
    (row,) = build_report([result]).rows
    assert row.sentences_per_second is None
    page = build_report([result]).markdown()
    assert "| 1.0 | – |" in page
    assert "several processes decoded" in page
    (row,) = build_report([result, EvaluationResult.load(alone["ctranslate2"])]).rows  # one of them measured it
    assert row.sentences_per_second.mean > 0
    content = json.loads((tmp_path / "results.json").read_text("utf-8"))
    content["scores"][0]["sentences_per_second"] = 5.0
    (tmp_path / "results.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(InputError, match=r"sentences_per_second is 5.0, not decoded / seconds"):
        EvaluationResult.load(tmp_path)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_stopped_and_gone_on_with_by_any_number(processes, run, alone, stop_after, tmp_path):
    stop_after(3, run, tmp_path, Share(0, 2))
    assert len(shards(tmp_path)) == 3
    before = {path: path.stat().st_mtime_ns for path in shards(tmp_path)}
    for rank in reversed(range(processes)):
        if rank == 0 < processes - 1:
            assert before.items() <= {path: path.stat().st_mtime_ns for path in shards(tmp_path)}.items()
        result = run(tmp_path, Share(rank, processes))
    assert result.scores[0].seconds is None
    assert without_times(tmp_path) == without_times(alone["ctranslate2"])


def test_a_damaged_batch_is_decoded_again(run, alone, stop_after, tmp_path):
    stop_after(3, run, tmp_path, Share(0, 2))
    first, second, _ = shards(tmp_path)
    first.write_text("", "utf-8")
    second.write_text(second.read_text("utf-8").replace("[", "[1", 1), "utf-8")
    run(tmp_path, Share(1, 2))
    run(tmp_path, Share(0, 2))
    assert without_times(tmp_path) == without_times(alone["ctranslate2"])


def test_a_batch_that_changes_meanwhile(run, alone, tmp_path):
    run(tmp_path, Share(1, 2))
    shards(tmp_path)[0].write_text("x\n", "utf-8")
    with pytest.raises(InputError, match=r"000001.jsonl' is damaged, or has changed; it is removed: run the same"):
        run(tmp_path, Share(0, 2))
    run(tmp_path)
    assert without_times(tmp_path) == without_times(alone["ctranslate2"])


def test_the_disk_is_asked_once_for_all_batches(tmp_path, monkeypatch):
    """For each of them, at each draw of the bar, a shared disk took seconds."""
    pair = object.__new__(shared.SharedPair)
    pair.path = tmp_path
    for number in (1, 4):
        pair._file(number).touch()
    for name in ("stat", "is_file", "exists"):
        monkeypatch.setattr(Path, name, None)
    assert pair._missing([[place] for place in range(6)]) == [0, 2, 3, 5]


def test_the_first_process_does_not_wait_for_ever(run, tmp_path):
    with pytest.raises(TimeoutError, match=r"\d of \d+ shards are missing .* rank 1 should have made them"):
        run(tmp_path, Share(0, 2, wait_minutes=0.01))


def test_another_evaluation_is_refused_unless_overwritten(run, stop_after, tmp_path):
    stop_after(2, run, tmp_path, Share(0, 2))
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"interrupted run, made with beam_size 2 \(now 3\); go on with its settings"):
        run(tmp_path, beam_size=3)
    with pytest.raises(
        InputError, match=r"made with the engine 'ctranslate2 float32' on 'cpu', this process has 'nemo'"
    ):
        run(tmp_path, Share(1, 2), engine="nemo")
    assert tree(tmp_path) == before
    run(tmp_path, beam_size=3, overwrite=True)
    assert not list(tmp_path.glob(".*"))


def test_what_is_none_of_ours_stays(run, tmp_path):
    place = tmp_path / ".shards-0123456789abcdef"
    place.mkdir()
    (place / "letter.txt").write_text("mine", "utf-8")
    with pytest.raises(InputError, match=r"letter.txt' in it is no file of a run"):
        run(tmp_path, overwrite=True)
    assert (place / "letter.txt").read_text("utf-8") == "mine"


@pytest.mark.parametrize("moment", ["before it begins", "while it opens the model"])
def test_a_process_that_comes_late(moment, run, alone, tmp_path, monkeypatch):
    """The others went on with what was there: nothing is left for it."""
    original = scoring.open_input
    run(tmp_path, Share(1, 2))
    if moment == "before it begins":
        run(tmp_path, Share(0, 2))
        opened = []
    else:

        def open_late(*arguments):
            with monkeypatch.context() as patch:
                patch.setattr(scoring, "open_input", original)
                run(tmp_path, Share(0, 2))
            opened.append(arguments)
            return original(*arguments)

        opened = []
        monkeypatch.setattr(scoring, "open_input", open_late)
    before = tree(tmp_path) if moment == "before it begins" else None
    assert run(tmp_path, Share(1, 2)) is None
    assert len(opened) == (moment != "before it begins")
    assert before in (None, tree(tmp_path))
    assert without_times(tmp_path) == without_times(alone["ctranslate2"])


def test_overwriting_decodes_what_was_finished_again(run, alone, tmp_path):
    run(tmp_path)
    for rank in (1, 0):
        run(tmp_path, Share(rank, 2), overwrite=True)
    assert EvaluationResult.load(tmp_path).scores[0].seconds is None
    assert without_times(tmp_path) == without_times(alone["ctranslate2"])


def test_the_command_line_takes_its_share_from_torchrun(tiny_teacher_path, test_set, tmp_path, monkeypatch, capsys):
    command = [
        "evaluate",
        "--model",
        str(tiny_teacher_path),
        "--test",
        test_set,
        "--output-dir",
        str(tmp_path / "out"),
    ]
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "process 2 of 2 (rank 1)\nprocess 1 of 2 (rank 0)\n# Results" in shown
    monkeypatch.setenv("RANK", "1")
    assert cli.main([*command, "--wait-minutes", "0"]) == 2


@pytest.mark.slow
def test_two_real_processes_and_one_that_is_killed(alone, tiny_teacher_path, test_set, tmp_path):
    """The second one dies with its first batch, the first one is stopped as torchrun does; both again."""
    options = ["--batch-tokens", "60", "--engine", "ctranslate2", "--beam-size", "2", "--output-dir", str(tmp_path)]
    command = [sys.executable, "-m", "nemo_distill.cli", "evaluate", "--model", str(tiny_teacher_path)]

    def start(rank: int) -> subprocess.Popen:
        variables = {"RANK": str(rank), "WORLD_SIZE": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.Popen([*command, "--test", test_set, *options], env={**os.environ, **variables})

    second = start(1)
    while second.poll() is None and not shards(tmp_path):
        time.sleep(0.001)
    second.kill()
    second.wait()
    first = start(0)
    while first.poll() is None and not any(int(path.stem) % 2 == 0 for path in shards(tmp_path)):
        time.sleep(0.001)
    first.terminate()
    first.wait()
    assert shards(tmp_path)
    both = [start(rank) for rank in (0, 1)]
    assert [each.wait(timeout=300) for each in both] == [0, 0]
    assert without_times(tmp_path) == without_times(alone["ctranslate2"])
