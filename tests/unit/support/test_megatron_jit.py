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
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nemo_distill.support.compat import NEMO_2
from nemo_distill.support.megatron_jit import MODULE, compile_when_called

ROOT = Path(__file__).parents[3]
REAL = """
import sys
import nemo_distill
from nemo.collections.nlp.models import MTEncDecModel
from megatron.core.fusions.fused_bias_gelu import bias_gelu
print("torch._inductor.config" in sys.modules, sys.modules["megatron.core.jit"].jit_fuser.__name__)
"""


def run(code: str, path: Path = ROOT) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-2:]


@pytest.mark.slow
def test_nemo_is_imported_without_the_compiler():
    """What NeMo 2 imports besides brings it."""
    found, name = run(REAL)
    assert name == "compile_when_called"
    assert found == "False" or NEMO_2


@pytest.mark.parametrize(
    ("fuser", "found"), [("torch.compile", "compile_when_called"), ("torch.jit.script", "script")]
)
def test_what_megatron_compiles_with_is_replaced(fuser, found, tmp_path):
    """Of a package of this form, which is imported sooner; of an older one nothing is."""
    package = tmp_path / "megatron" / "core"
    package.mkdir(parents=True)
    for directory in (package.parent, package):
        (directory / "__init__.py").touch()
    (package / "jit.py").write_text(f"import torch\n\njit_fuser = {fuser}\n")
    code = "import sys, nemo_distill; from megatron.core.jit import jit_fuser, torch; "
    code += "print(sys.modules['megatron.core.jit'].__file__, jit_fuser.__name__)"
    assert run(code, tmp_path) == [str(package / "jit.py"), found]


def test_a_process_that_has_it_already_keeps_it():
    """The same where NeMo comes first."""
    code = "import torch, types; sys.modules[{0!r}] = types.ModuleType({0!r}); import nemo_distill; "
    code += "print(len([each for each in sys.meta_path if type(each).__module__.startswith('nemo_distill')]), 0)"
    assert run("import sys; " + code.format(MODULE)) == ["0", "0"]


def test_a_function_is_compiled_once_when_it_is_called(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)

    def double(value, *, times=2):
        """Of a number."""
        return times * value

    later = compile_when_called(double)
    assert (later.__name__, later.__doc__, compiled) == ("double", "Of a number.", [])
    assert (later(4), later(4, times=3)) == (8, 12)
    assert compiled == [double]
    with pytest.raises(TypeError):
        later()
