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
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from nemo_distill.errors import InputError, StageError, StoppedBySignal
from nemo_distill.jobs.allowed import setting
from nemo_distill.jobs.noted import Stage, _without_places
from nemo_distill.jobs.progress import Progress, StageProgress, read_progress
from nemo_distill.jobs.running import essence
from nemo_distill.jobs.stages import run_stages
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
    run_stages([make("first"), make("second", "first")], tmp_path)
    assert order(tmp_path) == ["first", "first", "second"]


def test_a_failure_stops_what_needs_it_and_nothing_else(make, tmp_path):
    """One failed stage ended the whole job."""
    bad = make("bad", code="print('no such word'); raise SystemExit(1)")
    stages = [bad, make("other"), make("next", "bad"), make("last", "next", "other"), make("more", "other")]
    with pytest.raises(StageError) as caught:
        run_stages(stages, tmp_path)
    assert order(tmp_path) == ["bad", "other", "more"]
    said = str(caught.value)
    assert "stage bad failed with status 1; its log" in said
    assert "no such word" in said
    assert said.endswith("not run, since they need it: next, last")
    states = {name: stage.state for name, stage in read_progress(tmp_path).stages.items()}
    assert states == {"bad": "failed", "other": "done", "next": "left out", "last": "left out", "more": "done"}
    stages[0] = make("bad")
    run_stages(stages, tmp_path)
    assert order(tmp_path)[3:] == ["bad", "next", "last"]


@pytest.mark.parametrize(("statuses", "error"), [((2, 2), InputError), ((2, 1), StageError)])
def test_all_failures_are_told(make, tmp_path, statuses, error):
    stages = [make(f"s{number}", code=f"raise SystemExit({status})") for number, status in enumerate(statuses)]
    with pytest.raises(error) as caught:
        run_stages(stages, tmp_path)
    assert [f"stage s{n} failed with status {status}" in str(caught.value) for n, status in enumerate(statuses)]


def test_a_job_shows_what_its_stages_warn_of(make, tmp_path, capsys):
    """Of this library's warnings, each once and a few of a stage: what others warn of is in the log, as all is."""
    said = ["from nemo.utils import logging", "from nemo_distill.support.warned import warn"]
    said += ["logging.warning('of others')", "warn('known by heart')", "warn('known by heart')"]
    said += [f"warn('number {number}')" for number in range(9)]
    run_stages([make("first", code="\n".join(said))], tmp_path)
    shown = [line for line in capsys.readouterr().err.splitlines() if "warning: " in line]
    wanted = ["known by heart", *(f"number {number}" for number in range(4))]
    assert shown == [f"[first] warning: {text}" for text in wanted]
    log = (tmp_path / "logs" / "first.log").read_text()
    assert "of others" in log
    assert "number 8" in log


def test_a_job_shows_what_modules_without_nemo_warn_of(make, tmp_path, capsys):
    code = "from nemo_distill.support.lock import _logger\n_logger.warning('%s has no locks', 'this')"
    run_stages([make("first", code=code)], tmp_path)
    assert "[first] warning: this has no locks" in capsys.readouterr().err.splitlines()


def test_a_change_runs_what_it_changes_again_and_keeps_what_was_made(make, tmp_path, capsys):
    """It was refused."""
    stages = [make("first"), make("second", "first"), make("other")]
    run_stages(stages, tmp_path)
    (tmp_path / "second").write_text("hours of work")
    run_stages([make("other")], tmp_path)  # a part of it is no change
    with pytest.raises(InputError, match="stage second has finished before, and .* has changed since; remove"):
        run_stages(stages, tmp_path)
    (tmp_path / "second").write_text("")
    (tmp_path / "first").write_text("")
    changed = [make("first", code="2"), *stages[1:]]
    run_stages(changed, tmp_path)
    assert order(tmp_path)[3:] == ["first", "second"]
    assert {path.name for path in (tmp_path / "earlier").iterdir()} == {"first.1", "second.1"}
    run_stages(changed, tmp_path)
    assert len(order(tmp_path)) == 5
    run_stages(stages, tmp_path)
    assert order(tmp_path)[5:] == ["first", "second"]
    assert {path.name for path in (tmp_path / "earlier").iterdir()} == {
        f"{a}.{n}" for a in ("first", "second") for n in "12"
    }
    assert "[first] what it had made is kept in" in capsys.readouterr().out


def test_what_was_begun_in_another_way_is_moved_away_too(make, tmp_path):
    """A training that was interrupted would refuse to go on with other settings."""
    where = tmp_path / "run"
    code = f"import os; os.makedirs({str(where)!r}, exist_ok=False); raise SystemExit(1)"

    def stage(code: str) -> Stage:
        return replace(make("run", code=code), result=where / "model.nemo")

    with pytest.raises(StageError):
        run_stages([stage(code)], tmp_path)
    made = f"import os; os.makedirs({str(where)!r}, exist_ok=False); open({str(where / 'model.nemo')!r}, 'w')"
    run_stages([replace(stage(made), command=[sys.executable, "-c", made])], tmp_path)
    assert [path.name for path in (tmp_path / "earlier").iterdir()] == ["run.1"]


@pytest.mark.parametrize("kind", ["link", "outside"])
def test_what_is_not_the_jobs_own_is_not_moved(make, tmp_path, kind):
    elsewhere, job = tmp_path / "elsewhere", tmp_path / "job"
    elsewhere.mkdir()
    job.mkdir()
    place = job / "run" if kind == "link" else elsewhere
    if kind == "link":
        place.symlink_to(elsewhere)

    def stage(number: int) -> Stage:
        result = place / "model.nemo"
        return Stage("run", [sys.executable, "-c", f"open({str(result)!r}, 'w').write('{number}')"], result)

    run_stages([stage(1)], job)
    with pytest.raises(InputError, match="stage run: .* is not the job's own; move it away"):
        run_stages([stage(2)], job)
    assert (elsewhere / "model.nemo").read_text() == "1"


def test_stages_of_one_name_are_refused(make, tmp_path):
    with pytest.raises(InputError, match="two stages of the job have one name"):
        run_stages([make("a"), make("a")], tmp_path)


def test_what_may_run_again_runs_again_when_something_before_it_has_changed(make, tmp_path):
    run_stages([make("first"), make("table", "first", again=True)], tmp_path)
    stages = [make("first"), make("more"), make("table", "first", "more", again=True)]
    run_stages(stages, tmp_path)
    assert order(tmp_path) == ["first", "table", "more", "table"]
    run_stages(stages, tmp_path)
    assert len(order(tmp_path)) == 4


def test_a_report_is_told_what_labels_and_caches_took_and_what_is_shared(make, tmp_path):
    written = tmp_path / "arguments"
    code = f"import sys; open({str(written)!r}, 'w').write(' '.join(sys.argv[1:]))"
    spent = {"a": ("labels", "cache"), "b": ("labels",), "c": ("cache", "labels"), "d": ("more",)}
    report = replace(make("report", "labels", "cache", "more", code=code), spent=spent)
    slow = "import time; time.sleep(0.3)"
    stages = [make("labels", code=slow), make("cache", code=slow), make("more"), report]
    run_stages(stages, tmp_path)
    option, *told = written.read_text().split()
    told = {row: [float(each) for each in seconds] for row, *seconds in (each.split(":") for each in told)}
    labels, cache, more = (read_progress(tmp_path).stages[name].seconds for name in ("labels", "cache", "more"))
    assert option == "--spent"
    wanted = {"a": [labels + cache, labels / 3 + cache / 2], "b": [labels, labels / 3], "d": [more]}
    wanted["c"] = wanted["a"]
    assert told.keys() == wanted.keys()
    for row, seconds in wanted.items():
        assert told[row] == pytest.approx(seconds, abs=0.051)
    run_stages(stages, tmp_path)
    assert len(order(tmp_path)) == 4


STOPPED = "import os, time; begun = os.path.exists({mark!r}); open({mark!r}, 'w'); time.sleep(0.5)\nif not begun: "


@pytest.mark.parametrize(
    ("ends", "error"),
    [
        ("raise SystemExit(1)", StageError),
        ("os.kill(os.getppid(), 15); time.sleep(60)", StoppedBySignal),
    ],
)
def test_the_time_of_a_stage_that_went_on_is_that_of_all_its_attempts(make, tmp_path, ends, error):
    """It was that of the last one, in the page's time to quality and in what a plan is compared with."""
    mark = str(tmp_path / "mark")
    stage = make("a", code=STOPPED.format(mark=mark) + ends)
    with pytest.raises(error):
        run_stages([stage], tmp_path)
    first = read_progress(tmp_path).stages["a"]
    assert (first.before, first.seconds >= 0.5) == (0, True)
    run_stages([stage], tmp_path)
    second = read_progress(tmp_path).stages["a"]
    assert second.before == first.seconds
    assert second.seconds >= second.before + 0.5
    run_stages([make("a", code="changed = 1")], tmp_path)  # what is made anew owes nothing to it
    assert read_progress(tmp_path).stages["a"].before == 0


def test_when_a_stage_was_killed_its_log_says(make, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").touch()
    os.utime(tmp_path / "logs" / "a.log", (1060, 1060))
    progress = Progress({"a": StageProgress("running", 1000.0, before=7.0), "b": StageProgress("running", 1000.0)})
    for name in ("a", "b"):
        progress.go_on(name, tmp_path)
    assert [stage.before for stage in progress.stages.values()] == [67.0, 0.0]  # b has no log


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
    run_stages(stages, tmp_path)
    assert order(tmp_path)[6:] == ["train", "score", "report"]
    kept = ["report.1", "report.2", "score.1", "score.2", "train.1"]
    assert sorted(path.name for path in (tmp_path / "earlier").iterdir()) == kept
    run_stages(stages, tmp_path)
    text.unlink()
    with pytest.raises(InputError, match=r"train\.de"):
        run_stages(stages, tmp_path)
    assert len(order(tmp_path)) == 9


def test_other_text_makes_stale_what_comes_of_it(make, tmp_path):
    """Even where the job is stopped between the two."""
    text = tmp_path / "train.de"
    text.write_text("eins")
    stages = [make("tokenizer", reads=(text,)), make("student", "tokenizer")]
    run_stages(stages, tmp_path)
    text.write_text("zwei")
    run_stages(stages[:1], tmp_path)
    run_stages(stages, tmp_path)
    assert order(tmp_path)[2:] == ["tokenizer", "student"]


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
    (tmp_path / "there/corpus/other.de").write_text("text")
    with pytest.raises(InputError, match="ended well without its result"):  # moved away, and the command makes none
        run(tmp_path / "moved", tmp_path / "there/corpus", name="other.de")
    assert (tmp_path / "moved/earlier/a.1/a.nemo").exists()


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        (lambda at: [setting("teacher", at("x.nemo"))], ["x.nemo"]),
        (lambda at: ["--teacher", at("x.nemo"), at("t/y.nemo")], ["x.nemo", "t/y.nemo"]),
        (lambda at: [setting("teacher", [at("t/x.nemo"), at("t/y.nemo")])], ["t/x.nemo", "t/y.nemo"]),
        (lambda at: [setting("teacher", [at("x.nemo"), at("my t/y.nemo")])], ["x.nemo", "my t/y.nemo"]),
        (lambda at: ["--test", f"news:{at('a.de')}:{at('a.en')}"], ["a.de", "a.en"]),
        (lambda at: ["--teacher", at("opus")], ["opus/model.bin", "opus/config.json"]),
        (lambda at: [setting("data.dir", at("."))], ["train.de"]),
        (lambda at: [setting("data.dir", at("c"))], ["c/train.de"]),
        (lambda at: [setting("data.dir", at("my c")), "--train", at("my c/train.de")], ["my c/train.de"]),
        (
            lambda at: [setting("data.dir", at("c/d")), setting("teacher", at("c/x.nemo"))],
            ["c/d/train.de", "c/x.nemo"],
        ),
    ],
)
def test_an_absolute_path_in_place_of_a_relative_one_is_the_same_job(arguments, files, tmp_path, monkeypatch, capsys):
    """Of a file in the current directory, of several teachers, of what has to be quoted."""
    here = tmp_path / "my texts, all"
    for name in files:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name)
    monkeypatch.chdir(here)

    def run(root: Path, out: Path) -> int:
        command = [
            sys.executable,
            "-c",
            "import os; os.mknod(os.path.join('out', 'a'))",
            setting("output_dir", out / "a"),
        ]
        command += arguments(lambda name: str(root / name))
        run_stages([Stage("a", command, out / "a", reads=tuple(root / name for name in files))], out)
        return capsys.readouterr().out.count("finished before")

    assert run(Path(), Path("out")) == 0
    assert run(here, Path("out")) == 1
    assert run(here, here / "out") == 1
    assert run(Path(), Path("out")) == 1
    (here / files[-1]).write_text("other")
    assert run(here, here / "out") == 0


def test_other_files_and_settings_are_another_job(tmp_path):
    """What is left of a path names the file, and what is no path stays."""
    reads = [Path("x.nemo"), Path("hinton"), Path("t/y.nemo")]

    def left(argument: str) -> str:
        return _without_places(argument, Path("out"), reads)

    assert left("teacher=x.nemo") == "teacher=<input>/x.nemo"
    assert left("output_dir='out/x.nemo'") == "output_dir=<job>/x.nemo"
    for argument in ("teacher=ax.nemo", "teacher=x.nemo2", "name=a/x.nemo", "keep=best", "seed=1", "a='b/c d'"):
        assert left(argument) == argument


def test_what_the_version_before_has_finished_is_not_made_anew(tmp_path, monkeypatch, capsys):
    """Its keys held paths that are left out now; the stages that come after have them in theirs."""
    monkeypatch.chdir(tmp_path)
    for name in ("x.nemo", "y.nemo", "out/a", "out/b"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("same")
    same = hashlib.sha256(b"same").hexdigest()
    teachers = (Path("x.nemo"), Path("y.nemo"))
    stages = [
        Stage("a", ["false", "a.py", "output_dir=out/a", "teacher=[x.nemo,y.nemo]"], Path("out/a"), reads=teachers),
        Stage("b", ["false", "b.py", "output_dir=out/b"], Path("out/b"), ("a",)),
    ]
    done = {}
    for stage, reads in zip(stages, ([same, same], []), strict=True):
        before = [done[need] for need in stage.needs]
        arguments = [each.replace("=out/", "=<job>/") for each in essence(stage.command)]
        key = hashlib.sha256(json.dumps([arguments, [each["key"] for each in before]]).encode()).hexdigest()
        origin = hashlib.sha256(json.dumps([key, reads, [each["origin"] for each in before]]).encode()).hexdigest()
        done[stage.name] = {"key": key, "sha256": same, "reads": reads, "origin": origin}
    Path("out/stages.json").write_text(json.dumps(done))
    run_stages(stages, "out")
    assert capsys.readouterr().out.count("finished before") == 2
    stages[0].command[3] = "teacher=[y.nemo,x.nemo]"
    with pytest.raises(StageError, match="stage a failed"):
        run_stages(stages, "out")


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


def test_a_stage_that_begins_alone_has_all_cores(make, tmp_path, monkeypatch):
    """It had the share of a stage that others run beside, though none did."""
    monkeypatch.setattr("nemo_distill.jobs.stages.cores", lambda: 8)
    said = {name: tmp_path / f"said-{name}" for name in ("first", "left", "right", "last")}
    code = {
        name: f"import os\nopen({str(path)!r}, 'w').write(os.environ['NEMO_DISTILL_CORES'])"
        for name, path in said.items()
    }
    needs = {"first": (), "left": ("first",), "right": ("first",), "last": ("left", "right")}
    run_stages([make(name, *needs[name], code=code[name]) for name in said], tmp_path, 2)
    assert [path.read_text() for path in said.values()] == ["8", "4", "4", "8"]


def test_a_stage_that_goes_on_keeps_what_it_had_made_before_it_is_changed(tmp_path):
    """As an evaluation does, which removes what no longer fits, and takes the rest over."""
    out = tmp_path / "evaluation"

    def build(words: str) -> list[Stage]:
        code = f"import os\nos.makedirs({str(out)!r}, exist_ok=True)\n"
        code += f"open({str(out / 'results')!r}, 'a').write({words!r})"
        return [Stage("evaluation", [sys.executable, "-c", code], out / "results", (), True, ())]

    run_stages(build("first "), tmp_path)
    run_stages(build("second "), tmp_path)
    assert (out / "results").read_text() == "first second "
    assert (tmp_path / "earlier" / "evaluation.1" / "results").read_text() == "first "
    run_stages(build("second "), tmp_path)
    assert not (tmp_path / "earlier" / "evaluation.2").exists()


def test_times_of_stages_that_a_call_leaves_out_are_kept(make, tmp_path):
    """Of a row that is left out and comes back; of the export, which comes after the others."""
    stages = [make("first"), make("second", "first")]
    run_stages(stages, tmp_path)
    seconds = read_progress(tmp_path).stages["second"].seconds
    run_stages(stages[:1], tmp_path)
    assert list(read_progress(tmp_path).stages) == ["first"]
    run_stages(stages, tmp_path)
    assert read_progress(tmp_path).stages["second"].seconds == seconds > 0
