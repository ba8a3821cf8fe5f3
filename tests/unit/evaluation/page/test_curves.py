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
import re
from dataclasses import asdict
from pathlib import Path

import made_up_results
import pytest

from nemo_distill.errors import InputError
from nemo_distill.evaluation.page.curves import read_curves
from nemo_distill.evaluation.page.figures import curves_svg
from nemo_distill.evaluation.report import write_report
from nemo_distill.evaluation.results import ModelResult
from nemo_distill.support.files import write_json_atomic
from nemo_distill.support.finished_run import FINISHED, FinishedRun
from nemo_distill.support.validations import VALIDATIONS, Validation, read_validations, write_validations


def a_run(directory: Path, name: str, validations: list[Validation]) -> ModelResult:
    """Leave what a run leaves, all but its archive."""
    (directory / name / "log").mkdir(parents=True)
    write_json_atomic(directory / name / FINISHED, asdict(FinishedRun(f"{name}.nemo", f"hash of {name}")))
    write_validations(directory / name, validations)
    return ModelResult(name, f"{directory}/{name}/{name}.nemo", f"hash of {name}", 10, 10, 1.0)


def test_curves_are_those_of_the_archives(tmp_path):
    noted = [Validation(10, 60.0, 5.0, 3.0), Validation(20, 120.0, None, 2.0), Validation(30, 180.0, 9.0, 2.0)]
    models = [a_run(tmp_path, name, noted) for name in ("s@seed1", "s@seed2", "other", "damaged")]
    models[2].archive_sha256 = "of another run that wrote there"
    (tmp_path / "damaged" / VALIDATIONS).write_text('{"validations": [{"step": -1, "seconds": 2.0}]}')
    models.append(ModelResult("gone", "gone/gone.nemo", "hash", 10, 10, 1.0))
    rows = {"s": ["s@seed1", "s@seed2"], "other": ["other"], "damaged": ["damaged"], "gone": ["gone"]}
    curves, missing = read_curves(rows, models)
    assert curves == {"s": {label: [noted[0], noted[2]] for label in ("s@seed1", "s@seed2")}}
    assert len(missing) == 1
    assert re.match("the learning curve of damaged: '.*' is damaged", missing[0])
    with pytest.raises(InputError, match=r"validations\[0\] is no validation"):
        read_validations(tmp_path / "damaged")


def ticks(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_time_has_what_was_spent_before():
    curves = {
        "student": {"student": [Validation(100, 60.0, 5.0), Validation(200, 600.0, 9.0)]},
        "plain": {"plain": [Validation(100, 60.0, 4.0)]},
    }
    assert {"Steps", "200"} <= set(ticks(curves_svg(curves, None, "a")))
    assert "Wall-clock time, minutes" in ticks(curves_svg(curves, {}, "b"))
    assert "Wall-clock time, hours" in ticks(curves_svg(curves, {"student": 7200.0}, "c"))
    assert curves_svg(curves, {}, "b") == curves_svg(curves, {}, "b") != curves_svg(curves, {"student": 60.0}, "b")


def test_the_page_has_curves_where_runs_noted_them(tmp_path):
    result = made_up_results.an_evaluation()
    result.models[1] = a_run(tmp_path, "student", [Validation(10, 60.0, 5.0), Validation(20, 120.0, 6.0)])
    result.models[1].parameters, result.models[1].archive_bytes = 1000, 4000
    result.save(tmp_path)
    write_report([tmp_path], tmp_path / "out", formats=["page"], spent={"student": 90.0})
    text = (tmp_path / "out/report.html").read_text("utf-8")
    assert '<section id="curves">' in text
    assert "Time to the twin" not in text  # no row has one
    assert "Labels and cache are counted in: student 90 s." in text
    assert "No record of BLEU that can be read lies beside the archives of teacher." in text
    write_report([tmp_path], tmp_path / "steps", formats=["page"])
    assert "counted in" not in (tmp_path / "steps/report.html").read_text("utf-8")


def test_the_page_says_when_a_student_was_as_good_as_its_twin(tmp_path):
    result = made_up_results.an_evaluation(("teacher", "plain", "student"), ("test",))
    noted = {"plain": [Validation(10, 60.0, 5.0), Validation(20, 120.0, 7.0), Validation(30, 180.0, 6.0)]}
    noted["student"] = [Validation(10, 75.0, 7.5), Validation(20, 150.0, 8.0)]
    for place, (name, validations) in enumerate(noted.items(), 1):
        run = a_run(tmp_path, name, validations)
        result.models[place].archive, result.models[place].archive_sha256 = run.archive, run.archive_sha256
    result.save(tmp_path)
    known = {"formats": ["page"], "teacher": "teacher", "plain": "plain"}
    write_report([tmp_path], tmp_path / "out", **known, spent={"student": 90.0}, shares={"student": 30.0})
    section = (tmp_path / "out/report.html").read_text("utf-8").partition('<section id="curves">')[2]
    cells = re.findall("<td><bdi>(.*?)</bdi></td>", section.partition("</section>")[0])
    assert cells == ["student", "plain", "7.0", "2.00", "1.25", "0.62", "2.75", "1.38", "1.75", "0.88"]
