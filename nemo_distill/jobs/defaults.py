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
"""What `nemo-distill run` does without a recipe."""

from collections.abc import Mapping, Sequence
from typing import Any

from nemo_distill.errors import InputError
from nemo_distill.jobs.recipe_sections import GOLD_TEXT

DEFAULT: dict[str, Any] = {
    "teacher": {"model": "small_3x3", "steps": 30_000, "patience": 5, "validate_every": 250},
    "student": {"compression": 2.5, "steps": 40_000, "patience": 5, "validate_every": 250, "dropout": "auto"},
    "pseudo_labels": {},
    "caches": {"teacher": {"if_it_pays": True}},
    "runs": {
        "plain": {"plain": True},
        "student": {"cache": "teacher", "start": "every_nth", "overrides": ["distillation=recommended"]},
    },
    "export": "int8",
}
"""What `nemo-distill run --teacher FILE --corpus DIR` does: a plain twin and the student that docs/recipes.md
recommends, both with dropout where text is little, the table, and the better of them to deploy. Where no teacher is
given, one is trained."""
DEFAULT_AT_RANDOM: dict[str, Any] = {
    **DEFAULT,
    "caches": {},
    "runs": {"plain": {"plain": True}, "student": {"overrides": ["distillation=hinton"]}},
}
"""The same where no student can start from the teacher."""
DEFAULT_ON_LABELS: dict[str, Any] = {
    **DEFAULT,
    "student": {**DEFAULT["student"], "compression": None, "size_mb": 7},
    "pseudo_labels": {"beam": {}},
    "caches": {},
    "runs": {
        "plain": {"plain": True},
        "student": {"pseudo": "beam", "overrides": ["distillation=seq_level"]},
        "interpolation": {"pseudo": "beam", "overrides": ["distillation=interpolation"]},
    },
}
"""The same where the teacher is not NeMo's: it gives translations alone, and its weights are not counted."""
_NULL = ("null", "Null", "NULL", "~", "")
"""As YAML has it."""
_DEFAULTS = (DEFAULT, DEFAULT_AT_RANDOM, DEFAULT_ON_LABELS)


def default_recipe(is_foreign: bool, has_unlabelled: bool, starts: bool) -> dict[str, Any]:
    """Return the default recipe for some teacher and text.

    Args:
        is_foreign: the teacher is not NeMo's.
        has_unlabelled: there is text without translations.
        starts: students can start from the teacher.
    """
    default = DEFAULT_ON_LABELS if is_foreign else DEFAULT if starts else DEFAULT_AT_RANDOM
    return _with_unlabelled(default) if has_unlabelled else default


def settings_for(default: Mapping[str, Any], settings: Sequence[str]) -> list[str]:
    """Return the settings (`--set`) for a default recipe, less those that leave out a row which another one alone has.

    Raises:
        InputError: one sets a key of a row that is in another one alone.
    """
    every = [*_DEFAULTS, *map(_with_unlabelled, _DEFAULTS)]
    absent = {
        (section, name)
        for section in ("pseudo_labels", "caches", "runs")
        for each in every
        for name in each[section]
        if name not in default[section]
    }
    kept = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        names = tuple(key.split("."))
        if names[:2] in absent and len(names) > 2:
            raise InputError(f"--set {setting[:200]}: with this teacher and text there is no {'.'.join(names[:2])}")
        if names not in absent or not equals or value not in _NULL:
            kept.append(setting)
    return kept


def _with_unlabelled(default: Mapping[str, Any]) -> dict[str, Any]:
    """Return a default recipe for text without translations too: its students of labels alone read them of that text,
    others have one beside them that reads both.
    """
    if default is DEFAULT_ON_LABELS:
        return {**default, "pseudo_labels": {"beam": {"unlabelled": True}}}
    name = "unlabelled"  # of the row, its labels and its cache; all else is as without, and need not be made anew
    labels, caches = {**default["pseudo_labels"], name: {"unlabelled": True}}, {**default["caches"]}
    run: dict[str, Any] = {"pseudo": name, "overrides": ["distillation=semi_supervised"]}
    if default is DEFAULT:
        run |= {"cache": name, "start": "every_nth", "overrides": ["distillation=recommended_unlabelled"]}
        run["dropout"] = 0.0  # of much text that a teacher has labelled, as its preset has it
        caches[name] = {"texts": [GOLD_TEXT, name], "if_it_pays": True}
    return {**default, "pseudo_labels": labels, "caches": caches, "runs": {**default["runs"], name: run}}
