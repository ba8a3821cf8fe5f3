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
"""The Multi30k image captions, from files that the user has fetched (see `docs/corpora.md`), in the corpus layout."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemo_distill.data.corpora import corpus
from nemo_distill.errors import InputError
from nemo_distill.support import files, text_files
from nemo_distill.support.compressed import SUFFIXES

LICENCE = "non-commercial use only; see https://github.com/multi30k/dataset"

_PREFIXES = {"train": "train", "valid": "val", "test": "test_2016_flickr"}


def build(
    directory: str | os.PathLike, source: str, target: str, output_dir: str | os.PathLike, *, overwrite: bool = False
) -> tuple[dict[str, Any], bool]:
    """Write the training, validation and 2016 test set of one language pair with a manifest; lines stay as they are.

    Args:
        directory: holds `train.de.gz`, `val.de.gz`, `test_2016_flickr.de.gz` and so on, in `.zst`, or plain.
        source: language code of the source side.
        target: language code of the target side.
        output_dir: directory to write.
        overwrite: replace another run in `output_dir`.

    Returns:
        The manifest, and whether the directory was already finished and nothing had to be done.

    Raises:
        InputError: files are missing (all are named), unequal, empty or not UTF-8; output directory taken.
    """
    corpus.check_languages(source, target)
    found = _find(Path(directory), (source, target))
    inputs = {path.name: files.sha256(path) for path in found.values()}
    request = {"corpus": "multi30k", "source": source, "target": target, "inputs": inputs}
    corpus.refuse_inputs_as_outputs(found.values(), output_dir, source, target)
    return corpus.write(output_dir, request, lambda: _select(found, request), overwrite)


def _select(
    found: Mapping[tuple[str, str], Path], request: Mapping[str, Any]
) -> tuple[dict[str, list[corpus.Pair]], dict[str, Any]]:
    """Return the pairs of each split and what the manifest tells about them."""
    languages = request["source"], request["target"]
    splits = {
        split: _read(split, [found[split, language] for language in languages], request["inputs"])
        for split in corpus.SPLITS
    }
    return splits, {"licence": LICENCE, "splits": {split: {"pairs": len(pairs)} for split, pairs in splits.items()}}


def _read(split: str, paths: list[Path], hashes: dict[str, str]) -> list[corpus.Pair]:
    wanted = tuple(hashes[path.name] for path in paths)
    return [corpus.Pair(split, *pair) for pair in text_files.read_parallel(*paths, sha256=wanted)]


def _find(directory: Path, languages: tuple[str, str]) -> dict[tuple[str, str], Path]:
    if not directory.is_dir():
        raise InputError(f"--from '{directory}' is not a directory; give the one that holds the files of Multi30k")
    found, missing = {}, []
    for split, prefix in _PREFIXES.items():
        for language in languages:
            candidates = [directory / f"{prefix}.{language}{suffix}" for suffix in (*SUFFIXES, "")]
            path = next((candidate for candidate in candidates if candidate.is_file()), None)
            if path is None:
                missing.append(candidates[0].name)
            else:
                found[split, language] = path
    if missing:
        raise InputError(
            f"'{directory}' lacks {', '.join(missing)} (each may be uncompressed too); fetch them from "
            "data/task1/raw of https://github.com/multi30k/dataset"
        )
    return found
