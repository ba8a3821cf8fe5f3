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
"""The pairs of languages of a model: one, or those of a many-to-one or one-to-many model.

As in NeMo, one side of a multilingual model is a list. Many-to-one: nothing is put in front of a source, the language
chooses its processor alone. One-to-many: the id of the target language stands in front of the source's start token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemo_distill.config.languages import LANGUAGE_KEYS, Languages
from nemo_distill.config.mixture import MixtureConfig
from nemo_distill.data.mixing.tarred import is_tarred
from nemo_distill.errors import InputError

if TYPE_CHECKING:
    from nemo.collections.nlp.models import MTEncDecModel


@dataclass(frozen=True)
class Direction:
    """One pair of languages of a model."""

    source: str | None
    """Language of the source; None where the model's archive names none."""
    target: str | None
    """Language of the target; None where the model's archive names none."""
    source_processor: object | None
    """Normalizes and tokenizes before the source tokenizer; None for text that is read as it is."""
    target_processor: object | None
    """Joins what the target tokenizer gives; None for text that is written as it is."""
    token: int | None = None
    """Id of the target language, which stands in front of the source's start token; None: nothing does."""

    def __str__(self) -> str:
        return f"{self.source}-{self.target}"


def listed_side(config: Mapping[str, Any]) -> str | None:
    """Return which side of a multilingual `model` section is a list, `source` or `target`; None for one pair."""
    if not config.get("multilingual"):
        return None
    return next((side for side, key in LANGUAGE_KEYS.items() if _is_list(config.get(key))), None)


def listed_languages(config: Mapping[str, Any]) -> list[str]:
    """Return the languages of the side that is a list; none for a model of one pair."""
    side = listed_side(config)
    return [str(each) for each in config[LANGUAGE_KEYS[side]]] if side else []


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _config_of(model: "MTEncDecModel") -> dict[str, Any]:
    keys = ("multilingual", *LANGUAGE_KEYS.values())
    return {key: getattr(model, key, None) for key in keys}


def model_languages(model: "MTEncDecModel") -> list[str]:
    """Return the languages of the side of a model that is a list; none for a model of one pair."""
    return listed_languages(_config_of(model))


def language_tokens(model: "MTEncDecModel") -> dict[str, int]:
    """Return the id of each language that the model is told by a token in front of the source; empty where by none."""
    if listed_side(_config_of(model)) != "target":
        return {}
    return {language: model.multilingual_lang_to_id[language] for language in model_languages(model)}


def directions(model: "MTEncDecModel") -> list[Direction]:
    """Return the pairs of languages of a model, in the order of its list."""
    side = listed_side(_config_of(model))
    if side is None:
        return [Direction(model.src_language, model.tgt_language, model.source_processor, model.target_processor)]
    tokens = language_tokens(model)
    found = []
    for place, language in enumerate(model_languages(model)):
        pair = {"source": model.src_language, "target": model.tgt_language, side: language}
        processors = model.source_processor_list[place], model.target_processor_list[place]
        found.append(Direction(pair["source"], pair["target"], *processors, tokens.get(language)))
    return found


def chosen_language(
    config: Mapping[str, Any], languages: Languages | None = None, owner: str = "the model"
) -> str | None:
    """Return which of the languages of a multilingual `model` section is meant; None for a model of one pair.

    Args:
        config: the `model` section.
        languages: what the user says.
        owner: how messages call the model.

    Raises:
        InputError: the model has several, and none of them or none at all is given; the message names them.
    """
    side, known = listed_side(config), listed_languages(config)
    if side is None:
        return None
    asked = getattr(languages or Languages(), side)
    shown = f"{owner} has several {side} languages, {', '.join(known)}"
    if asked is None:
        raise InputError(f"{shown}: say which one is meant, --{side}-lang {known[0]} for example")
    if asked not in known:
        raise InputError(f"--{side}-lang {asked:.40}: {shown}; give one of them")
    return asked


def pair_of(config: Mapping[str, Any], languages: Languages | None = None, owner: str = "the model") -> Languages:
    """Return the one pair of languages of a `model` section that is meant; arguments and errors as `chosen_language`.

    A side that is no list is as the section says: `read_archive_config` has put there what the user says.
    """
    chosen = {listed_side(config): chosen_language(config, languages, owner)}
    return Languages(*(chosen.get(side) or config.get(key) for side, key in LANGUAGE_KEYS.items()))


def find_direction(model: "MTEncDecModel", languages: Languages | None = None) -> Direction:
    """Return the pair of languages that is meant: the model's only one, or that of the language given.

    Raises:
        InputError: as `chosen_language`.
    """
    name = chosen_language(_config_of(model), languages)
    return directions(model)[0 if name is None else model_languages(model).index(name)]


def set_places(known: Sequence[str], section: str, dataset: Mapping[str, Any]) -> list[int]:
    """Return for each file of a data section the place of its language in the list of a multilingual model.

    `languages` beside the files says which; without it, they are in the order of the model's list, if they are as
    many.

    Args:
        known: the model's languages.
        section: name of the data section, for messages.
        dataset: the data section.

    Raises:
        InputError: the languages are not as many as the files, or not the model's.
    """
    names = dataset.get("metadata_file" if is_tarred(dataset) else "src_file_name") or []
    count = len(names) if _is_list(names) else 1
    given = dataset.get("languages")
    if given is None and count == len(known):
        return list(range(count))
    where, choice = f"model.{section}.languages", f"the model's are {', '.join(known)}"
    if given is None:
        raise InputError(f"{where}: is missing, and there are {count} files for {len(known)} languages; {choice}")
    given = [str(each) for each in given] if _is_list(given) else [str(given)]
    if len(given) != count:
        raise InputError(f"{where}: got {len(given)} for {count} files; give one for each file: {choice}")
    for language in given:
        if language not in known:
            raise InputError(f"{where}: got '{language:.40}', and {choice}")
    return [known.index(language) for language in given]


def component_faults(config: Mapping[str, Any], mixture: MixtureConfig) -> list[str]:
    """Return one line for each component of a mixture whose language is none of the model's.

    Args:
        config: the `model` section.
        mixture: the mixture.
    """
    known = listed_languages(config)
    pair = [str(config[key]) for key in LANGUAGE_KEYS.values() if not known and config.get(key)]
    faults = []
    for name, component in mixture.components.items():
        where = f"distillation.mixture.components.{name}.language"
        if known and component.language is None:
            faults.append(f"{where}: is missing, and the model has several; give one of {', '.join(known)}")
        elif component.language is not None and component.language not in (known or pair):
            choice = ", ".join(known or pair) or "not named"
            faults.append(f"{where}: got '{component.language:.40}', and the model's are {choice}")
    return faults


def multilingual_faults(config: Mapping[str, Any]) -> list[str]:
    """Return one line for each thing that NeMo cannot build a multilingual model from.

    Args:
        config: the `model` section.
    """
    if not config.get("multilingual"):
        return []
    lists = [key for key in LANGUAGE_KEYS.values() if _is_list(config.get(key))]
    if len(lists) != 1:
        return [
            "model.multilingual: true needs a list of languages in src_language (many-to-one) or in tgt_language "
            f"(one-to-many), and got {'one in both' if lists else 'none'}"
        ]
    faults = []
    known = listed_languages(config)
    if not known or len(set(known)) != len(known):
        faults.append(f"model.{lists[0]}: got {', '.join(known) or 'none'}; give each language once")
    for side in ("encoder", "decoder") if lists == ["tgt_language"] else ():
        tokenizer = config.get(f"{side}_tokenizer") or {}
        if tokenizer.get("library") == "yttm":
            faults.append(
                f"model.{side}_tokenizer: YouTokenToMe takes no tokens for the languages {', '.join(known)}; give a "
                "SentencePiece model and sentencepiece_legacy: true"
            )
        elif not tokenizer.get("sentencepiece_legacy"):
            faults.append(
                f"model.{side}_tokenizer.sentencepiece_legacy: must be true, or no tokens can be added for the "
                f"languages {', '.join(known)}"
            )
    return faults
