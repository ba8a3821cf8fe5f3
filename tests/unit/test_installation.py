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
"""The first steps of `make install` with the package index, from the pip that a Python brings."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.network
@pytest.mark.parametrize("pip", ["21.2.3", "22.0.2", "23.0.1"])
def test_old_pip_is_replaced_and_a_missing_source_package_named(tmp_path, pip):
    for name in ("Makefile", "setup.py", "requirements"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    python = tmp_path / ".venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / ".venv"], check=True)
    subprocess.run([python, "-m", "pip", "install", "-qq", f"pip=={pip}"], check=True)
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "VENV", "NEMO")}
    done = subprocess.run(
        ["make", "--no-print-directory", "install", f"PYTHON={sys.executable}"],
        cwd=tmp_path,
        env=environment | {"PIP_ONLY_BINARY": ":all:"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert "ERROR: No matching distribution found for antlr4-python3-runtime==4.9.3" in said
    assert any("they are source packages, so let pip take such" in line for line in said)
    assert "Traceback" not in done.stderr
    version = subprocess.run([python, "-m", "pip", "--version"], check=True, capture_output=True, text=True).stdout
    assert version.startswith("pip 25.3 ")
