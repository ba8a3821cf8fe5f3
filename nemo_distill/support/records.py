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
"""Records that this library wrote, read back by the types of their dataclass: a wrong one is refused, not used."""

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from nemo_distill.errors import InputError

T = TypeVar("T")
_MOST_SHOWN = 5


def read_record(cls: type[T], content: Any, where: str, fix: str = "write it again") -> T:
    """Build a dataclass from plain data, every value of the type that its field declares.

    A field may be `int`, `float` (finite), `str`, `bool`, `None`, a dataclass, `list[...]`, `tuple[...]` of one type,
    `dict[str, ...]` or a union of these. A whole number serves as a float, a bool never as a number.

    Args:
        cls: the dataclass.
        content: plain data, as from JSON.
        where: the file, for the message.
        fix: what to do, for the message.

    Raises:
        InputError: keys that are missing or unknown, or values of another type; the message lists the first five.

    Example:
        >>> read_record(Share, {"rank": 0, "world_size": 2}, "share.json").world_size  # doctest: +SKIP
        2
    """
    faults = list(faults_of(cls, content))
    if faults:
        more = f" and {len(faults) - _MOST_SHOWN} more" if len(faults) > _MOST_SHOWN else ""
        raise InputError(f"'{where}' is damaged: {'; '.join(faults[:_MOST_SHOWN])}{more}; {fix}")
    return _build(cls, content)


def faults_of(hint: Any, value: Any, where: str = "") -> Iterator[str]:
    """Yield a fault for each part of plain data that is not of the declared type; see `read_record`."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if len(kinds) > 1:
        if all(any(True for _ in faults_of(kind, value)) for kind in kinds):
            yield f"{where or 'it'} is {_shown(value)}, no {' or '.join(map(_name, kinds))}"
        return
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        yield from _section_faults(hint, value, where)
    elif origin in (list, tuple):
        if not isinstance(value, list | tuple):
            yield f"{where or 'it'} is {_shown(value)}, no list"
            return
        for place, item in enumerate(value):
            yield from faults_of(inner[0], item, f"{where}[{place}]")
    elif origin is dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            yield f"{where or 'it'} is {_shown(value)}, no mapping"
            return
        for key, item in value.items():
            yield from faults_of(inner[1], item, f"{where}.{key[:80]}".lstrip("."))
    elif hint is not Any and not _is_plain(hint, value):
        yield f"{where or 'it'} is {_shown(value)}, no {_name(hint)}"


def _section_faults(cls: type, value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{where or 'it'} is {_shown(value)}, no mapping"
        return
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in value:
        if key not in fields:
            yield f"{where}.{str(key)[:80]} is unknown".lstrip(".")
    for name, field in fields.items():
        inner = f"{where}.{name}".lstrip(".")
        if name in value:
            yield from faults_of(hints[name], value[name], inner)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            yield f"{inner} is missing"


def _is_plain(hint: Any, value: Any) -> bool:
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, int | float) and abs(value) <= 1e308 and math.isfinite(value)
    return value is None if hint in (None, type(None)) else isinstance(value, hint)


def _build(hint: Any, value: Any) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    hint = next(kind for kind in kinds if len(kinds) == 1 or not any(True for _ in faults_of(kind, value)))
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return hint(**{key: _build(hints[key], item) for key, item in value.items()})
    if origin in (list, tuple):
        return origin(_build(inner[0], item) for item in value)
    if origin is dict:
        return {key: _build(inner[1], item) for key, item in value.items()}
    return float(value) if hint is float else value


def _shown(value: Any) -> str:
    shown = f"a {type(value).__name__}" if isinstance(value, Mapping | list) else ascii(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."


def _name(hint: Any) -> str:
    names = {"int": "whole number", "float": "finite number", "str": "text", "bool": "true or false"}
    name = getattr(hint, "__name__", str(hint))
    return "null" if hint in (None, type(None)) else names.get(name, name)
