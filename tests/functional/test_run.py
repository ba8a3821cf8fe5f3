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
