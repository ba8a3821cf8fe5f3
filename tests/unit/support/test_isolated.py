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

import subprocess
import sys

import pytest

from nemo_distill.support import isolated

MODULE = "import sys, json, colorsys; print(json.dumps([sys.argv[1:], colorsys.__file__, __name__]))"


@pytest.mark.parametrize("by_option", [True, False])
def test_what_lies_in_the_current_directory_is_not_imported(tmp_path, monkeypatch, by_option):
    if by_option and sys.version_info < (3, 11):
        pytest.skip("Python 3.10 has no -P")
    if not by_option:
        monkeypatch.setattr(isolated.sys, "version_info", (3, 10))
    here, packages = tmp_path / "here", tmp_path / "packages"
    here.mkdir()
    packages.mkdir()
    (packages / "program.py").write_text(MODULE)
    for name in ("colorsys", "runpy", "json", "program"):
        (here / f"{name}.py").write_text(f"open('{name}.ran', 'w')")
    command = isolated.module_command("program", "--option", "value")
    monkeypatch.setenv("PYTHONPATH", str(packages))
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    assert not list(here.glob("*.ran"))
    assert '[["--option", "value"], ' in done.stdout
    assert str(here) not in done.stdout
    assert '"__main__"]' in done.stdout
