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
"""Megatron-core without `torch.compile` at its import.

NeMo imports megatron-core, which compiles a dozen functions as it is imported, and for that torch loads its whole
compiler: a sixth of the time that NeMo 1.23 takes to import, in every process. Here each is compiled when it is first
called; translation models call none.
"""

import functools
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from types import ModuleType

MODULE = "megatron.core.jit"


def compile_when_called(function: Callable) -> Callable:
    """Return what `torch.compile` would, which it gives at the first call."""

    @functools.cache
    def compiled() -> Callable:
        import torch

        return torch.compile(function)

    @functools.wraps(function)
    def call(*args, **kwargs):
        return compiled()(*args, **kwargs)

    return call


class _Loader(importlib.abc.Loader):
    """Loads the module as it is, and puts the other function in its place."""

    def __init__(self, own: importlib.abc.Loader) -> None:
        self.own = own

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        import torch

        self.own.exec_module(module)
        if module.jit_fuser is torch.compile:
            module.jit_fuser = compile_when_called


class _Finder(importlib.abc.MetaPathFinder):
    """Finds that one module, once, as all others would."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None):
        if fullname != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def compile_later() -> None:
    """See to it that megatron-core compiles nothing at its import; if it is imported, there is nothing to do."""
    if MODULE not in sys.modules:
        sys.meta_path.insert(0, _Finder())
