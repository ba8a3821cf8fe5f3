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
"""Jobs of several commands: order, what is repeated and what is not, failures."""

import hashlib
import json
import sys
import threading
from pathlib import Path

import pytest

from nemo_distill.errors import InputError, StageError
from nemo_distill.jobs.running import essence
from nemo_distill.jobs.stages import Stage, run_stages
from nemo_distill.support.incoming import read_json


@pytest.fixture
def make(tmp_path):
    """A factory of stages that append their name to `order` and write a result."""

    def build(name: str, *needs: str, code: str = "", again: bool = False, reads=()) -> Stage:
        result = tmp_path / name
        lines = [f"open({str(tmp_path / 'order')!r}, 'a').write('{name} ')", code, f"open({str(result)!r}, 'w')"]
        return Stage(name, [sys.executable, "-c", "\n".join(lines)], result, needs, again, reads)

    return build


def order(tmp_path) -> list[str]:
    return (tmp_path / "order").read_text().split()


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_stage_runs_once_after_what_it_needs(make, tmp_path, jobs, capsys):
    stages = [make("last", "left", "right"), make("left", "first"), make("right", "first"), make("first")]
    run_stages(stages, tmp_path, jobs)
    ran = order(tmp_path)
    assert sorted(ran) == ["first", "last", "left", "right"]
    assert (ran[0], ran[-1]) == ("first", "last")
    run_stages(stages, tmp_path, jobs)
    assert order(tmp_path) == ran
    assert capsys.readouterr().out.count("finished before") == 4
    assert read_json(tmp_path / "stages.json").keys() == {"first", "left", "right", "last"}


def test_stages_run_side_by_side(make, tmp_path):
    """Each of the two waits for the other's sign; one after the other they would never end."""
    wait = "import os, time\nwhile not os.path.exists({other!r}): time.sleep(0.01)"
    signs = {name: str(tmp_path / f"sign-{name}") for name in "ab"}
    code = {
        name: f"open({signs[name]!r}, 'w')\n" + wait.format(other=signs["b" if name == "a" else "a"]) for name in "ab"
    }
    worker = threading.Thread(
        target=run_stages, args=([make(name, code=code[name]) for name in "ab"], tmp_path, 2), daemon=True
    )
    worker.start()
    worker.join(timeout=60)
    assert not worker.is_alive()


def test_a_failure_shows_the_end_of_the_log_and_stops_the_job(make, tmp_path):
    stages = [make("first", code="print('what went wrong'); raise SystemExit(3)"), make("second", "first")]
    with pytest.raises(
        StageError, match=r"stage first failed with status 3; its log, \S+first.log, ends:\n  what went"
    ):
        run_stages(stages, tmp_path)
    assert order(tmp_path) == ["first"]
    assert not (tmp_path / "stages.json").exists()
    run_stages([make("first"), make("second", "first")], tmp_path)
    assert order(tmp_path) == ["first", "first", "second"]


def test_another_command_does_not_take_over_a_result(make, tmp_path):
    run_stages([make("first"), make("second", "first")], tmp_path)
    with pytest.raises(InputError, match="stage first has finished before, with other settings.*; remove"):
        run_stages([make("first", code="2"), make("second", "first")], tmp_path)
    (tmp_path / "first").unlink()  # made anew, it makes what came after it stale
    with pytest.raises(InputError, match="stage second has finished before, .* after other stages; remove"):
        run_stages([make("first", code="2"), make("second", "first")], tmp_path)


def test_what_may_run_again_runs_again_when_something_before_it_has_changed(make, tmp_path):
    run_stages([make("first"), make("table", "first", again=True)], tmp_path)
    stages = [make("first"), make("more"), make("table", "first", "more", again=True)]
    run_stages(stages, tmp_path)
    assert order(tmp_path) == ["first", "table", "more", "table"]
    run_stages(stages, tmp_path)
    assert len(order(tmp_path)) == 4


def test_a_lost_result_is_made_anew(make, tmp_path):
    run_stages([make("first")], tmp_path)
    (tmp_path / "first").unlink()
    run_stages([make("first")], tmp_path)
    assert order(tmp_path) == ["first", "first"]


def test_a_change_of_what_a_stage_has_read_is_noticed(make, tmp_path):
    text, test = tmp_path / "train.de", tmp_path / "test.de"
    text.write_text("eins")
    test.write_text("zwei")
    stages = [make("train", reads=(text,)), make("score", "train", again=True, reads=(test,)), make("other")]
    stages.append(make("report", "score", again=True))
    run_stages(stages, tmp_path)
    test.write_text("drei")
    run_stages(stages, tmp_path)
    assert sorted(order(tmp_path)[4:]) == ["report", "score"]
    text.write_text("vier")
    with pytest.raises(
        InputError, match="stage train has finished before, with another text or teacher than now; rem"
    ):
        run_stages(stages, tmp_path)
    text.write_text("eins")
    run_stages(stages, tmp_path)
    text.unlink()
    with pytest.raises(InputError, match=r"train\.de"):
        run_stages(stages, tmp_path)
    assert len(order(tmp_path)) == 6


def test_a_job_is_the_same_wherever_it_lies(tmp_path, monkeypatch, capsys):
    """By a relative or an absolute path, moved or not, and with its corpus elsewhere; not with another text."""
    for place in ("here", "there"):
        (tmp_path / place / "corpus").mkdir(parents=True)
        (tmp_path / place / "corpus" / "train.de").write_text("text")
    monkeypatch.chdir(tmp_path / "here")

    def run(out: Path, corpus: Path, steps: int = 2, name: str = "train.de"):
        made, text = out / "model" / "a.nemo", corpus / name
        command = [sys.executable, "-c", "", f"output_dir={made.parent}", f"data.dir={corpus}", f"steps={steps}"]
        if not made.exists():
            made.parent.mkdir(parents=True)
            made.write_text("a")
        run_stages([Stage("a", [*command, f"test:{text}:{text}"], made, reads=(text,))], out)
        return capsys.readouterr().out.count("finished before")

    assert run(Path("2"), Path("corpus")) == 0
    assert run(Path("2"), Path("corpus")) == 1
    assert run(tmp_path / "here" / "2", tmp_path / "there" / "corpus") == 1
    Path("2").rename(tmp_path / "moved")
    assert run(tmp_path / "moved", Path("corpus")) == 1
    with pytest.raises(InputError, match="finished before, with other settings, or after other stages; remove"):
        run(tmp_path / "moved", Path("corpus"), steps=3)
    (tmp_path / "there/corpus/other.de").write_text("text")
    with pytest.raises(InputError, match="finished before, with other settings"):
        run(tmp_path / "moved", tmp_path / "there/corpus", name="other.de")


def test_a_job_of_an_earlier_version_goes_on(tmp_path, capsys):
    """There the key of a stage held the place of the job."""
    (tmp_path / "a").write_text("a")
    command = ["false", f"output_dir={tmp_path}/a"]
    key = hashlib.sha256(json.dumps([essence(command), []]).encode()).hexdigest()
    done = {"key": key, "sha256": hashlib.sha256(b"a").hexdigest(), "reads": []}
    (tmp_path / "stages.json").write_text(json.dumps({"a": done}))
    run_stages([Stage("a", command, tmp_path / "a")], tmp_path)
    assert capsys.readouterr().out.count("finished before") == 1


@pytest.mark.parametrize("given", ["3", None])
def test_the_users_threads_reach_the_stages(make, tmp_path, monkeypatch, given):
    """They were replaced by the number of cores."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    said = tmp_path / "said"
    found = "(os.environ.get('OMP_NUM_THREADS'), 'NEMO_DISTILL_CORES' in os.environ)"
    code = f"import os\nopen({str(said)!r}, 'w').write(repr({found}))"
    run_stages([make("only", code=code)], tmp_path, 1)
    assert said.read_text() == repr((given, True))
