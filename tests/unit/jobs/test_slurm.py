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
"""Stages as jobs of Slurm: what is handed over and what is not, failures, changes, what status says.

A stand-in keeps the scripts and runs them in order; a real Slurm is in tests/functional/test_slurm_executor.py.
"""

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm

from nemo_distill import cli
from nemo_distill.cli.parser import build_parser
from nemo_distill.errors import InputError, InUseError
from nemo_distill.jobs.costs import Plan, StageCost
from nemo_distill.jobs.noted import Stage
from nemo_distill.jobs.progress import read_progress, table_of
from nemo_distill.jobs.running import training_command, verb_command
from nemo_distill.jobs.slurm import Rest, submit_stages
from nemo_distill.jobs.slurm_records import read_submitted
from nemo_distill.jobs.slurm_scripts import Allocation, SlurmSettings, minutes_of
from nemo_distill.jobs.stages import run_stages
from nemo_distill.support.lock import locked

NONE = SlurmSettings()


@pytest.fixture
def fake(tmp_path, monkeypatch) -> FakeSlurm:
    made = FakeSlurm(tmp_path / "fake")
    monkeypatch.setenv("PATH", made.path)
    monkeypatch.setenv("FAKE", str(made.directory))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return made


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def make(out) -> Callable[..., Stage]:
    """A factory of stages that append their name to `order` and write a result."""

    def build(name: str, *needs: str, code: str = "", again: bool = False, fetches: bool = False) -> Stage:
        result = out / name / "result"
        lines = [f"mkdir -p {out}/{name}", f"printf '%s ' {name} >> {out}/order", code, f"echo made > {result}"]
        command = ["/bin/sh", "-ec", "\n".join(lines)]
        return Stage(name, command, result, needs, again, fetches=fetches)

    return build


def order(out: Path) -> list[str]:
    path = out / "order"
    return path.read_text().split() if path.exists() else []


def states(out: Path) -> dict[str, str]:
    """What `nemo-distill status` says of each stage."""
    rows = [line.split() for line in table_of(out).splitlines()[:-1]]
    return {name: " ".join(words) for name, *words in rows}


def test_each_stage_is_a_job_after_those_that_it_needs(fake, out, make, capsys):
    stages = [make("table", "left", "right"), make("left", "first"), make("right", "first"), make("first")]
    numbers = submit_stages(stages, out, NONE)
    assert len(numbers) == 4
    assert order(out) == []
    first, *_ = [each for each in fake.submissions() if "--job-name=first-" in each]
    assert {"--requeue", "--signal=B:TERM@120", "--open-mode=append", "--ntasks-per-node=1"} <= set(first.split())
    assert "--dependency" not in first
    (table,) = (each for each in fake.submissions() if "--job-name=table-" in each)
    needed = {read_submitted(out)[name].job for name in ("left", "right")}
    (dependency,) = (each for each in table.split() if each.startswith("--dependency=afterok:"))
    assert set(dependency.split(":")[1:]) == needed
    assert "--kill-on-invalid-dep=yes" in table
    assert states(out)["first"] == f"queued job {read_submitted(out)['first'].job}: Priority"
    assert table_of(out).endswith("0 of 4 stages done, 0 failed; the job is queued in Slurm")
    fake.work()
    assert (order(out)[0], order(out)[-1]) == ("first", "table")
    assert table_of(out).endswith("4 of 4 stages done, 0 failed; the job is finished")
    assert submit_stages(stages, out, NONE) == []
    assert capsys.readouterr().out.count("finished before") == 4
    assert len(fake.submissions()) == 4
    assert len(order(out)) == 4
    progress = read_progress(out).stages
    assert all(stage.state == "done" and stage.started and stage.seconds is not None for stage in progress.values())
    run_stages(stages, out)
    assert len(order(out)) == 4


def test_what_is_there_is_not_handed_over_again(fake, out, make):
    stages = [make("first"), make("second", "first")]
    numbers = submit_stages(stages, out, NONE)
    assert submit_stages(stages, out, NONE) == numbers
    (out / "slurm" / "jobs.json").unlink()  # as where the process was killed behind sbatch
    assert submit_stages(stages, out, NONE) == numbers
    fake.set_state(numbers[0], "RUNNING")
    fake.set_state(numbers[1], "RUNNING")
    assert submit_stages(stages, out, NONE) == numbers
    assert len(fake.submissions()) == 2
    assert not fake.calls("scancel")


def test_two_submitters_do_not_collide(fake, out, make):
    with locked(out), pytest.raises(InUseError, match="is in use: process"):
        submit_stages([make("first")], out, NONE)
    assert fake.submissions() == []


def test_a_failure_stops_what_needs_it_and_nothing_else(fake, out, make):
    stages = [make("bad", code="echo no such word; exit 1"), make("other"), make("next", "bad")]
    stages += [make("last", "next", "other"), make("more", "other")]
    submit_stages(stages, out, NONE)
    fake.work()
    assert order(out) == ["bad", "other", "more"]
    seen = states(out)
    assert "failed" in seen["bad"]
    assert seen["bad"].endswith("no such word")
    assert "left out" in seen["next"]
    assert seen["next"].endswith("it needs bad")
    assert seen["last"].endswith("it needs next")
    assert table_of(out).endswith("2 of 5 stages done, 1 failed; the job is not running; the same command goes on")
    stages[0] = make("bad")
    assert len(submit_stages(stages, out, NONE)) == 3
    fake.work()
    assert order(out)[3:] == ["bad", "next", "last"]
    assert submit_stages(stages, out, NONE) == []


def test_what_waits_for_a_failed_stage_is_handed_over_again_with_it(fake, out, make):
    """Slurm may need some time to cancel it."""
    stages = [make("bad", code="exit 1"), make("next", "bad")]
    bad, waits = submit_stages(stages, out, NONE)
    fake.set_state(waits, "RUNNING")
    fake.work()
    fake.set_state(waits, "PENDING", "DependencyNeverSatisfied")
    assert fake.state(bad) == "FAILED"
    numbers = submit_stages(stages, out, NONE)
    assert fake.calls("scancel") == [f"scancel --state=PENDING {waits}"]
    assert not {bad, waits} & set(numbers)


def test_a_change_hands_over_what_it_changes_and_nothing_else(fake, out, make, capsys):
    stages = [make("first"), make("second", "first"), make("other")]
    submit_stages(stages, out, NONE)
    fake.work()
    changed = [make("first", code="true"), *stages[1:]]
    numbers = submit_stages(changed, out, NONE)
    assert len(numbers) == 2
    assert {path.name for path in (out / "earlier").iterdir()} == {"first.1", "second.1"}
    capsys.readouterr()
    again = [make("first", code="true; true"), *stages[1:]]
    others = submit_stages(again, out, NONE)
    assert fake.calls("scancel") == [f"scancel --state=PENDING {' '.join(numbers)}"]
    assert not set(numbers) & set(others)
    fake.work()
    assert order(out)[3:] == ["first", "second"]


def test_what_runs_to_be_made_otherwise_is_refused(fake, out, make):
    stages = [make("first"), make("second", "first")]
    first, second = submit_stages(stages, out, NONE)
    fake.set_state(first, "RUNNING")
    with pytest.raises(InputError, match=f"in Slurm run first .job {first}.*otherwise.*`scancel {first}`, then give"):
        submit_stages([make("first", code="true"), stages[1]], out, NONE)
    assert not fake.calls("scancel")
    assert len(fake.submissions()) == 2
    assert fake.state(second) == "PENDING"


def test_a_stage_that_is_gone_from_the_recipe_is_named(fake, out, make, capsys):
    first, old = submit_stages([make("first"), make("old")], out, NONE)
    assert submit_stages([make("first")], out, NONE) == [first]
    assert f"[old] is no stage any more, and is in Slurm; `scancel {old}` ends it" in capsys.readouterr().out


def test_a_job_here_leaves_alone_what_is_in_slurm(fake, out, make, monkeypatch):
    stages = [make("first"), make("second", "first")]
    first, second = submit_stages(stages, out, NONE)
    with pytest.raises(
        InputError, match=rf"in Slurm are first \(job {first}\), .*`scancel {first} {second}`, or give"
    ):
        run_stages(stages, out)
    monkeypatch.setenv("FAKE_DOWN", "1")
    with pytest.raises(InputError, match="cannot be asked whether they are there: squeue says: error: Unable to"):
        run_stages(stages, out)
    monkeypatch.delenv("FAKE_DOWN")
    for number in (first, second):
        fake.set_state(number, "CANCELLED")
    run_stages(stages, out)
    assert order(out) == ["first", "second"]
    assert table_of(out).endswith("the job is finished")


def test_an_interrupted_job_goes_on(fake, out, make):
    """As when it is preempted: its script has Slurm start it again."""
    code = f"test -e {out}/told || {{ touch {out}/told; exit 143; }}"
    stages = [make("first", code=code), make("second", "first")]
    first, second = submit_stages(stages, out, NONE)
    fake.work()
    assert fake.calls("scontrol") == [f"scontrol requeue {first}"]
    assert states(out)["first"].endswith(f"job {first}: BeginTime")
    assert fake.state(second) == "CANCELLED"  # as the stand-in has it; Slurm itself waits
    fake.set_state(second, "PENDING", "Dependency")
    assert submit_stages(stages, out, NONE) == [first, second]
    fake.work()
    assert order(out) == ["first", "first", "second"]
    notes = (out / "slurm" / "first.starts").read_text().split("\n")
    assert [note.split()[1] for note in notes if note] == ["begin", "end", "begin", "end"]
    assert table_of(out).endswith("2 of 2 stages done, 0 failed; the job is finished")


@pytest.mark.parametrize(
    ("state", "accounts", "said"),
    [
        ("TIMEOUT", "", r"stopped \d s job {}: timeout"),
        ("", "", r"stopped \d s job {}: gone"),
        ("", "{}|CANCELLED by 7", r"stopped \d s job {}: cancelled"),
        ("OUT_OF_MEMORY", "", r"failed \d s job {}: out of memory"),
    ],
)
def test_what_slurm_has_ended_says_so(fake, out, make, monkeypatch, state, accounts, said):
    stages = [make("first", code="exit 143")]
    (first,) = submit_stages(stages, out, NONE)
    fake.work()
    fake.set_state(first, state)
    monkeypatch.setenv("FAKE_ACCOUNTS", accounts.format(first))
    assert re.fullmatch(said.format(first), states(out)["first"])
    (again,) = submit_stages(stages, out, NONE)
    assert again != first


def test_what_was_killed_and_forgotten_does_not_run_for_ever(fake, out, make):
    """The last stages note themselves that they run; of a killed one nobody says that it has ended."""
    (last,) = submit_stages([make("report", again=True)], out, NONE)
    fake.set_state(last, "")
    (out / "slurm" / "report.starts").write_text(f"{last} begin 1000\n")
    progress = read_progress(out)
    progress.change("report", "running")
    progress.write(out)
    with locked(out):
        assert re.fullmatch(r"running \d s", states(out)["report"])
    assert states(out)["report"] == f"stopped 0 s job {last}: gone"
    assert table_of(out).endswith("the job is not running; the same command goes on")


def test_status_without_slurm(fake, out, make, monkeypatch):
    (first,) = submit_stages([make("first")], out, NONE)
    monkeypatch.setenv("FAKE_DOWN", "1")
    lines = table_of(out).splitlines()
    assert lines[0].split() == ["first", "unknown", "job", first]
    assert "the job is in Slurm, which cannot be asked: squeue says: error: Unable to contact" in lines[-1]


def test_a_log_is_that_of_the_job(fake, out, make):
    (first,) = submit_stages([make("first", code="echo hello")], out, NONE)
    fake.work()
    assert "hello" in (out / "logs" / "first.log").read_text()
    fake.set_state(first, "RUNNING")
    (out / "slurm" / "first.starts").write_text(f"{first} begin 1000\n")
    assert table_of(out, now=1090.0).splitlines()[0].split() == ["first", "running", "1", "min", "30", "s", "hello"]


def test_what_needs_the_internet_runs_here(fake, out, make):
    stages = [make("corpus", fetches=True), make("first", "corpus")]
    (first,) = submit_stages(stages, out, NONE)
    assert order(out) == ["corpus"]
    assert "--dependency" not in fake.submissions()[-1]
    assert read_submitted(out).keys() == {"first"}
    assert submit_stages(stages, out, NONE) == [first]


def test_the_last_stages_are_one_job(fake, out, make):
    report = make("report", "scores", again=True)
    stages = [make("scores", again=True), report]
    rest = Rest(("report", "export"), ["/bin/sh", "-c", f"echo rest >> {out}/order"], "0")
    scores, last = submit_stages(stages, out, NONE, rest)
    assert read_submitted(out)["export"].job == last
    assert list(states(out)) == ["scores", "report", "export"]
    fake.work()
    assert order(out) == ["scores", "rest"]
    assert submit_stages(stages, out, NONE, rest) != []  # the job says that it is done, and the report is not there
    again = submit_stages(stages, out, NONE, replace(rest, origin="1"))
    assert len(again) == 1
    assert scores not in again
    assert fake.calls("scancel")


def test_only_what_is_asked_for_runs_here(out, make):
    stages = [make("first"), make("second", "first"), make("third")]
    with pytest.raises(InputError, match="second cannot run: first must be made first; give the command of the whole"):
        run_stages(stages, out, only=["second"])
    run_stages(stages, out, only=["third", "no stage"])
    assert order(out) == ["third"]
    assert {name: stage.state for name, stage in read_progress(out).stages.items()} == {
        **{"first": "waiting", "second": "waiting"},
        "third": "done",
    }


def test_the_last_stages_do_not_wait_for_what_they_do_not_need(fake, out, make, monkeypatch):
    """As labels that no run reads."""
    stages = [make("scores", again=True), make("labels"), make("report", "scores", again=True)]
    rest = Rest(("report",), ["/bin/true"], "0")
    _, labels, last = submit_stages(stages, out, NONE, rest)
    fake.set_state(labels, "RUNNING")
    fake.set_state(last, "RUNNING")
    fake.work()
    monkeypatch.setenv("SLURM_JOB_ID", last)
    run_stages(stages, out, only=["report", "export"])
    assert order(out) == ["scores", "report"]
    seen = states(out)
    assert seen["labels"].startswith("running")
    assert seen["report"].startswith("done")


def test_an_error_before_anything_is_handed_over(fake, out, make, monkeypatch):
    stages = [make("first"), make("second", "first")]
    with pytest.raises(InputError, match="sbatch says: error: invalid partition specified: nowhere"):
        submit_stages(stages, out, SlurmSettings(partition="nowhere"))
    training = Stage("student", training_command("distill", "trainer=gpu"), out / "student" / "student.nemo")
    with pytest.raises(InputError, match="--train-gpus: got 0, and student trains on GPUs; give at least 1"):
        submit_stages([*stages, training], out, SlurmSettings(train_gpus=0))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="there is no squeue on PATH; give the command where Slurm's are"):
        submit_stages(stages, out, NONE)
    assert fake.submissions() == []
    assert not (out / "slurm").exists()


def test_an_error_on_the_way_loses_nothing(fake, out, make, monkeypatch):
    """As where a user may have so many jobs and no more."""
    stages = [make("first"), make("second", "first"), make("third")]
    monkeypatch.setenv("FAKE_FULL", "103")
    with pytest.raises(InputError, match="sbatch says: error: QOSMaxSubmitJobPerUserLimit"):
        submit_stages(stages, out, NONE)
    monkeypatch.delenv("FAKE_FULL")
    assert len(submit_stages(stages, out, NONE)) == 3
    fake.work()
    assert sorted(order(out)) == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gpus": -1}, "--gpus: got -1; give at least 0"),
        ({"nodes": 0}, "--nodes: got 0; give at least 1"),
        ({"train_nodes": 0}, "--train-nodes: got 0; give at least 1"),
        ({"time_factor": 0.0}, "--time-factor: got 0.0; give a number above 0"),
        ({"options": ("--mem=4",)}, "--sbatch-option: got '--mem=4'; write KEY=VALUE"),
        ({"options": ("dependency=afterok:1",)}, "the job sets --dependency itself"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(InputError, match=message):
        SlurmSettings(**settings)


PLAN = Plan(
    [
        StageCost("labels", 7000.0, divided=1000.0),
        StageCost("student", 600.0),
        StageCost("other", None),
    ],
    jobs=1,
    devices=8,
    machine="2 CPU cores",
    nodes=2,
)


def test_what_a_stage_asks_for(tmp_path):
    """Labels share GPUs and nodes as the plan counted; a training has its own; all else is one process."""

    def of(settings: SlurmSettings, *command: str, plan: Plan | None = None) -> Allocation:
        return Allocation.of(Stage("s", list(command), tmp_path / "s"), settings, plan)

    labels, tokenizer = verb_command("pseudo-label", "--input", "x"), verb_command("tokenizer")
    assert of(NONE, *labels) == Allocation(1, 1, 1)
    assert of(NONE, *labels, plan=PLAN) == Allocation(2, 4, 4)
    assert of(SlurmSettings(gpus=0, nodes=2), *labels, plan=PLAN) == Allocation(2, 1, 0)
    assert of(NONE, *labels, "--device", "cpu", plan=PLAN) == Allocation(2, 4, 0)
    assert of(NONE, *tokenizer, plan=PLAN) == of(NONE, *verb_command("select"), plan=PLAN) == Allocation()
    training = training_command("train_nmt", "trainer=gpu", "trainer.max_steps=3")
    assert of(NONE, *training, plan=PLAN) == Allocation(1, 1, 1, trains=True)
    wide = of(SlurmSettings(train_gpus=4, train_nodes=2), *training)
    assert wide.command(training)[-2:] == ["trainer.num_nodes=2", "trainer.devices=4"]
    assert wide.options() == ["--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4"]
    four = [*training, "trainer.devices=4"]
    assert of(NONE, *four) == of(NONE, *training, "++trainer.devices=[0,1,2,3]") == Allocation(1, 4, 4, trains=True)
    assert of(SlurmSettings(train_gpus=4, train_nodes=2), *four) == wide
    with pytest.raises(
        InputError, match="--train-gpus: got 2, and s has trainer.devices=4 in its overrides; give one"
    ):
        of(SlurmSettings(train_gpus=2), *four)
    for unknown in ("auto", "-1"):
        with pytest.raises(
            InputError, match=f"s: trainer.devices={unknown} in its overrides, and how many a node has"
        ):
            of(NONE, *training, f"trainer.devices={unknown}")
    assert of(NONE, *training_command("distill", "trainer.devices=2")) == Allocation(1, 2, 0, trains=True)
    on_cpu = training_command("distill", "trainer=gpu", "trainer.accelerator=cpu")
    assert of(SlurmSettings(train_nodes=2), *on_cpu) == Allocation(2, 1, 0, trains=True)
    with pytest.raises(InputError, match="got 1, and s trains on the CPU; add trainer=gpu to the recipe's overrides"):
        of(SlurmSettings(train_gpus=1), *training_command("distill"))


def test_time_limits_are_those_of_the_plan():
    assert minutes_of(["labels"], Allocation(2, 4, 4), PLAN, 2.0) == 34 + 10
    assert minutes_of(["labels"], Allocation(1, 4, 4), PLAN, 2.0) == 234 + 10  # not as it was planned: as on one
    assert minutes_of(["student"], Allocation(), PLAN, 1.5) == 15 + 10
    assert minutes_of(["labels", "student"], Allocation(2, 4, 4), PLAN, 1.0) == 27 + 10
    for names in (["other"], ["nobody"], ["student", "other"]):
        assert minutes_of(names, Allocation(), PLAN, 2.0) is None
    assert minutes_of(["student"], Allocation(), None, 2.0) is None


def test_options_of_the_user_win(fake, out, make):
    settings = SlurmSettings(partition="main", account="mine", options=("signal=B:TERM@600", "exclusive"))
    submit_stages([make("first")], out, settings)
    words = shlex.split(fake.submissions()[0])
    assert {"--partition=main", "--account=mine", "--exclusive"} <= set(words)
    assert words.index("--signal=B:TERM@600") > words.index("--signal=B:TERM@120")


def test_a_link_in_place_of_the_scripts_is_refused(fake, out, make, tmp_path):
    out.mkdir()
    (out / "slurm").symlink_to(tmp_path)
    with pytest.raises(InputError, match="is a link; remove it"):
        submit_stages([make("first")], out, NONE)
    assert fake.submissions() == []


@pytest.mark.parametrize(
    "content", [[], {"first": {}}, {"first": {"job": "7; rm", "label": "a", "origin": "", "needs": []}}]
)
def test_a_damaged_record_is_refused(fake, out, make, content):
    (out / "slurm").mkdir(parents=True)
    (out / "slurm" / "jobs.json").write_text(__import__("json").dumps(content))
    with pytest.raises(InputError, match="jobs.json.*remove it once no job of it is in Slurm"):
        submit_stages([make("first")], out, NONE)


def test_a_command_reaches_its_program_as_it_is(fake, out, make, tmp_path):
    odd = ["$(touch bad)", "`touch bad`", "two\nlines", "it's", "%j", "* ?"]
    stage = make("first", code=f"printf '%s|' \"$@\" > {out}/first/arguments")
    submit_stages([replace(stage, command=[*stage.command, "sh", *odd])], out, NONE)
    fake.work()
    assert (out / "first" / "arguments").read_text() == "|".join([*odd, ""])


@pytest.fixture
def command(fake, out, tiny_teacher_path, tiny_corpus, tmp_path, monkeypatch) -> list[str]:
    """A `nemo-distill run` of a plain twin, without labels, on Slurm."""
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text("student: {model: tiny_1x1, steps: 2}\nruns: {plain: {plain: true}}\nexport: int8\n")
    given = ["--teacher", str(tiny_teacher_path), "--corpus", str(tiny_corpus), "--output-dir", str(out)]
    return ["run", str(recipe), *given, "--set", "student.steps=3", "--executor", "slurm", "--gpus", "0"]


def test_text_without_translations_is_handed_over(fake, out, command, tmp_path):
    """To the stage that makes labels of it, and to the last one, which reads the recipe anew."""
    more = tmp_path / "more.de"
    more.write_text("another line\n")
    run = "runs.a={pseudo: more, overrides: [distillation=seq_level]}"
    changes = ["--set", "pseudo_labels={more: {unlabelled: true}}", run, "--unlabelled", str(more)]
    assert cli.main([*command, *changes]) == 0
    for name, key in (("pseudo-more", "input"), ("report", "unlabelled")):
        script = (out / "slurm" / f"{name}.sbatch").read_text()
        words = shlex.split(script[script.rindex("run_stage") :])
        assert str(more) in words[words.index(f"--{key}") + 1 :][:2]


def test_a_recipe_is_handed_over(fake, out, command, tmp_path, capsys):
    assert cli.main([*command, "--partition", "main"]) == 0
    said = capsys.readouterr().out
    assert "jobs have the time limit of their partition: `nemo-distill plan --save` measures" in said
    assert f"Jobs in Slurm: 3. How far they are: nemo-distill status {out}" in said
    names = [re.search("--job-name=([a-z]+)-", each)[1] for each in fake.submissions()]
    assert names == ["plain", "evaluation", "report"]
    assert all("--partition=main" in each for each in fake.submissions())
    script = (out / "slurm" / "report.sbatch").read_text()
    words = shlex.split(script[script.rindex("run_stage") :])
    args = build_parser().parse_args(words[words.index("nemo_distill.cli") + 1 :])
    assert args.finish
    assert (args.output_dir, args.set, args.executor) == (str(out), ["student.steps=3"], "local")
    recipe = tmp_path / "tiny.yaml"
    assert Path(args.recipe).read_text() == recipe.read_text()
    assert "trainer.num_nodes=1 trainer.devices=1" in (out / "slurm" / "plain.sbatch").read_text()
    recipe.write_text(f"# a remark\n{recipe.read_text()}")
    assert cli.main(command) == 0
    assert len(fake.submissions()) == 3
    recipe.write_text(recipe.read_text().replace("int8", "float16"))
    assert cli.main(command) == 0
    assert [re.search("--job-name=([a-z]+)-", each)[1] for each in fake.submissions()[3:]] == ["report"]
    assert "float16" in Path(args.recipe).read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--executor", "local", "--partition", "main"], "--partition is for --executor slurm; add that"),
        (["--jobs", "2"], "--jobs: got 2; Slurm runs side by side what it has room for"),
        (["--finish"], "--finish: is what the last job of Slurm does itself; leave it or --executor slurm out"),
        (["--partition", "nowhere"], "sbatch says: error: invalid partition specified: nowhere"),
    ],
)
def test_options_that_do_not_fit(fake, command, capsys, options, message):
    given = command[: command.index("--gpus")] if options[0] == "--executor" else command
    assert cli.main([*given, *options]) == 2
    assert message in capsys.readouterr().err
    assert fake.submissions() == []
