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
"""Imports between the wings of the package point one way, and the heavy ones stay where they belong."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[2] / "nemo_distill"
PAGE = PACKAGE.parent / "docs/architecture.md"

# From the ground floor up. A wing is a folder, or a file in the root. It imports from the floors below its own, never
# from its neighbours on the same floor nor from above. docs/architecture.md has the picture.
FLOORS = (
    {"errors"},
    {"support"},
    {"config", "capture"},
    {"archives", "losses", "data"},
    {"decoding", "students"},
    {"teachers", "labels", "training"},
    {"mixin"},
    {"model", "evaluation"},
    {"jobs", "recipes"},
    {"cli"},
)
UNDRAWN = {"support", "config", "errors"}  # most wings use them
FLOOR = {wing: number for number, floor in enumerate(FLOORS) for wing in floor}


class Import(NamedTuple):
    """One import of a module of the package."""

    where: str
    """File and line."""
    module: str
    """The module that imports, without `nemo_distill.`"""
    imported: str
    """The module that is imported."""

    def __str__(self) -> str:
        return f"{self.where}: {self.module} imports {self.imported}"


def modules() -> dict[str, Path]:
    """Return the modules of the package by dotted name, without the root's `__init__.py`, which is a door."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


MODULES = modules()


def imported_names(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and absolute dotted name of each import in the file, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}, line {node.lineno}: imports are absolute in this package"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def own_imports(module: str) -> Iterator[Import]:
    """Yield what `module` imports of the package."""
    path = MODULES[module]
    for line, name in imported_names(path):
        inner = name.removeprefix("nemo_distill.") if name.startswith("nemo_distill.") else ""
        while inner and inner not in MODULES:  # a function or class: its module
            inner = inner.rpartition(".")[0]
        if inner and inner != module:
            yield Import(f"{path.relative_to(PACKAGE.parent)}:{line}", module, inner)


def is_door(module: str) -> bool:
    return MODULES[module].name == "__init__.py"


def wing(module: str) -> str:
    return module.partition(".")[0]


def test_the_walk_sees_imports():
    assert {"errors", "config.section"} <= {each.imported for each in own_imports("teachers.frozen")}
    assert "losses.lean" in {each.imported for each in own_imports("losses.objective")}


def test_every_wing_has_a_floor():
    assert {wing(module) for module in MODULES} == set(FLOOR), "a wing is new or gone: change FLOORS"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_wing_reaches_up_or_aside(module):
    wrong = [
        str(each)
        for each in own_imports(module)
        if wing(each.imported) != wing(module) and FLOOR[wing(each.imported)] >= FLOOR[wing(module)]
    ]
    assert not wrong, (
        f"{wing(module)} stands on floor {FLOOR[wing(module)]} and imports from below only\n" + "\n".join(wrong)
    )


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_module_goes_through_a_door(module):
    """It would hide what is imported from the other checks. Doors are for users, and import nothing themselves."""
    path = MODULES[module]
    own = [(line, name) for line, name in imported_names(path) if name.partition(".")[0] == "nemo_distill"]
    wrong = [f"{path.relative_to(PACKAGE.parent)}:{line}: {name}" for line, name in own if name.count(".") < 2]
    wrong = [each for each in wrong if not each.endswith(": nemo_distill.__version__")]
    wrong += [str(each) for each in own_imports(module) if is_door(each.imported)]
    assert not wrong, "import the module itself\n" + "\n".join(wrong)
    assert not (is_door(module) and own)


@pytest.mark.parametrize("name", sorted(FLOOR))
def test_no_circle_inside_a_wing(name):
    inside = [module for module in MODULES if wing(module) == name]
    parents = {
        module: {each.imported for each in own_imports(module) if wing(each.imported) == name} for module in inside
    }
    try:
        tuple(TopologicalSorter(parents).static_order())
    except CycleError as error:
        circle = set(pairwise(reversed(error.args[1])))
        lines = [str(each) for module in inside for each in own_imports(module) if (module, each.imported) in circle]
        pytest.fail("a circle:\n" + "\n".join(lines))


def test_the_page_of_the_architecture_shows_these_floors():
    (picture,) = re.findall(r"^```\n(floor .*?)```", PAGE.read_text("utf-8"), re.M | re.S)
    shown: list[set[str]] = []
    for line in picture.splitlines():
        number, name = re.match(r"(?:floor)? *(\d*) +(\w+)", line).groups()
        if number:
            shown.append(set())
        shown[-1].add(name)
    assert tuple(reversed(shown)) == FLOORS


def test_the_page_of_the_architecture_shows_these_arrows():
    shown = {
        (start, end)
        for start, ends in re.findall(r"^ +(\w+) --> (.*)$", PAGE.read_text("utf-8"), re.M)
        for end in ends.split(" & ")
    }
    found = {(wing(module), wing(each.imported)) for module in MODULES for each in own_imports(module)}
    assert shown == {(start, end) for start, end in found if start != end and end not in UNDRAWN}


def test_the_root_is_small():
    """What a newcomer reads first lies there, and nothing else."""
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_lightning_is_imported_in_one_place():
    names = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")
    assert {module for module, path in MODULES.items() if any(name in path.read_text("utf-8") for name in names)} == {
        "support.compat"
    }
    for module, path in MODULES.items():
        found = {name.split(".")[0] for _, name in imported_names(path)}
        assert not found & {"pytorch_lightning", "lightning"}, (
            f"{module}: take Lightning from nemo_distill.support.compat"
        )


def test_lightning_is_the_one_of_nemo():
    from nemo.core.classes import ModelPT

    from nemo_distill.support import compat

    assert issubclass(ModelPT, compat.lightning().LightningModule)


def test_losses_know_tensors_only():
    foreign = {
        name.split(".")[0]
        for module, path in MODULES.items()
        if wing(module) == "losses"
        for _, name in imported_names(path)
    }
    assert "nemo" not in foreign
    assert "omegaconf" not in foreign
