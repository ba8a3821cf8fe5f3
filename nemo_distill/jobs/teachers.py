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
"""Teachers that a recipe is given: archives by path or by a name of NGC, and how students read text as they do."""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from nemo_distill.archives.ngc import find_archive, is_path
from nemo_distill.config.languages import LANGUAGE_KEYS, Languages
from nemo_distill.data.checks import READ_FOR
from nemo_distill.data.languages import listed_languages, listed_side
from nemo_distill.errors import InputError
from nemo_distill.jobs.allowed import setting
from nemo_distill.support.files import atomic_path, sha256
from nemo_distill.support.incoming import open_regular
from nemo_distill.support.lock import locked
from nemo_distill.support.temporary import TemporaryDirectory
from nemo_distill.support.tokenizer_guard import vocabulary_size

SIDES = ("encoder", "decoder")
_READING = ("r2l", "sentencepiece_legacy")
"""Switches of a tokenizer's section by which the same file reads text otherwise."""


@dataclass
class GivenTeachers:
    """One archive, or several, whose mean teaches; students take tokenizers and languages of the first."""

    paths: list[str]
    config: DictConfig
    """Of the first one."""
    trust_archive: bool = False
    languages: Languages = field(default_factory=Languages)
    """Of their text, where the first one's archive names none, or several."""

    @classmethod
    def open(
        cls,
        given: Sequence[str],
        trust_archive: bool = False,
        languages: Languages | None = None,
        pair: Languages | None = None,
    ) -> "GivenTeachers":
        """Look at the teachers; a name of NGC is fetched.

        Args:
            given: their paths or names.
            trust_archive: they are the user's own.
            languages: of their text, in place of what the archives say, or one of several.
            pair: the languages of the corpus, which are meant of several where nothing else is said.

        Raises:
            InputError: one is missing, is no archive, is refused (`ArchiveError`), or has vocabularies of other
                sizes than the first; of several languages none is meant.
        """
        for each in given:
            if is_path(each):
                with open_regular(each, fix="give the path of a .nemo file"):
                    pass
        from nemo_distill.archives.restore import read_archive_config  # which imports torch

        paths = [find_archive(each) for each in given]
        configs = [read_archive_config(each, trust=trust_archive) for each in paths]
        said = _languages_of(paths[0], configs[0], languages or Languages(), pair or Languages())
        opened = cls(paths, configs[0], trust_archive, said)
        wanted = opened.vocabulary_sizes() if len(paths) > 1 else None
        for number, path in enumerate(paths[1:], start=1):
            if (sizes := opened.vocabulary_sizes(number)) != wanted:
                raise InputError(
                    f"recipe.teacher: '{path}' has vocabularies of {sizes} tokens, and '{paths[0]}' of {wanted}: "
                    "their mean needs the same; give teachers with one tokenizer"
                )
        return opened

    @property
    def files(self) -> list[Path]:
        """What stages that open them read."""
        return list(map(Path, self.paths))

    def notes(self) -> list[str]:
        """Return a line where text goes into the first teacher as it is, and its words are of tokenized text."""
        if self.languages.source or self.config.get("src_language"):
            return []
        from nemo.collections.nlp.modules.common.tokenizer_utils import get_nmt_tokenizer  # which imports torch
        from nemo.utils import logging

        from nemo_distill.data.text import pieces
        from nemo_distill.data.vocabulary import is_of_tokenized_text

        with self._extracted() as found, logging.temp_verbosity(logging.ERROR):
            section = found["encoder"]
            words = pieces(get_nmt_tokenizer(section["library"], tokenizer_model=section["tokenizer_model"]))
        if not is_of_tokenized_text(words):
            return []
        return [
            f"'{self.paths[0]}' names no languages, and its vocabulary is of tokenized text: it gets text as it is, "
            "as will students; to have text tokenized say --set teacher_source=de teacher_target=en, for example"
        ]

    def live_overrides(self) -> list[str]:
        """Return the overrides that tell a teacher in memory its languages."""
        said = asdict(self.languages).items()
        return [setting(f"++model.distillation.teacher.{side}_language", each) for side, each in said if each]

    def vocabulary_sizes(self, number: int = 0) -> tuple[int, int]:
        """Return how many tokens a teacher's tokenizers have, for source and target; by default the first one's."""
        with self._extracted(number) as found:
            tokenizers = [(found[side]["library"], Path(found[side]["tokenizer_model"])) for side in SIDES]
            return tuple(vocabulary_size(library, path.read_bytes()) for library, path in tokenizers)

    def reading(self, side: str, library: str) -> dict[str, bool]:
        """Return the switches of the first teacher's tokenizer by which the same file reads text otherwise.

        Args:
            side: `encoder` or `decoder`.
            library: of its tokenizer; a switch that NeMo does not read for it is left out.
        """
        section = self.config.get(f"{side}_tokenizer") or {}
        return {key: True for key in _READING if section.get(key) and library in READ_FOR[key]}

    @functools.cached_property
    def has_two_tokenizers(self) -> bool:
        """Whether the first teacher reads its source with another tokenizer than it writes its target with."""
        with self._extracted() as found:
            return len({sha256(found[side]["tokenizer_model"]) for side in SIDES}) > 1

    def tokenizer_overrides(self, directory: Path) -> list[str]:
        """Take the tokenizers out of the first teacher; return the overrides that make a student read text alike.

        Args:
            directory: for the tokenizers; those of another teacher that lie there stay, and these go beside it.
        """
        plain = OmegaConf.to_container(self.config)
        languages = {key: getattr(self.languages, side) or plain.get(key) for side, key in LANGUAGE_KEYS.items()}
        languages = {key: language or None for key, language in languages.items()}
        overrides = [setting(f"model.{key}", language) for key, language in languages.items()]
        if not all(language in (None, "ignore") for language in languages.values()):  # the twin reads as the students
            overrides.append("data.processing=languages")
        with self._extracted() as found:
            files = {side: Path(found[side]["tokenizer_model"]) for side in SIDES}
            kept = _place_of(files, directory)
            with locked(kept):
                for side, path in files.items():
                    if not os.path.lexists(kept / path.name):
                        with atomic_path(kept / path.name) as partial:
                            partial.write_bytes(path.read_bytes())
                    overrides.append(setting(f"model.{side}_tokenizer.library", found[side]["library"]))
                    overrides.append(setting(f"model.{side}_tokenizer.tokenizer_model", kept / path.name))
                    switches = self.reading(side, found[side]["library"])
                    overrides += [f"++model.{side}_tokenizer.{key}=true" for key in switches]
        return ["data.tokenizer=null", *overrides]

    @contextlib.contextmanager
    def _extracted(self, number: int = 0) -> Iterator[dict[str, dict[str, str]]]:
        """The sections of a teacher's tokenizers, by side, whose files are there for the length of the block."""
        from nemo_distill.archives.restore import extract_tokenizers

        with TemporaryDirectory() as new:
            yield extract_tokenizers(self.paths[number], new, trust=self.trust_archive)


def _languages_of(path: str, config: DictConfig, languages: Languages, pair: Languages) -> Languages:
    """Return what must be said of a teacher's text: what is, and of several languages the one of the corpus."""
    side = listed_side(config)
    if side is None:
        return languages
    asked, known = getattr(languages, side) or getattr(pair, side), listed_languages(config)
    if asked not in known:
        raise InputError(
            f"recipe.teacher_{side}: '{path}' has several {side} languages, {', '.join(known)}, and none is "
            f"{asked!r}; say which is that of the corpus, --set teacher_{side}={known[0]} for example"
        )
    return replace(languages, **{side: asked})


def _place_of(files: dict[str, Path], directory: Path) -> Path:
    """Return the directory for tokenizers: this one, or one beside it where others lie here.

    Raises:
        InputError: there, too.
    """
    hashes = {path.name: sha256(path) for path in files.values()}
    beside = directory.with_name("-".join([directory.name, *(digest[:6] for digest in hashes.values())]))
    for place in (directory, beside):
        there = {name for name in hashes if os.path.lexists(place / name)}
        if all(sha256(place / name) == hashes[name] for name in there):
            return place
    raise InputError(f"the tokenizers in '{beside}' have changed; remove it")
