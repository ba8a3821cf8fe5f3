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
"""What an evaluation is asked to do, checked before any model is loaded: models, test sets, settings, comparisons."""

import copy
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from sacrebleu.metrics import BLEU, CHRF

from nemo_distill.archives.reader import archive_digest
from nemo_distill.archives.restore import read_archive_config
from nemo_distill.config.languages import Languages
from nemo_distill.data.languages import chosen_language, listed_side
from nemo_distill.decoding.foreign_engine import default_settings
from nemo_distill.decoding.foreign_files import ForeignModel, is_foreign, read_foreign
from nemo_distill.errors import InputError
from nemo_distill.evaluation.results import MODEL_LABEL, TEST_SET_NAME, TestSetResult
from nemo_distill.support.device import choose_device
from nemo_distill.support.files import read_parallel, sha256

_SHORT = {"zho": "zh", "jpn": "ja"}  # where sacreBLEU's tokenizer depends on it
_SECTIONS = ("encoder_tokenizer", "decoder_tokenizer", "encoder", "decoder", "head")


@dataclass(frozen=True)
class TestSet:
    """A named pair of aligned text files."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    name: str
    source: str
    target: str
    languages: Languages | None = None
    """Of this set, in place of what is said for all; needed where a model has several."""

    @classmethod
    def parse(cls, text: str) -> "TestSet":
        """Read `name:source:target`, or `name:source:target:source-language:target-language`.

        Raises:
            InputError: there are not three or five parts, or a language is none.

        Example:
            >>> TestSet.parse("wmt20:wmt20.de:wmt20.en")
            TestSet(name='wmt20', source='wmt20.de', target='wmt20.en')
        """
        parts = text.split(":")
        if len(parts) not in (3, 5) or not all(parts):
            raise InputError(
                f"test set '{text}': write it as name:source-file:target-file, for example t:test.de:test.en, or with "
                "the languages of this set behind it, t:test.de:test.en:de:en"
            )
        languages = Languages(*parts[3:]) if parts[3:] else None
        if languages and (faults := languages.faults("%s language")):
            raise InputError(f"test set '{text}': {'; '.join(faults)}")
        return cls(parts[0], *map(os.path.expanduser, parts[1:3]), languages)


@dataclass
class ModelInput:
    """A model to evaluate, not yet loaded."""

    label: str
    path: Path
    config: DictConfig
    """The `model` section inside the archive."""
    sha256: str
    """Of the archive that `config` was read from; whatever opens it later asks for the same."""
    archive_bytes: int
    """Of the bytes that have this SHA-256."""
    languages: Languages = field(default_factory=Languages)
    """What the user says of its text."""
    target: str | None = None
    """The one of several target languages that is meant."""
    foreign: ForeignModel | None = None
    """Where it is no archive, but a directory; `config` has then what an archive's would say of search and target."""


@dataclass
class TestInput:
    """A test set, read."""

    result: TestSetResult
    sources: list[str]
    references: list[str]
    languages: Languages | None = None
    """As of `TestSet`."""


def bleu_tokenizer(target_language: str | None) -> str:
    """Return the sacreBLEU tokenizer for a target language, as NeMo chooses it."""
    return {"ja": "ja-mecab", "ja-mecab": "ja-mecab", "zh": "zh"}.get(target_language, "13a")


def check_settings(beam_size: int | None, batch_tokens: int, device: str | None) -> str:
    """Return the device to decode on, as `choose_device`.

    Raises:
        InputError: a number below 1, or a device that is not there.
    """
    if beam_size is not None and beam_size < 1:
        raise InputError(f"beam size is {beam_size}; give at least 1")
    if batch_tokens < 1:
        raise InputError(f"batch tokens is {batch_tokens}; give at least 1 (the default is 4096)")
    return choose_device(device)


def read_test_sets(test_sets: Sequence[TestSet | str]) -> list[TestInput]:
    """Read all test sets.

    Raises:
        InputError: none given, a bad or repeated name, or files that `read_parallel` refuses.
    """
    if not test_sets:
        raise InputError("no test set; give at least one as name:source-file:target-file")
    parsed = [TestSet.parse(item) if isinstance(item, str) else item for item in test_sets]
    _check_names(
        [item.name for item in parsed], "test set", TEST_SET_NAME, "up to 100 letters, digits and any of _ @ + = -"
    )
    tests = []
    for item in parsed:
        hashes = sha256(item.source), sha256(item.target)
        pairs = read_parallel(item.source, item.target, hashes)
        result = TestSetResult(
            name=item.name,
            source=str(item.source),
            target=str(item.target),
            source_sha256=hashes[0],
            target_sha256=hashes[1],
            sentences=len(pairs),
        )
        tests.append(
            TestInput(result, [source for source, _ in pairs], [target for _, target in pairs], item.languages)
        )
    return tests


def read_models(
    models: Sequence[str | os.PathLike], names: Sequence[str] | None, languages: Languages | None = None
) -> list[ModelInput]:
    """Check archives, and directories of other models, read their configurations and hash them; nothing is loaded.

    Args:
        models: `.nemo` archives.
        names: their labels.
        languages: of their text, in place of what they say.

    Raises:
        InputError: none given, a bad or repeated label, or a file that is not a translation model for one pair.
    """
    if not models:
        raise InputError("no model; give at least one .nemo archive")
    paths = [Path(model) for model in models]
    if names is None:
        names = [path.name.removesuffix(".nemo") for path in paths]
    if len(names) != len(paths):
        raise InputError(
            f"{len(names)} names for {len(paths)} models ({', '.join(names)}); give one name for each model"
        )
    allowed = "up to 100 letters, digits and any of . _ @ + = -"
    _check_names(names, "model", MODEL_LABEL, allowed, fix="; choose with --names")
    languages = languages or Languages()
    # codes such as eng_Latn are of a directory; archives beside it keep the languages that they name
    of_archives = Languages() if any(map(is_foreign, paths)) else languages
    return [
        _read_foreign(name, path, languages) if is_foreign(path) else _read_archive(name, path, of_archives)
        for name, path in zip(names, paths, strict=True)
    ]


def _read_archive(name: str, path: Path, languages: Languages) -> ModelInput:
    digest, size = archive_digest(path)
    config = read_archive_config(path, sha256=digest, languages=languages)
    missing = [section for section in _SECTIONS if section not in config]
    if missing:
        raise InputError(f"'{path}' is not a translation model: its configuration has no {', '.join(missing)}")
    return ModelInput(name, path, config, digest, size, languages)


def _read_foreign(name: str, path: Path, languages: Languages) -> ModelInput:
    model = read_foreign(path)
    search = default_settings(model)
    target = (languages.target or "").partition("_")[0]
    config = OmegaConf.create(
        {
            "beam_size": search.beam_size,
            "len_pen": search.length_penalty,
            "tgt_language": _SHORT.get(target, target) or None,
        }
    )
    return ModelInput(name, path, config, model.sha256, model.bytes, languages, model)


def _check_names(names: Sequence[str], what: str, pattern: re.Pattern, allowed: str, fix: str = "") -> None:
    for place, name in enumerate(names):
        if not pattern.fullmatch(name):
            raise InputError(f"{what} name '{name}': a name is made of {allowed}{fix}")
        if name in names[:place]:
            raise InputError(f"two {what}s are named '{name}'; names must differ{fix}")


def model_of_test(model: ModelInput, test: TestInput) -> ModelInput:
    """Return a model as it reads and writes one test set: in the languages of the set, where it names them.

    Raises:
        InputError: the model has not these languages, or several, and which is meant is not said.
    """
    languages = test.languages or model.languages
    owner = f"test set {test.result.name}: model {model.label}"
    if faults := languages.model_faults(model.config):
        raise InputError(f"{owner}: {'; '.join(faults)}")
    chosen = chosen_language(model.config, languages, owner)
    config = copy.deepcopy(model.config)
    if test.languages:
        for side, key in (("source", "src_language"), ("target", "tgt_language")):
            asked, known = getattr(languages, side), config.get(key)
            if isinstance(known, str) and asked is not None and known not in ("ignore", asked):
                raise InputError(
                    f"{owner} has the {side} language {known}, and the set has {asked}; leave one of them out"
                )
        languages.apply(config)
    side = listed_side(model.config)
    return replace(model, config=config, languages=languages, target=chosen if side == "target" else None)


def build_metrics(models: Sequence[ModelInput]) -> dict[str, BLEU | CHRF]:
    """Return BLEU and chrF for the models' target language.

    Raises:
        InputError: the models need different BLEU tokenizers, or theirs is not installed.
    """
    tokenizers = {model.label: bleu_tokenizer(model.target or model.config.get("tgt_language")) for model in models}
    if len(set(tokenizers.values())) > 1:
        listed = ", ".join(f"{label} {tokenizer}" for label, tokenizer in tokenizers.items())
        raise InputError(
            f"the models' target languages need different BLEU tokenizers ({listed}); evaluate them one by one"
        )
    tokenizer = tokenizers[models[0].label]
    try:
        return {"BLEU": BLEU(tokenize=tokenizer), "chrF2": CHRF()}
    except RuntimeError as error:
        raise InputError(
            f"sacreBLEU's tokenizer '{tokenizer}' is not installed: {' '.join(str(error).split())}"
        ) from error


def comparison_pairs(labels: Sequence[str], compare: Sequence[str] | None) -> list[tuple[str, str]]:
    """Return pairs of labels (system, baseline), by default every pair of models, the later against the earlier.

    Raises:
        InputError: a pair that is not `A:B` of two labels.
    """
    if compare is None:
        return [(later, earlier) for earlier, later in combinations(labels, 2)]
    pairs = []
    for text in compare:
        pair = tuple(text.split(":"))
        if len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(labels):
            raise InputError(f"comparison '{text}': write A:B with two different names out of {', '.join(labels)}")
        pairs.append(pair)
    return list(dict.fromkeys(pairs))
