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
"""The data sets of a multilingual model, each with the language that it is of.

NeMo gives a set the language at its place in the list of files, and a many-to-one model's sets raise an IndexError.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill.data.languages import Direction, directions, language_tokens, model_languages, set_places
from nemo_distill.training.reading import read_alike

_SETUPS = {
    "train_ds": "setup_training_data",
    "validation_ds": "setup_validation_data",
    "test_ds": "setup_test_data",
}


def set_up_by_language(model: MTEncDecModel, section: str, setup: Callable[[Any], None], config: Any) -> None:
    """Build the data of one section, each set of the language that `languages` in it says.

    Args:
        model: any translation model; for one pair of languages this is NeMo's own setup.
        section: `train_ds`, `validation_ds` or `test_ds`.
        setup: NeMo's method for it.
        config: the section.

    Raises:
        InputError: the languages are not as many as the files, or not the model's.
    """
    names = model_languages(model)
    if not names or config is None:
        with read_alike(model, section, config):
            setup(config)
        return
    tokens, places = language_tokens(model), set_places(names, section, config)
    model._set_places = {**getattr(model, "_set_places", {}), section: places}
    model.multilingual_ids = [tokens.get(names[place]) for place in places]
    try:
        with read_alike(model, section, config):
            setup(config)
    finally:
        model.multilingual_ids = [tokens.get(name) for name in names]


def sets_of(model: MTEncDecModel, section: str) -> dict[int, tuple[str, Direction]]:
    """Return for each set of a section its language and pair of languages; empty for a model of one pair."""
    names = model_languages(model)
    places = getattr(model, "_set_places", {}).get(section, range(len(names)))
    found = directions(model)
    return {number: (names[place], found[place]) for number, place in enumerate(places)}


@contextmanager
def languages_of_sets() -> Iterator[None]:
    """Context in which a stock `MTEncDecModel` is built with data sets of the languages that their sections say."""
    before = {name: getattr(MTEncDecModel, name) for name in _SETUPS.values()}
    for section, name in _SETUPS.items():
        setattr(MTEncDecModel, name, _by_language(section, before[name]))
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(MTEncDecModel, name, method)


def _by_language(section: str, method: Callable) -> Callable:
    @wraps(method)
    def setup(model: MTEncDecModel, *arguments, **named) -> None:
        (config,) = (*arguments, *named.values())
        set_up_by_language(model, section, lambda config: method(model, config), config)

    return setup
