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
"""A student's archive is NeMo's own: it opens where this library is not installed, and translates alike."""

import json
import subprocess
import sys

import torch

from nemo_distill import DistilledMTEncDecModel

# Run in a process of its own; any import of this library fails there.
WITHOUT_THE_LIBRARY = """
import importlib.abc, json, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "nemo_distill":
            raise ModuleNotFoundError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
try:
    import nemo_distill
except ModuleNotFoundError:
    pass
else:
    sys.exit("the library is there after all")
from nemo.collections.nlp.models import MTEncDecModel
model = MTEncDecModel.restore_from(sys.argv[1])
model.eval()
answer = {"class": type(model).__name__, "texts": [model.translate([text])[0] for text in json.loads(sys.argv[2])]}
open(sys.argv[3], "w").write(json.dumps(answer))
assert "nemo_distill" not in sys.modules
"""


def test_opens_and_translates_without_the_library(
    student_config, tiny_trainer, tiny_sources, tiny_tokenizer, tmp_path
):
    torch.manual_seed(1)
    trainer = tiny_trainer(60, limit_val_batches=0)
    # Greedy, since with a beam the student's search ranks otherwise than NeMo's.
    student = DistilledMTEncDecModel(student_config(beam_size=1, **{"optim.lr": 0.01}), trainer=trainer)
    trainer.fit(student)
    # The tokenizer of the archive is its own: the file it was trained with is out of reach.
    archive = tmp_path / "student.nemo"
    student.save_to(str(archive))
    student.eval()
    expected = [student.translate([text])[0] for text in tiny_sources[:4]]
    assert len(set(expected)) > 1
    hidden = tiny_tokenizer.rename(tiny_tokenizer.with_suffix(".hidden"))
    try:
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_THE_LIBRARY, archive, json.dumps(tiny_sources[:4]), tmp_path / "answer"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=300,
        )
    finally:
        hidden.rename(tiny_tokenizer)
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads((tmp_path / "answer").read_text())
    assert answer == {"class": "MTEncDecModel", "texts": expected}
