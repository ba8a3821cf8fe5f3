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
"""What a job will cost: sums by hand."""

import dataclasses
import json

import pytest
from made_up_results import finish

from nemo_distill.errors import InputError
from nemo_distill.jobs import costs
from nemo_distill.jobs.costs import Plan, Rate, Saving, StageCost, TrainingRate, plan_from, total_seconds
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.noted import Stage, stage_keys
from nemo_distill.jobs.progress import Progress, StageProgress
from nemo_distill.jobs.recipe import read_recipe
from nemo_distill.support.finished_run import FINISHED, FinishedRun

STAGES = [
    StageCost("tokenizer", 10.0, memory=2e9),
    StageCost("teacher", 100.0, disk=5e6, memory=3e9, needs=("tokenizer",)),
    StageCost("pseudo-beam", 80.0, divided=30.0, disk=1e6, needs=("teacher",)),
    StageCost("plain", 50.0, needs=("tokenizer",)),
    StageCost("student", 60.0, needs=("teacher",)),
    StageCost("hybrid", 70.0, needs=("pseudo-beam",)),
    StageCost("evaluation", 20.0, needs=("plain", "student", "hybrid")),
]


def test_a_rate():
    assert Rate(7.44, 0.01).seconds(20000) == pytest.approx(207.44)
    assert Rate(7.44, 0.01).seconds(20000, 4) == pytest.approx(57.44)


def test_a_training():
    """Each validation writes checkpoints, which of a large model take longer than its scores."""
    rate = TrainingRate(8.0, 0.1, 0.005, 4.0, 2.0)
    assert rate.seconds(1200, 3, 1000) == pytest.approx(8 + 120 + 15 + 12 + 2)


def test_one_after_the_other_is_the_sum():
    assert total_seconds(STAGES, 1) == 10 + 100 + 80 + 50 + 60 + 70 + 20


def test_side_by_side_ends_with_the_longest_way():
    """Two slots: plain runs beside the teacher; then labels beside the student; then hybrid, and the scores."""
    assert total_seconds(STAGES, 2) == 10 + 100 + 80 + 70 + 20


def test_what_is_shared_takes_all_devices():
    """Plain beside the teacher, 30 s of labels on both, then student and hybrid, and the scores."""
    assert total_seconds(STAGES, 2, scaled=True) == 10 + 100 + 30 + 70 + 20


def test_what_is_done_costs_nothing():
    done = [dataclasses.replace(stage, done=stage.name in ("tokenizer", "teacher")) for stage in STAGES]
    assert total_seconds(done, 1) == 80 + 50 + 60 + 70 + 20
    assert total_seconds([dataclasses.replace(stage, done=True) for stage in STAGES], 1) == 0
    assert costs.device_hours(done, 2) == pytest.approx((2 * 30 + 50 + 60 + 70 + 20) / 3600)


def test_stages_that_need_each_other_are_refused():
    with pytest.raises(ValueError, match="need each other"):
        total_seconds([StageCost("a", 1.0, needs=("b",)), StageCost("b", 1.0, needs=("a",))], 1)


def test_the_table():
    stages = [*STAGES, StageCost("late", None, how="not measured"), StageCost("corpus", 9.0, done=True)]
    plan = Plan(stages, 1, 2, "2 CPU cores", [Saving("int8 weights", 40.0), Saving("bf16", -5.0)], price=3.0)
    text = costs.table_of(plan)
    lines = text.splitlines()
    assert lines[0].split() == ["stage", "time", "on", "2", "disk", "memory"]
    assert lines[2].split() == ["teacher", "1", "min", "40", "s", "1", "min", "40", "s", "5.0", "MB", "3.0", "GB"]
    assert lines[8].split() == ["late", "?", "?", "not", "measured"]
    assert lines[9].endswith("done already")
    assert "not done: more than 6 min 30 s on this machine (2 CPU cores)" in text
    assert "6.0 MB on disk" in text
    assert "Assumes that each is as fast as this one" in text
    hours = (10 + 100 + 2 * 30 + 50 + 60 + 70 + 20) / 3600
    assert f"{hours:.2f} hours of a device at 3 EUR: {3 * hours:.2f} EUR" in text
    assert "Longest: teacher, 1 min 40 s." in text
    assert "int8 weights saves 40 s" in text
    assert "bf16 costs 5 s" in text


def test_predicted_and_real():
    real = {
        "teacher": StageProgress("done", 0.0, 110.0),
        "pseudo-beam": StageProgress("done", 0.0, 160.0),
        "plain": StageProgress("failed", 0.0, 3.0),
        "tokenizer": StageProgress("done", 0.0, 2.0),
    }
    text = costs.comparison(Plan(STAGES, 1, 1, "here"), real)
    rows = [line.split() for line in text.splitlines()]
    assert rows[1] == ["tokenizer", "10", "s", "2", "s", "5.00"]
    assert rows[2][-1] == "0.91"
    assert rows[3][-1] == "0.50"
    assert rows[4] == ["plain", "50", "s"]
    assert text.endswith("1 of 2 stages over a minute were predicted within 25 %.")


def test_a_limit_is_said_and_held_against_nothing():
    stages = [dataclasses.replace(STAGES[1], at_most=True), STAGES[3]]
    plan = Plan(stages, 1, 1, "here", price=1.0)
    text = costs.table_of(plan)
    assert text.splitlines()[1].endswith("at most: patience may end it")
    assert "not done: at most 2 min 30 s" in text
    assert "At most 0.04 hours" in text
    real = {"teacher": StageProgress("done", 0.0, 20.0), "plain": StageProgress("done", 0.0, 61.0)}
    text = costs.comparison(plan, real)
    assert text.splitlines()[1].split() == ["teacher", "at", "most", "1", "min", "40", "s", "20", "s", "5.00"]
    assert "1 of 1 stages over a minute were predicted within 25 %. Left out: 1 whose prediction" in text
    real["teacher"] = StageProgress("done", 0.0, 200.0)
    text = costs.comparison(plan, real, ["teacher"])  # it made all its steps
    assert text.splitlines()[1].split() == ["teacher", "1", "min", "40", "s", "3", "min", "20", "s", "0.50"]
    assert text.endswith("1 of 2 stages over a minute were predicted within 25 %.")


def test_a_plan_is_read_back_and_a_damaged_one_refused():
    plan = Plan(STAGES, 2, 4, "2 CPU cores", [Saving("bf16", 3.0)], 2.5)
    plain = json.loads(json.dumps(dataclasses.asdict(plan)))
    read = plan_from(plain, "plan.json")
    assert [stage.seconds for stage in read.stages] == [stage.seconds for stage in STAGES]
    assert read.savings == plan.savings
    with pytest.raises(InputError, match=r"plan.json' is damaged.*nemo-distill plan --save"):
        plan_from({**plain, "jobs": 0}, "plan.json")
    with pytest.raises(InputError, match="damaged"):
        plan_from({**plain, "stages": [{"name": 3}]}, "plan.json")


def test_run_shows_the_plan_that_was_kept(tmp_path, capsys):
    from nemo_distill.cli.jobs import _show_comparison

    Progress({"teacher": StageProgress("done", 0.0, 100.0)}).write(tmp_path)
    _show_comparison(tmp_path, [])
    assert capsys.readouterr().out == ""
    plan = Plan([StageCost("teacher", 90.0, at_most=True)], 1, 1, "here")
    (tmp_path / costs.PLAN_NAME).write_text(json.dumps(dataclasses.asdict(plan)))
    for finished, said in ((None, "0 of 0"), ({"stopped_after": 5}, "0 of 0"), ({}, "1 of 1")):
        if finished is not None:
            (tmp_path / "teacher/log").mkdir(parents=True, exist_ok=True)
            record = FinishedRun("teacher.nemo", "a" * 64, steps=9, **finished)
            (tmp_path / "teacher" / FINISHED).write_text(json.dumps(dataclasses.asdict(record)))
        _show_comparison(tmp_path, [])
        assert f"{said} stages over a minute were predicted within 25 %." in capsys.readouterr().out
    (tmp_path / "teacher" / FINISHED).write_text("damaged")  # no reason to end a job with an error
    _show_comparison(tmp_path, [])
    assert "0 of 0 stages" in capsys.readouterr().out


def test_run_begins_with_what_the_plan_says(tmp_path, capsys):
    """It said nothing of how long it would take."""
    from nemo_distill.cli.jobs import _forecast, _show_comparison

    stages = [Stage(each.name, ["run", each.name], tmp_path / each.name, each.needs) for each in STAGES]
    without = [stage for stage in stages if stage.name not in ("hybrid", "evaluation")]
    graph, exports = (
        Graph(read_recipe(None, {"corpus": "ui-strings"}, ["student={}", f"export={kind}"]), tmp_path)
        for kind in ("null", "int8")
    )
    assert "`nemo-distill plan`" in _forecast(graph, stages, 1)
    plan = Plan(STAGES, 2, 1, "here")
    (tmp_path / costs.PLAN_NAME).write_text(json.dumps(dataclasses.asdict(plan)))
    finish(stages[:1], tmp_path)
    said = _forecast(exports, without, 2)  # the plan has the export, too
    left = "by the plan that was kept 4 min 30 s for the 6 that are not done"
    assert said == f"5 stages, 2 side by side, then an export; {left}"
    assert _forecast(graph, stages, 2) == f"7 stages, 2 side by side; {left}"
    plan.keys = stage_keys(stages, tmp_path)
    (tmp_path / costs.PLAN_NAME).write_text(json.dumps(dataclasses.asdict(plan)))
    assert _forecast(graph, stages, 2) == f"7 stages, 2 side by side; {left}"
    stages[0] = Stage("tokenizer", ["run", "otherwise"], tmp_path / "tokenizer")
    assert "the plan that was kept is of other settings" in _forecast(graph, stages, 2)
    _show_comparison(tmp_path, stages)
    assert capsys.readouterr().out == ""
    plan.keys = stage_keys(stages, tmp_path)
    (tmp_path / costs.PLAN_NAME).write_text(json.dumps(dataclasses.asdict(plan)))
    assert _forecast(graph, stages, 2).endswith("4 min 40 s for the 7 that are not done")  # the tokenizer was another
