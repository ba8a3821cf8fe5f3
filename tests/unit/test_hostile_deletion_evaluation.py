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
"""What evaluate, report, speed and init replace or remove proves to be of an earlier run."""

import json
import os
import shutil
from pathlib import Path

import pytest
from damage import tree
from made_up_results import an_evaluation
from short_text import short_test_set

from nemo_distill import cli
from nemo_distill.errors import InputError
from nemo_distill.evaluation import report
from nemo_distill.evaluation.report import write_report
from nemo_distill.evaluation.scoring import evaluate


@pytest.fixture(scope="module")
def text(tiny_corpus, tmp_path_factory) -> str:
    return short_test_set(tiny_corpus, tmp_path_factory.mktemp("text"), 3)


@pytest.fixture(scope="module")
def evaluated(tiny_teacher_path, text, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("evaluation") / "out"
    evaluate([tiny_teacher_path], [text], directory, beam_size=1, progress=False)
    return directory


@pytest.fixture
def results(tmp_path) -> str:
    (tmp_path / "results").mkdir()
    an_evaluation().save(tmp_path / "results")
    return str(tmp_path / "results")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["report.md", "report.html", "report.json", "quality_vs_size.png"])
def test_a_report_replaces_no_file_of_another(name, overwrite, results, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(InputError, match=name):
        write_report([results], out, overwrite=overwrite)
    assert tree(out) == {str(out / name): b"mine"}


def test_a_report_removes_nothing_that_its_manifest_was_made_to_list(results, tmp_path):
    """A manifest that lists other files, with the right hashes; and one of its own files that has changed."""
    import hashlib

    out = tmp_path / "out"
    write_report([results], out)
    (out / "results.json").write_text("mine")
    manifest = json.loads((out / "report.manifest.json").read_text())
    changed = {**manifest["files"], "results.json": {"sha256": hashlib.sha256(b"mine").hexdigest()}}
    (out / "report.manifest.json").write_text(json.dumps({**manifest, "files": changed}))
    write_report([results], out, overwrite=True)
    (out / "quality_vs_size.png").write_bytes(b"mine")
    write_report([results], out, formats=["json"], overwrite=True)
    assert (out / "results.json").read_text() == (out / "quality_vs_size.png").read_text() == "mine"


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_speed_replaces_no_file_of_another(options, tiny_teacher_path, text, tmp_path, capsys):
    (tmp_path / "speed.json").write_text("mine")
    command = ["speed", "--model", str(tiny_teacher_path), "--test", text, "--output-dir", str(tmp_path)]
    assert cli.main([*command, *options]) == 2
    assert "speed.json" in capsys.readouterr().err
    assert tree(tmp_path) == {str(tmp_path / "speed.json"): b"mine"}


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
@pytest.mark.parametrize("kind", ["file", "link", "dangling", "directory", "trained"])
def test_init_replaces_no_file_of_another(kind, options, tiny_teacher_path, tmp_path, capsys):
    student, output = tmp_path / "student.yaml", tmp_path / "out/student.nemo"
    student.write_text("{}")
    output.parent.mkdir()
    command = ["init", "--teacher", str(tiny_teacher_path), "--student", str(student), "--output", str(output)]
    if kind == "file":
        output.write_text("mine")
    elif kind == "directory":
        output.mkdir()
    elif kind == "trained":  # in the place of what init wrote
        assert cli.main(command) == 0
        output.write_text("mine")
    else:
        (tmp_path / "mine").write_text("mine") if kind == "link" else None
        output.symlink_to(tmp_path / "mine")
    before = tree(tmp_path)
    assert cli.main([*command, *options]) == 2
    message = capsys.readouterr().err
    said = {"trained": "student.nemo' has changed", "directory": "student.nemo' is a directory; give another name"}
    assert said.get(kind, "does not prove to be of") in message
    assert tree(tmp_path) == before


@pytest.fixture
def copy(evaluated, tmp_path) -> Path:
    return Path(shutil.copytree(evaluated, tmp_path / "out"))


def a_foreign_record(out: Path) -> str:
    (out / "scores/notes.json").write_text('{"mine": true}')
    return "notes.json' is damaged"


def a_foreign_result(out: Path) -> str:
    (out / "results.json").write_text('{"mine": true}')
    return "it stays there: move it away"


def changed_hypotheses(out: Path) -> str:
    """Of a pair that is not written again."""
    for folder, name in (("scores", "teacher.test.json"), ("hypotheses", "teacher.test.txt")):
        content = (out / folder / name).read_text("utf-8").replace('"teacher"', '"old"')
        content = content.replace("hypotheses/teacher", "hypotheses/old")
        (out / folder / name.replace("teacher", "old")).write_text(content, "utf-8")
    (out / "hypotheses/old.test.txt").write_text("mine")
    return "old.test.txt' has changed since it was written, so it stays"


def a_linked_directory(out: Path) -> str:
    shutil.move(out / "scores", out.parent / "elsewhere")
    (out / "scores").symlink_to(out.parent / "elsewhere")
    return "scores' is no directory, or a link"


def a_linked_record(out: Path) -> str:
    shutil.move(out / "scores/teacher.test.json", out.parent / "elsewhere.json")
    (out / "scores/teacher.test.json").symlink_to(out.parent / "elsewhere.json")
    return "teacher.test.json' is no regular file, or a link"


def a_directory_of_hypotheses(out: Path) -> str:
    (out / "hypotheses/teacher.test.txt").unlink()
    (out / "hypotheses/teacher.test.txt").mkdir()
    return "teacher.test.txt' is no regular file, or a link"


KINDS = [
    a_foreign_record,
    a_foreign_result,
    changed_hypotheses,
    a_linked_directory,
    a_linked_record,
    a_directory_of_hypotheses,
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_removes_nothing_of_another(kind, copy, tiny_teacher_path, text, tmp_path):
    message = kind(copy)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=message):
        evaluate([tiny_teacher_path], [text], copy, beam_size=1, overwrite=True, progress=False)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_hypotheses_that_no_record_lists_stay(overwrite, tiny_teacher_path, text, tmp_path):
    place = tmp_path / "hypotheses/teacher.test.txt"
    place.parent.mkdir()
    place.write_text("mine")
    with pytest.raises(InputError, match="is there already, and not of an evaluation"):
        evaluate([tiny_teacher_path], [text], tmp_path, beam_size=1, overwrite=overwrite, progress=False)
    assert place.read_text() == "mine"


def test_what_an_evaluation_overwrites(copy, tiny_teacher_path, text):
    """Its own files go, others stay, and what a killed process left goes too."""
    (copy / "notes.txt").write_text("mine")
    (copy / "hypotheses/notes.txt").write_text("mine")
    (copy / "scores/.a.nemo_distill-0123abcd.tmp").write_text("half")
    evaluate([tiny_teacher_path], [text], copy, names=["new"], beam_size=1, overwrite=True, progress=False)
    assert sorted(os.listdir(copy / "hypotheses")) == ["new.test.txt", "notes.txt"]
    assert os.listdir(copy / "scores") == ["new.test.json"]
    assert (copy / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("place", ["hypotheses/teacher.test.txt", "hypotheses/older.txt", "scores/a.json"])
@pytest.mark.parametrize("side", [1, 2])
def test_an_evaluation_replaces_no_test_set(place, side, copy, tiny_teacher_path, text, tmp_path):
    parts = text.split(":")
    if not (copy / place).exists():
        shutil.copy(parts[side], copy / place)
    (tmp_path / "link").symlink_to(copy / place)
    before = tree(tmp_path)
    for given in (copy / place, tmp_path / "link"):
        parts[side] = str(given)
        with pytest.raises(InputError, match=f"{given.name}' is an input, and would be replaced by the output"):
            evaluate([tiny_teacher_path], [":".join(parts)], copy, overwrite=True, progress=False)
    assert tree(tmp_path) == before


def inputs(tmp_path: Path, teacher: Path, text: str) -> dict[str, list[str]]:
    """Commands whose output is an input, with an earlier run of theirs there."""
    out, results, layout = str(tmp_path), str(tmp_path / "results.json"), str(tmp_path / "report.json")
    student, archive = str(tmp_path / "student"), str(tmp_path / "a.nemo")
    measure = ["speed", "--model", str(teacher), "--engines", "float32", "--beam-size", "1", "--output-dir", out]
    return {
        "report, layout": ["report", "--results", results, "--layout", layout, "--output-dir", out],
        "report, results": ["report", "--results", layout, "--output-dir", out],
        "speed": [*measure, "--test", f"test:{text.split(':')[1]}:{tmp_path}/speed.md"],
        "init, teacher": ["init", "--teacher", archive, "--student", f"{student}.yaml", "--output", archive],
        "init, student": ["init", "--teacher", str(teacher), "--student", student, "--output", student],
        "init, record": ["init", "--teacher", str(teacher), "--student", f"{student}.json", "--output", student],
    }


@pytest.mark.parametrize(
    "case",
    ["report, layout", "report, results", "speed", *(f"init, {each}" for each in ("teacher", "student", "record"))],
)
def test_an_output_that_is_an_input(case, tiny_teacher_path, text, tmp_path, capsys):
    an_evaluation().save(tmp_path)
    shutil.copy(tmp_path / "results.json", tmp_path / "report.json")
    if case == "report, layout":
        (tmp_path / "report.json").write_text("{}")
    shutil.copy(text.split(":")[2], tmp_path / "speed.md")
    shutil.copy(tiny_teacher_path, tmp_path / "a.nemo")
    for name in ("student", "student.yaml", "student.json"):
        (tmp_path / name).write_text("{}")
    before = tree(tmp_path)
    for options in ([], ["--overwrite"]):
        assert cli.main([*inputs(tmp_path, tiny_teacher_path, text)[case], *options]) == 2
        assert "is an input, and would be replaced by the output" in capsys.readouterr().err
    assert tree(tmp_path) == before


def test_a_report_that_fails_leaves_nothing(results, tmp_path, monkeypatch):
    def fail(_):
        raise OSError("no fonts")

    monkeypatch.setattr(report, "plot_quality_against_size", fail)
    with pytest.raises(OSError, match="no fonts"):
        write_report([results], tmp_path / "out")
    assert not (tmp_path / "out").exists()
