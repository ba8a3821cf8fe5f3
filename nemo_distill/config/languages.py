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
"""The languages of a model's text, which decide how raw text is processed before and after its tokenizers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LANGUAGE_KEYS = {"source": "src_language", "target": "tgt_language"}
"""Key of a `model` section that has the language of a side, or the list of a multilingual model."""
SIDES = tuple(LANGUAGE_KEYS)
_LANGUAGE = re.compile(r"[A-Za-z0-9_-]{0,16}")


def is_language(value: Any) -> bool:
    """Return whether a value is a language as archives name them: a code, or the name of a processor, as `ignore`."""
    return isinstance(value, str) and _LANGUAGE.fullmatch(value) is not None


def short_code(language: str) -> str:
    """Return the language without what names a processor or a script, its short code where it has one.

    Example:
        >>> short_code("ja-mecab"), short_code("eng_Latn"), short_code("ast_Latn")
        ('ja', 'en', 'ast')
    """
    from nltk.langnames import iso639short  # which takes a second

    code = re.split("[-_]", language)[0]
    return iso639short.get(code, code)


def are_other(one: str, other: str) -> bool:
    """Return whether two codes are of different languages; of one that has no short code that is not known."""
    one, other = short_code(one), short_code(other)
    return one != other and len(one) == len(other)


@dataclass(frozen=True)
class Languages:
    """What a user says of a model's languages; None: as the model's archive says."""

    source: str | None = None
    """Code such as `de`; `ja-mecab`; or `ignore`, for text that is read as it is."""
    target: str | None = None
    """The same for what the model writes."""

    def options(self) -> list[str]:
        """Return the options that tell a verb of them.

        Example:
            >>> Languages(target="de").options()
            ['--target-lang', 'de']
        """
        said = {f"--{side}-lang": getattr(self, side) for side in SIDES}
        return [each for option, language in said.items() if language is not None for each in (option, language)]

    def faults(self, where: str) -> list[str]:
        """Return one line for each value that is no language; `where` makes a key of a side, as `--%s-lang`."""
        return [
            f"{where % side}: got {value!r:.80}; give a code such as de, or ignore for text that is read as it is"
            for side in SIDES
            if (value := getattr(self, side)) is not None and not (is_language(value) and value)
        ]

    def model_faults(self, config: Mapping[str, Any]) -> list[str]:
        """Return one line for each language that a model with this `model` section cannot be given."""
        faults = []
        for side, key in LANGUAGE_KEYS.items():
            asked, known = getattr(self, side), config.get(key)
            if isinstance(known, str) or known is None or asked is None:
                continue
            if asked not in list(known):
                faults.append(f"the {side} language {asked} is none of the model's, which are {', '.join(known)}")
        return faults

    def apply(self, config: Any) -> None:
        """Put the languages into a `model` section, in place, where it has one language, or none, on that side.

        A side with a list, of a multilingual model, keeps it: there a language is one of the list.
        """
        for side, key in LANGUAGE_KEYS.items():
            asked = getattr(self, side)
            if asked is not None and (config.get(key) is None or isinstance(config.get(key), str)):
                config[key] = asked
