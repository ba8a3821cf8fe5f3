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
from nemo_distill.support.quoting import plain_text

_MOST_VALUES, _MOST_LEVELS, _LONGEST_TEXT, _LARGEST_NUMBER = 20_000, 32, 10_000, 1 << 63
_MOST_SHOWN, _LONGEST_FAULT, _LONGEST_VALUE = 30, 600, 200
_BARE_WORD = 'a word such as no or on in quotes: "no"'
"""YAML reads these as true and false; one is a language."""


def plain_faults(data: Any, where: str) -> list[str]:
    """Return a fault where plain data are larger than any section: too many or too deep, or a value too long.

    What passes can be walked through and shown in a message, which a number of 5000 digits cannot.
    """
    level, count = [(where, data)], 0
    for _ in range(_MOST_LEVELS):
        inner = []
        for place, value in level:
            if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _LARGEST_NUMBER:
                return [f"{place}: got a whole number of more than 64 bits; give a smaller one"]
            if isinstance(value, str) and len(value) > _LONGEST_TEXT:
                return [f"{place}: got a text of {len(value)} characters; give {_LONGEST_TEXT} at most"]
            items = value.items() if isinstance(value, Mapping) else ()
            if odd := [key for key, _ in items if isinstance(key, bool)]:
                return [f"{place}: a name is {str(odd[0]).lower()} to YAML; write {_BARE_WORD}"]
            if not all(_is_key(key) for key, _ in items):
                return [f"{place}: a key is no text, or has more than {_LONGEST_VALUE} characters; give another one"]
            inner += [(f"{place}.{key}", item) for key, item in items]
            if isinstance(value, list | tuple):
                inner += [(f"{place}[{number}]", item) for number, item in enumerate(value)]
        count += len(inner)
        if count > _MOST_VALUES:
            return [f"{where}: has more than {_MOST_VALUES} values; give fewer"]
        if not inner:
            return []
        level = inner
    return [f"{where}: is nested more than {_MOST_LEVELS} deep; give it flat"]


def inner_section(section: Any, *keys: Any) -> Mapping[str, Any]:
    """Return a section inside of another one, of plain data that nobody has checked; an empty one where is none."""
    for key in keys:
        section = section.get(key) if isinstance(section, Mapping) else None
    return section if isinstance(section, Mapping) else {}


def with_home(data: Any) -> Any:
    """Return plain data in which each text that begins with `~/` begins with the home directory, as a shell has it."""
    if isinstance(data, Mapping):
        return {key: with_home(item) for key, item in data.items()}
    if isinstance(data, list | tuple):
        return [with_home(item) for item in data]
    return os.path.expanduser(data) if isinstance(data, str) and data.startswith("~/") else data


def fault_list(faults: typing.Sequence[str]) -> str:
    """Return faults line by line, each bounded in length and of visible characters, and not more than can be read."""
    lines = [f"  {plain_text(fault, _LONGEST_FAULT)}" for fault in faults[:_MOST_SHOWN]]
    return "\n".join([*lines, *([f"  and {len(faults) - _MOST_SHOWN} more"] if len(faults) > _MOST_SHOWN else [])])


def _is_key(key: Any) -> bool:
    if isinstance(key, str):
        return len(key) <= _LONGEST_VALUE
    return key is None or (isinstance(key, int | float) and abs(key) < _LARGEST_NUMBER)


def _shown(value: Any) -> str:
    try:
        return plain_text(repr(value), _LONGEST_VALUE)
    except ValueError:  # a number that Python does not write out
        return f"a {type(value).__name__} of thousands of digits"


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
    """Return `(did you mean ...?)`, or nothing where no known name is near, whatever its case."""
    folded = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.5)
    return f" (did you mean '{folded[close[0]]}'?)" if close else ""


def read_dataclass(cls: type, data: Any, where: str, faults: list[str]) -> Any:
    """Build and check `cls` from a mapping; collect every fault in `faults` instead of stopping at the first.

    A field may be a plain value (`float`, `str | None`), a section (`Section`, `Section | None`, `Section | str`), or
    sections or plain values by name (`dict[str, Section]`, `dict[str, list]`). A part with unknown keys or wrong types
    is not checked further, since its other faults might follow from these.
    """
    known = _field_names(cls)
    if not isinstance(data, Mapping):
        faults.append(f"{where}: got {_shown(data)}; give a mapping with any of the keys {', '.join(known)}")
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
        if section and section is not hint and _is_of(hint, data.get(key)):
            values[key] = data[key]
        elif section is hint or (section and data.get(key) is not None):
            values[key] = read_dataclass(section, data.get(key, {}), f"{where}.{key}", faults)
        elif typing.get_origin(hint) is dict:
            if key in data:
                values[key] = _read_named(typing.get_args(hint)[1], data[key], f"{where}.{key}", faults, own_faults)
        elif key in data and not section:
            count = len(own_faults)
            value = _read_value(hint, data[key], f"{where}.{key}", own_faults)
            if len(own_faults) == count:  # else the default stands in, so that other checks meet no wrong type
                values[key] = value
    config = cls(**values)
    faults += own_faults or config.faults(where, data)
    return config


def read_yaml(cls: type, path: str | os.PathLike, where: str, loader: type = yaml.SafeLoader) -> Any:
    """Build and check `cls` from a YAML or JSON file.

    Args:
        cls: the dataclass.
        path: of the file.
        where: name of the content, for the message.
        loader: a safe loader of YAML, which says what is a number and what is text.

    Raises:
        InputError: there is no such file, it is not YAML, or it has faults; the message lists all of them.
    """
    return checked(cls, read_plain_yaml(path, where, loader), where, path)


def read_plain_yaml(path: str | os.PathLike, where: str, loader: type = yaml.SafeLoader) -> Any:
    """Return the content of a YAML or JSON file, unchecked; arguments and errors as of `read_yaml`."""
    path = Path(path)
    if not os.path.exists(path):  # Path.exists raises for a name too long
        raise InputError(f"{where}: there is no file {plain_text(path)}")
    try:
        return yaml.load(read_yaml_text(path), loader)
    except (ValueError, yaml.YAMLError) as error:  # of a value, such as a date that is none, or a key that is a list
        raise InputError(f"{where}: {plain_text(error, _LONGEST_FAULT)}") from error


def checked(cls: type, content: Any, where: str, place: str | os.PathLike) -> Any:
    """Build and check `cls` from plain data that nobody has checked.

    Args:
        cls: the dataclass.
        content: of it.
        where: name of the content, for the message.
        place: where it comes from, for the message.

    Raises:
        InputError: it has faults; the message lists all of them.
    """
    faults = plain_faults(content, where)
    section = None if faults else read_dataclass(cls, with_home(content), where, faults)
    if faults:
        raise InputError(f"{place}:\n{fault_list(faults)}")
    return section


def section_class(hint: Any) -> type | None:
    """Return the dataclass in the type of a field, `Section` or `Section | None`; None where it has none."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)


def _is_of(hint: Any, value: Any) -> bool:
    """Return whether a value is of one of the plain types beside a section."""
    return any(isinstance(value, kind) for kind in typing.get_args(hint) if kind in (str, list))


def _read_named(cls: type, data: Any, where: str, faults: list[str], own_faults: list[str]) -> dict[str, Any]:
    """Return sections, or plain values, by name; those of a wrong type are left out.

    Args:
        cls: of each.
        data: the mapping.
        where: the place of it.
        faults: those of the sections are added here.
        own_faults: those of the mapping itself and of plain values.
    """
    is_section = dataclasses.is_dataclass(cls)
    if not isinstance(data, Mapping):
        kind = "sections" if is_section else f"a {cls.__name__} each"
        own_faults.append(f"{where}: got {_shown(data)}; give a mapping from names of your choice to {kind}")
        return {}
    if is_section:
        return {str(name): read_dataclass(cls, item, f"{where}.{name}", faults) for name, item in data.items()}
    values = {}
    for name, item in data.items():
        count = len(own_faults)
        value = _read_value(cls, item, f"{where}.{name}", own_faults)
        if len(own_faults) == count:
            values[str(name)] = value
    return values


def _read_value(hint: Any, value: Any, where: str, faults: list[str]) -> Any:
    """Check one plain value against its type; a whole number serves as a float, a bool never as a number."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if isinstance(value, int) and not isinstance(value, bool) and float in allowed:
        return float(value)  # which holds any whole number that `plain_faults` lets pass
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
        names += " (an empty one is [])" if value is None and list in allowed else ""
        if isinstance(value, bool) and str in allowed:
            names += f""", {_BARE_WORD}, on a command line 'KEY="no"'"""
        faults.append(f"{where}: got {_shown(value)} of type {type(value).__name__}; give a {names}")
    return value


def _field_names(cls: type) -> list[str]:
    return [item.name for item in dataclasses.fields(cls)]
