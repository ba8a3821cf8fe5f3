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
"""Nothing that lies in the current directory runs."""

import os
import subprocess
import sys
from pathlib import Path

from nemo_distill.data.corpora import wheel


def test_a_file_pip_in_the_current_directory_is_not_run(tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "pip.py").write_text(f"open({str(marker)!r}, 'w')")
    command = [sys.executable, "-c", "import sys; from nemo_distill import cli; sys.exit(cli.main(sys.argv[1:]))"]
    command += ["corpus", "ui-strings", "--source", "de", "--target", "en", "--output-dir", "out"]
    command += ["--cache-dir", "wheels"]
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}
    environment = {**os.environ, **nowhere, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "pip could not fetch" in done.stderr
    assert not marker.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["pip.py"]


def test_pip_is_not_found_in_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "pip.py").touch()
    monkeypatch.chdir(tmp_path)
    for here in ("", str(tmp_path)):
        monkeypatch.setattr(sys, "path", [here])
        assert not wheel._has_pip()
    monkeypatch.undo()
    assert wheel._has_pip()
