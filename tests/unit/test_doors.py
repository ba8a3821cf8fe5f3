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
"""What a user may import is what the doors of the wings name, and the documentation names nothing else."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
SCRIPTS = sorted([*(ROOT / "examples").rglob("*.py"), ROOT / "docs/mixing_table.py", ROOT / "docs/scale_table.py"])
FOLDERS = sorted(path.parent for path in (ROOT / "nemo_distill").rglob("__init__.py"))
# Files in the root are their own doors: all that they define without an underscore is public.
ROOT_MODULES = {f"nemo_distill.{path.stem}" for path in (ROOT / "nemo_distill").glob("*.py")}
# What the wings share and no user needs; the repository's own scripts may use it.
INTERNAL = "nemo_distill.support"


def dotted(folder: Path) -> str:
    return ".".join(folder.relative_to(ROOT).parts)


def is_public(name: str) -> bool:
    """Return whether a dotted name can be had by doors alone."""
    module, _, attribute = name.rpartition(".")
    if not module:
        return name == "nemo_distill"
    found = importlib.import_module("nemo_distill")
    reached = "nemo_distill"
    for part in name.split(".")[1:]:
        through_a_door = reached in ROOT_MODULES or part in getattr(found, "__all__", ()) or isinstance(found, type)
        if not through_a_door or not hasattr(found, part):
            return False
        found, reached = getattr(found, part), f"{reached}.{part}"
    return attribute[:1] != "_" or attribute == "__version__"


def imported(text: str) -> list[str]:
    """Return the dotted names of this package that `from ... import` lines of a text import, several lines too."""
    names = []
    for module, listed in re.findall(r"from (nemo_distill[\w.]*) import (\([^)]*\)|[^\n(]+)", text):
        listed = listed.strip("()").partition("#")[0]
        names += [f"{module}.{each.split(' as ')[0].strip()}" for each in listed.split(",") if each.strip()]
    return names


@pytest.mark.parametrize("folder", FOLDERS, ids=dotted)
def test_every_folder_says_what_lives_there(folder):
    """Each file of a wing is named in its door."""
    text = (folder / "__init__.py").read_text("utf-8").partition('"""')[2].partition('"""')[0]
    assert len(text.splitlines()) > 3
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    unnamed = [name for name in sorted(files) if f"`{name}" not in text]
    assert folder.name in ("nemo_distill", "cli") or not unnamed, (
        f"{dotted(folder)} does not say what {unnamed} are for"
    )


@pytest.mark.parametrize("folder", FOLDERS, ids=dotted)
def test_what_a_door_names_is_there(folder):
    door = importlib.import_module(dotted(folder))
    names = getattr(door, "__all__", [])
    assert names or dotted(folder) == INTERNAL
    for name in names:
        found = getattr(door, name)
        assert getattr(found, "__doc__", "") or not isinstance(found, type), name
    assert (folder / "__init__.pyi").is_file() == bool(names), "type checkers read what a door names in its stub"


def test_the_check_sees_what_is_not_public():
    assert is_public("nemo_distill.losses.WordLevelKDLoss")
    assert is_public("nemo_distill.capture.CaptureSpec")
    assert is_public("nemo_distill.evaluation.EvaluationResult.load")
    assert not is_public("nemo_distill.losses.divergence.WordLevelKDLoss")
    assert not is_public("nemo_distill.losses.NoSuchLoss")
    assert imported("from nemo_distill.losses import (\n    A,\n    B as C,\n)\n") == [
        "nemo_distill.losses.A",
        "nemo_distill.losses.B",
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages_use_the_doors(page):
    text = page.read_text("utf-8")
    names = imported(text) + re.findall(r"`(nemo_distill(?:\.\w+)+)", text)
    wrong = [name for name in names if not is_public(name) and not name.startswith(INTERNAL)]
    wrong += [name for name in imported(text) if name.startswith(INTERNAL)]
    assert not wrong, f"{page.name} names what no door names: {wrong}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_examples_use_the_doors(script):
    names = imported(script.read_text("utf-8"))
    assert names
    wrong = [name for name in names if not is_public(name) and not name.startswith(INTERNAL)]
    assert not wrong, f"{script.name} imports what no door names: {wrong}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_that_pages_name_are_there(page):
    """Paths in code font, and the tests in them, are those of the repository."""
    text = page.read_text("utf-8")
    for path, test in re.findall(
        r"`((?:nemo_distill|tests|examples|configs|docs|requirements)/[\w./-]+)(?:::(\w+))?", text
    ):
        assert (ROOT / path).exists(), f"{page.name} names {path}, which is not there"
        assert not test or f"def {test}(" in (ROOT / path).read_text("utf-8"), f"{page.name}: no {test} in {path}"


def test_the_page_of_the_architecture_names_files_and_functions_that_are_there():
    """`file.py` `name`, `name` in a row of its tables."""
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    pairs = [
        (path, name)
        for path, names in re.findall(r"`([\w/]+\.py)`((?:,? `\w+`)+)", text)
        for name in re.findall(r"`(\w+)`", names)
    ]
    assert len(pairs) > 30
    for path, name in pairs:
        file = ROOT / path if path.startswith("examples/") else ROOT / "nemo_distill" / path
        assert re.search(rf"^\s*(def|class) {name}\b|^{name}\b", file.read_text("utf-8"), re.M), f"no {name} in {path}"
    for path in re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", text):
        assert (ROOT / path).exists() or (ROOT / "nemo_distill" / path).exists(), path


def test_tests_mirror_the_wings():
    wings = {dotted(folder).removeprefix("nemo_distill").lstrip(".").replace(".", "/") for folder in FOLDERS} - {""}
    unit = ROOT / "tests/unit"
    mirrored = {str(path.parent.relative_to(unit)) for path in unit.rglob("test_*.py")} - {"."}
    assert mirrored == wings
    strange = [
        str(path.relative_to(unit))
        for path in unit.rglob("test_*.py")
        if path.parent != unit
        and not any(
            (ROOT / "nemo_distill" / path.parent.relative_to(unit)).glob(f"{path.stem.removeprefix('test_')}*.py")
        )
    ]
    assert strange == ["archives/test_attacks.py", "cli/test_wrong_paths.py"], (
        "a test is named after the file that it tests"
    )
