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
"""What an archive of an older NeMo means: keys that it does not have, with the meaning that they had then.

Read in NeMo's history, tags v1.0.0rc1 to v2.4.0. The version is in archives since 1.7 (`nemo_version`). Without it,
`shared_embeddings`, a key since 1.6, tells 1.6 from what came before, and `tokenizer_name`, `library` since 1.0.0,
tells 1.0.0rc1.

| key | before | after |
|---|---|---|
| `encoder.mask_future`, missing | false, up to 1.5 | true, from 1.6; in bottleneck models false as before |
| `decoder.hidden_size` | not read, the encoder's, from 1.0.0 to 1.4 | read, in 1.0.0rc1 and from 1.5 |
| `num_token_types` | not read, 2, in 1.0.0rc1 | read, from 1.0.0 |
| `pre_ln_final_layer_norm`, missing | no such layer, in 1.0.0rc1 | false |
| `library` of a tokenizer, missing | `yttm` | `sentencepiece`, from 2.0 |
| latents of a perceiver, `mask_future: false` | see earlier latents only, up to 1.5 | see all, from 1.6 |
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from nemo_distill.config.reading import inner_section
from nemo_distill.support.tokenizer_guard import library_of

TOKENIZER_SECTIONS = ("encoder_tokenizer", "decoder_tokenizer")
TRANSFORMERS = ("encoder", "decoder")
_WITHOUT_FILE = "yttm"
"""What a missing library meant up to NeMo 1.23; it needs a file, so a model without one cannot be opened."""


@dataclass(frozen=True)
class Generation:
    """The release of NeMo that wrote an archive, as far as it tells."""

    release: tuple[int, int]
    """Of `nemo_version`; or (1, 6), (1, 5) and (1, 0), the latest that writes such an archive without it."""
    told_by: str
    first: bool = False
    """Of 1.0.0rc1."""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Generation":
        """Return the generation of a model's configuration, plain data that nobody has checked."""
        sections = [inner_section(plain, key) for key in TOKENIZER_SECTIONS]
        first = any("tokenizer_name" in section and "library" not in section for section in sections)
        if version := re.match(r"(\d{1,4})\.(\d{1,4})(?!\d)", str(plain.get("nemo_version"))[:40]):
            return cls((int(version[1]), int(version[2])), f"nemo_version is {version[0]}", first)
        if "shared_embeddings" in plain:
            return cls((1, 6), "it has shared_embeddings, which is of NeMo 1.6, and no nemo_version, which is of 1.7")
        if first:
            return cls((1, 0), "it has tokenizer_name in place of library, which is of NeMo 1.0.0rc1", first)
        return cls((1, 5), "it has neither nemo_version, which is of NeMo 1.7, nor shared_embeddings, of 1.6")


def _is_nemo(section: Mapping[str, Any]) -> bool:
    return section.get("library") in (None, "nemo")


def say_old_meanings(plain: dict[str, Any], artifacts: Mapping[str, bytes], bottleneck: bool) -> list[str]:
    """Put what an archive leaves unsaid into its configuration, in place, with the meaning that it had when written.

    Args:
        plain: the model's configuration, plain data that nobody has checked.
        artifacts: the archive's files by their names.
        bottleneck: whether the model is an `MTBottleneckModel`.

    Returns:
        A line for each key whose meaning has changed since, for the log.
    """
    generation = Generation.of(plain)
    notes = []
    encoder, decoder = (plain.get(key) for key in TRANSFORMERS)
    for side in (encoder, decoder):
        if not (isinstance(side, dict) and _is_nemo(side)):
            continue
        side.setdefault("pre_ln_final_layer_norm", False)
        if generation.first and _is_count(side.get("num_token_types")) and side["num_token_types"] != 2:
            notes.append(f"num_token_types is 2 and not {side['num_token_types']}, which was not read then")
            side["num_token_types"] = 2
    if isinstance(encoder, dict) and _is_nemo(encoder) and "mask_future" not in encoder:
        encoder["mask_future"] = generation.release >= (1, 6) and not encoder.get("arch")
        if not encoder.get("arch"):
            notes.append(f"encoder.mask_future is missing and taken as {str(encoder['mask_future']).lower()}")
    if not bottleneck and not generation.first and generation.release <= (1, 5) and _sizes_differ(encoder, decoder):
        notes.append(f"decoder.hidden_size is the encoder's and not {decoder['hidden_size']}, which was not read then")
        decoder["hidden_size"] = encoder["hidden_size"]
    for key in TOKENIZER_SECTIONS:
        if isinstance(plain.get(key), dict):
            _tell_library(plain[key], artifacts)
    return [f"{note}: {generation.told_by}" for note in notes]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 1 << 20


def _sizes_differ(encoder: Any, decoder: Any) -> bool:
    if not all(isinstance(side, dict) and _is_nemo(side) for side in (encoder, decoder)):
        return False
    sizes = [side.get("hidden_size") for side in (encoder, decoder)]
    return all(map(_is_count, sizes)) and sizes[0] != sizes[1]


def _tell_library(tokenizer: dict[str, Any], artifacts: Mapping[str, bytes]) -> None:
    """Put the library of a tokenizer into its section, in place: what the bytes of its model are."""
    if tokenizer.get("library") is None:
        content = artifacts.get(member_of(tokenizer.get("tokenizer_model")))
        tokenizer["library"] = _WITHOUT_FILE if content is None else library_of(content)


def member_of(value: Any) -> str:
    """Return the name in the archive of a file that a configuration names.

    Archives of old releases hold the path of the training machine; the file is in the archive all the same.
    """
    given = "" if value is None else str(value)
    return given.removeprefix("nemo:") if given.startswith("nemo:") else PurePosixPath(given).name


def latents_look_back(plain: Mapping[str, Any]) -> bool:
    """Return whether a perceiver's latents see only earlier ones in an encoder that does not mask the future.

    So they did up to NeMo 1.5. NeMo from 1.6 on computes otherwise, whatever the configuration says.
    """
    encoder = inner_section(plain, "encoder")
    old = Generation.of(plain).release < (1, 6)
    return old and encoder.get("arch") == "perceiver" and encoder.get("mask_future") is False
