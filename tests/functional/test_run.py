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
"""`nemo-distill run`: one job from end to end, each of its stages a process."""

import json
from pathlib import Path

import pytest

from nemo_distill import cli
from nemo_distill.support.files import sha256

ROOT = Path(__file__).parents[2]
TINY = ["trainer.enable_progress_bar=false", "exp_manager.create_tensorboard_logger=false"]


@pytest.fixture
def tiny_recipe(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    size = ["model.encoder.hidden_size=16", "model.encoder.inner_size=32"]
    content = {
        "student": {"model": "tiny_1x1", "steps": 2, "overrides": size},
        "overrides": TINY,
        "validations": 1,
        "runs": {"plain": {"plain": True}},
        "export": "int8",
    }
    path.write_text(json.dumps(content))
    return path


def test_a_job_from_end_to_end(tiny_recipe, tiny_teacher_path, tiny_corpus, tmp_path, capfd, monkeypatch):
    """With a teacher of Moses text: scores, table, samples, an export; a second call does nothing."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    out = tmp_path / "out"
    command = ["run", str(tiny_recipe), "--corpus", str(tiny_corpus), "--teacher", str(tiny_teacher_path)]
    command += ["--output-dir", str(out)]
    assert cli.main(command) == 0
    said = capfd.readouterr().out
    assert "finished before" not in said  # of what this call has made, when it goes on with the export
    assert "| teacher |" in said
    assert "Translations of 5 of the" in said
    assert f"To deploy: {out}/export, made of plain" in said
    assert (out / "export" / "export.json").is_file()
    archive = sha256(out / "plain" / "plain.nemo")
    assert cli.main(command) == 0
    assert capfd.readouterr().out.count("finished before") == 4  # each once
    assert sha256(out / "plain" / "plain.nemo") == archive
    assert cli.main(["status", str(out)]) == 0
    assert "4 of 4 stages done, 0 failed; the job is finished" in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "pair", "more"),
    [
        ("many_to_one", ("fr", "en"), []),
        ("one_to_many", ("en", "de"), []),
        ("unnamed", ("de", "en"), ["teacher_source=de", "teacher_target=en"]),
    ],
)
def test_a_teacher_of_several_languages_or_none(kind, pair, more, tiny_recipe, tmp_path, monkeypatch, request):
    """Labels, a cache, students of each kind and their start, all of the corpus's pair of languages."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    content = json.loads(tiny_recipe.read_text())
    content |= {"source": pair[0], "target": pair[1], "pseudo_labels": {"beam": {}}, "caches": {"gold": {}}}
    content["runs"] |= {
        "hinton": {"overrides": ["distillation=hinton"]},
        "recommended": {"cache": "gold", "start": "every_nth", "overrides": ["distillation=recommended"]},
        "hybrid": {"pseudo": "beam", "overrides": ["distillation=hybrid"]},
    }
    if kind == "unnamed":  # its archive says Moses, and it was trained on raw text: so are its labels
        del content["runs"]["hybrid"]
    tiny_recipe.write_text(json.dumps(content))
    if kind == "unnamed":
        teacher, corpus = request.getfixturevalue("unnamed_teacher_path"), request.getfixturevalue("tiny_corpus")
    else:
        teacher = request.getfixturevalue("multilingual_teacher_paths")[kind]
        corpus = request.getfixturevalue("multilingual_corpus")
    command = ["run", str(tiny_recipe), "--corpus", str(corpus), "--teacher", str(teacher)]
    command += ["--output-dir", str(tmp_path / "out"), *(["--set", *more] if more else [])]
    assert cli.main(command) == 0
    scores = json.loads((tmp_path / "out/evaluation/results.json").read_text())["scores"]
    bleu = {score["model"]: score["bleu"] for score in scores}
    assert set(bleu) == {"teacher", *content["runs"]}
    assert bleu["teacher"] > bleu["plain"]  # of two steps
    assert (tmp_path / "out/export/export.json").is_file()
