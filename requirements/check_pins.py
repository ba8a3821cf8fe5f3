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
"""Ask the package index whether every pin can be had for every Python and processor that the README promises.

    python requirements/check_pins.py                                      # every file of pins beside this script
    python requirements/check_pins.py --python 3.10 --machine x86_64 FILE  # a part

Nothing is downloaded but lists of releases (`pip index versions`), with pip's own configuration. A pin needs a wheel,
or a source package where its line ends in `# built from source`. Exit status: 0 all can be had; 1 some cannot; 2 the
index does not answer, or a file has something else than pins.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from check_machine import GLIBC, MACHINES, VERSIONS
from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

PYTHONS = tuple(".".join(str(part) for part in version) for version in VERSIONS)
EVERY_MACHINE = tuple(dict.fromkeys(machine for machines in MACHINES.values() for machine in machines))
SOURCE_MARK = "built from source"


@dataclass(frozen=True, order=True)
class Pin:
    """One version of one package, and whether its line says that it is built from source."""

    name: str
    version: str
    is_built: bool


@dataclass(frozen=True, order=True)
class Platform:
    """A Python version on a kind of processor, on Linux."""

    python: str
    machine: str

    def __str__(self) -> str:
        return f"Python {self.python}, {self.machine}"

    def pip_options(self) -> list[str]:
        """Return what makes pip look for this platform, whichever one it runs on."""
        tags = [f"manylinux_{GLIBC[0]}_{minor}" for minor in range(GLIBC[1], 4, -1)]
        tags += ["manylinux2014", "manylinux2010", "manylinux1", "linux"]
        return [f"--python-version={self.python}", *(f"--platform={tag}_{self.machine}" for tag in tags)]


def read_pins(path: Path, platform: Platform) -> set[Pin]:
    """Return the pins of a file whose markers hold on the platform; anything but `name==version` is a ValueError."""
    environment = default_environment() | {
        "python_version": platform.python,
        "python_full_version": f"{platform.python}.0",
        "platform_machine": platform.machine,
    }
    pins = set()
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        text, _, comment = line.partition("#")
        if not text.strip():
            continue
        try:
            requirement = Requirement(text.strip())
        except InvalidRequirement as error:
            raise ValueError(f"{path}:{number}: {error}") from error
        exact = [part.version for part in requirement.specifier if part.operator == "=="]
        if len(exact) != 1 or len(requirement.specifier) != 1:
            raise ValueError(f"{path}:{number}: {requirement} is no pin; write name==version")
        if requirement.marker is None or requirement.marker.evaluate(environment):
            pins.add(Pin(canonicalize_name(requirement.name), exact[0], SOURCE_MARK in comment))
    return pins


def find_files(name: str, *options: str) -> dict[Version, bool]:
    """Return the releases of a package that pip would take, and whether each has a wheel.

    There are none where the package is unknown. RuntimeError where an index that pip is set up for does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")  # it names each file, which stdout does not
        command = [sys.executable, "-m", "pip", "index", "versions", f"--log={log}", "--pre", *options, name]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        text = log.read_text("utf-8") if log.exists() else ""
    # An index that has no such package answers so, with a status of 4xx; pip passes over both it and a silent one.
    if silent := re.search(r"Could not fetch URL \S+: (?!4\d\d )(.*?)(?: - skipping)?$", text, re.MULTILINE):
        raise RuntimeError(f"the package index does not answer: {silent.group(1)}")
    if done.returncode and "No matching distribution found" in done.stderr:
        return {}
    if done.returncode:
        raise RuntimeError(f"pip said: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")
    found = re.findall(r"Found link (\S+) .*version: (\S+)$", text, re.MULTILINE)
    if not found:
        raise RuntimeError("this pip does not name the files that it finds; take the version that the lock pins")
    files: dict[Version, bool] = {}
    for address, version in found:
        with suppress(InvalidVersion):  # old releases may bear names that no pin can
            files[Version(version)] = files.get(Version(version), False) or address.partition("#")[0].endswith(".whl")
    return files


def find_fault(pin: Pin, files: dict[Version, bool]) -> str | None:
    """Return why the pin cannot be had from the files of its package, or None."""
    has_wheel = files.get(Version(pin.version))
    if has_wheel or (pin.is_built and has_wheel is not None):
        return None
    if has_wheel is not None:
        return f"only a source package; pin another version, or end its line in `# {SOURCE_MARK}`"
    wheels = [version for version, is_wheel in files.items() if is_wheel and not version.is_prerelease]
    return f"no such release for it; {f'the newest with a wheel is {max(wheels)}' if wheels else 'none has a wheel'}"


def check(pins: dict[Platform, set[Pin]]) -> list[tuple[Pin, Platform, str]]:
    """Return what cannot be had, where and why; each fault was seen twice. RuntimeError where the index is silent."""
    questions = sorted({(pin.name, platform) for platform, there in pins.items() for pin in there})

    def ask(question: tuple[str, Platform]) -> list[tuple[Pin, Platform, str]]:
        name, platform = question
        asked = sorted(pin for pin in pins[platform] if pin.name == name)
        for _ in range(2):
            files = find_files(name, *platform.pip_options())
            faults = [(pin, platform, fault) for pin in asked if (fault := find_fault(pin, files))]
            if not faults:
                break
        return faults

    require_an_index()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        faults = [fault for found in pool.map(ask, questions) for fault in found]
    return faults


def promised_machines(path: Path) -> tuple[str, ...]:
    """Return the kinds of processor that a file of pins is for: its line of NeMo's, or all."""
    return MACHINES.get(path.stem.removeprefix("nemo-"), EVERY_MACHINE)


def require_an_index() -> None:
    """Raise RuntimeError unless the index knows pip itself: with no index every package looks like a missing one."""
    if not find_files("pip"):
        raise RuntimeError("pip has no package index: `pip index versions pip` finds nothing")


def main(arguments: list[str] | None = None) -> int:
    """Check the files named, or all; print what cannot be had."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--python", choices=PYTHONS, action="append")
    parser.add_argument("--machine", choices=EVERY_MACHINE, action="append")
    given = parser.parse_args(arguments)
    paths = given.paths or sorted(Path(__file__).parent.glob("*.txt"))
    platforms = [
        Platform(python, machine) for machine in given.machine or EVERY_MACHINE for python in given.python or PYTHONS
    ]
    try:
        pins = {
            platform: {
                pin
                for path in paths
                if given.machine or platform.machine in promised_machines(path)
                for pin in read_pins(path, platform)
            }
            for platform in platforms
        }
        faults = check(pins)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"check_pins: {error}", file=sys.stderr)
        return 2
    for pin, platform, fault in faults:
        print(f"{pin.name}=={pin.version}, {platform}: {fault}")
    every = set().union(*pins.values())
    print(f"{len(every)} pins of {', '.join(path.name for path in paths)}")
    print(f"for {'; '.join(str(platform) for platform in platforms)}: {len(faults)} cannot be had")
    print(f"built from source: {', '.join(sorted(pin.name for pin in every if pin.is_built)) or 'none'}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
