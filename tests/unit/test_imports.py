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
"""Imports inside the package point one way, and the heavy ones stay where they belong."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "nemo_distill"

# From the bottom up. A module imports from its own layer and from those above it in this list, never from below it.
LAYERS = (
    {"errors", "compat", "children"},
    {"files", "config_reading", "device", "temporary", "archive_reader"},
    {"config_mixture", "archive_config", "archive_weights"},
    {"replay", "restart", "stopping"},
    {"config", "config_layers", "layer_map", "capture", "losses", "archive", "lightning", "ranks"},
    {"terms", "heads", "layer_init", "width_selection"},
    {"teacher", "cached_teacher", "teachers", "initial_student", "data", "decoding"},
    {"repairs", "validation"},
    {"mixin"},
    {"non_finite"},
    {"model", "training", "checkpoints"},
    {"results", "plot", "tables"},
    {"evaluation_inputs", "evaluate"},
    {"summary"},
    {"layout"},
    {"report"},
    {"speed"},
    {"cli_cache", "cli_labels", "cli_inference", "cli_init"},
    {"stages", "sweep_plan"},
    {"cli"},
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def modules() -> dict[str, Path]:
    """Return the modules of the package by dotted name, without `nemo_distill/__init__.py`, which is lazy."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


MODULES = modules()


def imported_names(path: Path) -> Iterator[str]:
    """Yield each absolute dotted name that the file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}, line {node.lineno}: imports are absolute in this package"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> set[str]:
    """Return the modules of the package that `module` imports."""
    found = set()
    for name in imported_names(MODULES[module]):
        if name.startswith("nemo_distill."):
            inner = name.removeprefix("nemo_distill.")
            while inner and inner not in MODULES:  # a function or class: its module
                inner = inner.rpartition(".")[0]
            found |= {inner} if inner else set()
    return found - {module}


def test_the_walk_sees_imports():
    assert {"errors", "config"} <= own_imports("teacher")
    assert "losses.divergence" in own_imports("losses")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_one_way(module):
    layer = module.partition(".")[0]
    assert layer in RANK, f"{module} is new: give it a place in LAYERS"
    wrong = [name for name in own_imports(module) if RANK.get(name.partition(".")[0], len(LAYERS)) > RANK[layer]]
    assert not wrong, f"nemo_distill.{module} must not import {wrong}: they stand above it"


def test_no_circles():
    parents = {
        module: {name for name in own_imports(module) if not module.startswith(name + ".")} for module in MODULES
    }
    tuple(TopologicalSorter(parents).static_order())  # CycleError names the circle


def test_lightning_is_imported_in_one_place():
    names = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")
    assert {module for module, path in MODULES.items() if any(name in path.read_text("utf-8") for name in names)} == {
        "compat"
    }
    for module, path in MODULES.items():
        found = {name.split(".")[0] for name in imported_names(path)}
        assert not found & {"pytorch_lightning", "lightning"}, f"{module}: take Lightning from nemo_distill.compat"


def test_lightning_is_the_one_of_nemo():
    from nemo.core.classes import ModelPT

    from nemo_distill import compat

    assert issubclass(ModelPT, compat.lightning().LightningModule)


def test_losses_know_tensors_only():
    foreign = {
        name.split(".")[0]
        for module, path in MODULES.items()
        if module.partition(".")[0] == "losses"
        for name in imported_names(path)
    }
    assert "nemo" not in foreign
    assert "omegaconf" not in foreign
