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
"""Values in place of a recipe's own, as `--set` gives them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from nemo_distill.config.reading import inner_section, plain_faults
from nemo_distill.errors import InputError

_BY_NAME = ("pseudo_labels", "caches", "runs", "tests", "changes")
"""Sections whose keys are names of the recipe's author, so that null leaves one out."""
_LISTS_BY_NAME = (["grid", "starts"], ["grid", "seeds"], ["tests"])
"""Sections in which nothing stands below a name, so that all of what follows is one."""


def with_values(content: Any, given: Mapping[str, Any] | None, settings: Sequence[str]) -> Any:
    """Return the content of a recipe with other values in it.

    Args:
        content: plain data; what is none of a recipe is returned as it is, and its faults are told later.
        given: values in place of those at its top.
        settings: values in place of any, after those: `student.steps=100`, as YAML.

    Raises:
        InputError: a setting is no `key=value`, its value is no YAML, its key leads through what is no section, or
            it leaves out what is not there.
    """
    if not isinstance(content, Mapping) or plain_faults(content, ""):  # faults, told later
        return content
    content = {**_with_text_keys(content), **(given or {})}
    for setting in settings:
        _set(content, setting)
    return content


def _with_text_keys(data: Any) -> Any:
    """Return a copy of plain data in which every key is text, as in `--set`."""
    if isinstance(data, Mapping):
        return {
            key if isinstance(key, str) else json.dumps(key): _with_text_keys(value) for key, value in data.items()
        }
    return [_with_text_keys(item) for item in data] if isinstance(data, list | tuple) else data


def _set(content: dict[str, Any], setting: str) -> None:
    """Set one value in place, as `--set` gives it."""
    key, equals, text = setting.partition("=")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"--set {setting[:200]}: the value is not YAML; write lists as [a, b]") from error
    *sections, last = _keys_of(content, key)
    if not equals or not all([*sections, last]):
        raise InputError(f"--set {setting[:200]}: write it as key=value, for example student.steps=100")
    for section in sections:
        if not isinstance(content.setdefault(section, {}), dict):
            raise InputError(f"--set {setting[:200]}: '{section}' is no section of the recipe")
        content[section] = dict(content[section])
        content = content[section]
    if value is None and len(sections) == 1 and sections[0] in _BY_NAME:
        if last not in content:
            raise InputError(
                f"--set {setting[:200]}: there is no '{last}' to leave out; "
                f"{sections[0]} has {', '.join(map(str, content)) or 'none'}"
            )
        del content[last]
    else:
        content[last] = value


def _keys_of(content: Mapping[str, Any], dotted: str) -> list[str]:
    """Return the keys that lead to a value; a name may have dots itself, and the longest that there is counts."""
    keys, parts = [], dotted.split(".")
    while parts:
        section = inner_section(content, *keys)
        known = [end for end in range(1, len(parts) + 1) if ".".join(parts[:end]) in section]
        end = max(known, default=len(parts) if keys in _LISTS_BY_NAME else 1)
        keys.append(".".join(parts[:end]))
        parts = parts[end:]
    return keys
