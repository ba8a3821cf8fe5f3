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
import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(code: str, where: Path, **environment: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, "-c", code], cwd=where, env=environment, stdout=-1, text=True, timeout=60)
    assert done.returncode == 0
    return done.stdout.strip()


SIZE = "import nemo_distill, os, matplotlib; print(matplotlib.rcParams['font.size'], os.getcwd())"


@pytest.mark.parametrize("own", ["own.rc", "{}/own.rc"])
def test_the_user_has_the_word_and_not_the_directory(own, tmp_path):
    (tmp_path / "own.rc").write_text("font.size: 7")
    (tmp_path / "matplotlibrc").write_text("font.size: 30")
    assert run(SIZE, tmp_path, MATPLOTLIBRC=own.replace("{}", str(tmp_path))) == f"7.0 {tmp_path}"


def test_nothing_is_imported_where_there_is_no_such_file(tmp_path):
    assert run("import nemo_distill, sys; print('matplotlib' in sys.modules)", tmp_path) == "False"


@pytest.mark.parametrize("script", ["distill.py", "train_nmt.py"])
def test_the_examples_begin_with_it(script):
    """Before NeMo, which imports matplotlib."""
    body = ast.parse((ROOT / "examples" / script).read_text("utf-8")).body
    first = next(node for node in body if isinstance(node, ast.Import | ast.ImportFrom))
    assert ast.unparse(first).startswith("from nemo_distill.")
