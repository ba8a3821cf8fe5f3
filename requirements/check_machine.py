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
"""Say whether this Python can build the environment of a line of NeMo, before anything is installed.

    python requirements/check_machine.py [LINE]

Exit status: 0 usable; 2 not usable, with one line that says why and what to do. Old syntax: it runs on any Python.
"""

import os
import platform
import shlex
import shutil
import sys
import sysconfig

VERSIONS = ((3, 10), (3, 11))
GLIBC = (2, 28)
MACHINES = {"1.23": ("x86_64",), "2.4": ("x86_64", "aarch64")}
"""Kinds of processor, by the line of NeMo: megatron-core has no file for aarch64 that NeMo 1.23 can use."""


def find_platform_fault(line):
    """Return what the locked wheels miss here: they are for Linux on some kinds of processor, with a newer glibc."""
    library, version = platform.libc_ver()
    if not sys.platform.startswith("linux") or platform.machine() not in MACHINES[line]:
        return "{} on {}".format(platform.system(), platform.machine())
    if library != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < GLIBC:
        return "the C library is {}".format((library + " " + version).strip() or "not glibc")
    return None


def find_fault(line):
    """Return one line about what is missing for a line of NeMo, or None when all is there."""
    name = "{} (Python {}.{}.{})".format(sys.executable, *sys.version_info[:3])
    version = "{}.{}".format(*sys.version_info[:2])
    if sys.version_info[:2] not in VERSIONS:
        return (
            name + ": Python 3.10 or 3.11 is needed; install one, or name one with `make PYTHON=/path/to/python3.11`"
        )
    fault = find_platform_fault(line)
    if fault:
        return (
            "{}: {}; the lock file's wheels are for Linux on {} with glibc {}.{} or newer. {}`pip install .` takes"
            " other versions, in an environment of your own".format(
                name,
                fault,
                " or ".join(MACHINES[line]),
                GLIBC[0],
                GLIBC[1],
                "" if find_platform_fault("2.4") else "`make NEMO=2.4` has them for this machine. ",
            )
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return name + ": cannot make virtual environments; install them (Debian, Ubuntu: python{}-venv)".format(
            version
        )
    header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
    if not os.path.exists(header):
        return name + ": {} is missing; install it (Debian, Ubuntu: python{}-dev)".format(header, version)
    for variable, default in (("CC", "cc"), ("CXX", "c++")):
        command = shlex.split(os.environ.get(variable) or sysconfig.get_config_var(variable) or default)[0]
        if not shutil.which(command):
            return name + ": the C++ compiler `{}` is missing; install one (Debian, Ubuntu: g++)".format(command)
    return None


if __name__ == "__main__":
    fault = find_fault(sys.argv[1] if len(sys.argv) > 1 else "1.23")
    if fault:
        print(fault)
        sys.exit(2)
