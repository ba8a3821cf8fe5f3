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
"""Does CTranslate2 find what it needs on a GPU? torch brings CUDA of its own, which may be another release."""

import ctypes
import importlib.util
from pathlib import Path

import ctranslate2

CUBLAS = "libcublas.so.12"
"""What CTranslate2 4 opens by this name at its first product on a GPU."""

ADVICE = "`pip install nvidia-cublas-cu12` brings it"


def device_fault(device: str) -> str | None:
    """Return why CTranslate2 cannot decode on a device, or None.

    cuBLAS is opened, so that CTranslate2 finds it afterwards where the loader alone does not: in a package of pip's.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
    """
    if device == "cpu":
        return None
    if ctranslate2.get_cuda_device_count() == 0:
        return f"CTranslate2 finds no device {device}"
    for path in (CUBLAS, *_packaged()):
        try:
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return None
    return f"CTranslate2 finds no {CUBLAS}, of CUDA 12, on {device}; {ADVICE}"


def _packaged() -> list[Path]:
    """Return where packages of NVIDIA's have the library."""
    try:
        found = importlib.util.find_spec("nvidia.cublas")
    except ModuleNotFoundError:
        return []
    folders = [] if found is None else list(found.submodule_search_locations or [])
    return [path for folder in folders if (path := Path(folder) / "lib" / CUBLAS).is_file()]
