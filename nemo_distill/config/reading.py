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
"""Dataclasses read from plain data: every fault is collected, none stops the reading."""

import dataclasses
import difflib
import math
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nemo_distill.errors import InputError
from nemo_distill.support.incoming import read_yaml_text


def weight_faults(weight: float, where: str) -> list[str]:
    """Return a fault where `weight` is negative or not finite."""
    if math.isfinite(weight) and weight >= 0:
        return []
    return [f"{where}: got {weight}; give a finite number of at least 0"]


def name_faults(name: str, known: typing.Iterable[str], where: str) -> list[str]:
    """Return a fault where `name` is not among the known names."""
    known = list(known)
    if name in known:
        return []
    return [f"{where}: got '{name}'; give one of {', '.join(known)}{nearest(name, known)}"]


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """Return `(did you mean ...?)`, or nothing where no known name is near."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""


def read_dataclass(cls: type, data: Any, where: str, faults: list[str]) -> Any:
    """Build and check `cls` from a mapping; collect every fault in `faults` instead of stopping at the first.

    A field may be a plain value (`float`, `str | None`), a section (`Section`, `Section | None`), or sections or plain
    values by name (`dict[str, Section]`, `dict[str, list]`). A part with unknown keys or wrong types is not checked
    further, since its other faults might follow from these.
    """
    known = _field_names(cls)
    if not isinstance(data, Mapping):
        faults.append(f"{where}: got {data!r}; give a mapping with any of the keys {', '.join(known)}")
        return cls()
    hints = typing.get_type_hints(cls)
    own_faults = [
        f"{where}.{key}: unknown key{nearest(key, known)}; known keys are {', '.join(known)}"
        for key in data
        if key not in hints
    ]
    values = {}
    for key, hint in hints.items():
        section = section_class(hint)
        if section is hint or (section and data.get(key) is not None):
            values[key] = read_dataclass(section, data.get(key, {}), f"{where}.{key}", faults)
        elif typing.get_origin(hint) is dict:
            if key in data:
                values[key] = _read_named(typing.get_args(hint)[1], data[key], f"{where}.{key}", faults)
        elif key in data and not section:
            count = len(own_faults)
            value = _read_value(hint, data[key], f"{where}.{key}", own_faults)
            if len(own_faults) == count:  # else the default stands in, so that other checks meet no wrong type
                values[key] = value
    config = cls(**values)
    faults += own_faults or config.faults(where, data)
    return config


def read_yaml(cls: type, path: str | os.PathLike, where: str) -> Any:
    """Build and check `cls` from a YAML or JSON file.

    Raises:
        InputError: there is no such file, it is not YAML, or it has faults; the message lists all of them.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{where}: there is no file {path}")
    try:
        content = yaml.safe_load(read_yaml_text(path))
    except ValueError as error:  # of a value, such as a date that is none
        raise InputError(f"{where}: {error}") from error
    faults: list[str] = []
    section = read_dataclass(cls, content, where, faults)
    if faults:
        raise InputError(f"{path}:\n" + "\n".join(f"  {fault}" for fault in faults))
    return section


def section_class(hint: Any) -> type | None:
    """Return the dataclass in the type of a field, `Section` or `Section | None`; None where it has none."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)


def _read_named(cls: type, data: Any, where: str, faults: list[str]) -> dict[str, Any]:
    kind = "sections" if dataclasses.is_dataclass(cls) else f"a {cls.__name__} each"
    if not isinstance(data, Mapping):
        faults.append(f"{where}: got {data!r}; give a mapping from names of your choice to {kind}")
        return {}
    read = read_dataclass if dataclasses.is_dataclass(cls) else _read_value
    return {str(name): read(cls, item, f"{where}.{name}", faults) for name, item in data.items()}


def _read_value(hint: Any, value: Any, where: str, faults: list[str]) -> Any:
    """Check one plain value against its type; a whole number serves as a float, a bool never as a number."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if isinstance(value, int) and not isinstance(value, bool) and float in allowed:
        try:
            return float(value)
        except OverflowError:
            faults.append(f"{where}: got a number of {len(str(value))} digits; give one that a float can hold")
            return value
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
        faults.append(f"{where}: got {value!r} of type {type(value).__name__}; give a {names}")
    return value


def _field_names(cls: type) -> list[str]:
    return [item.name for item in dataclasses.fields(cls)]
