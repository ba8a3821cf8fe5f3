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
"""Test sets by name: those that sacreBLEU knows, downloads and keeps, checked before they are used.

sacreBLEU compares an archive with its MD5 only when it downloads it, and unpacks it only then. Here an archive that
lies in its cache is compared each time, and one that was put there by hand, or not unpacked to its end, is unpacked.
"""

import difflib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from sacrebleu.dataset import DATASETS
from sacrebleu.utils import (
    extract_tarball,
    get_available_testsets,
    get_langpairs_for_testset,
    get_reference_files,
    get_source_file,
)

from nemo_distill.data.bleu_tokenizer import sacrebleu_call
from nemo_distill.errors import InputError
from nemo_distill.support.incoming import open_regular

_BLOCK_BYTES = 1 << 20


def is_named_set(name: str) -> bool:
    """Return whether sacreBLEU knows a test set of this name.

    Example:
        >>> is_named_set("wmt14/full")
        True
    """
    return name in DATASETS


def check_named_set(name: str, pair: str | None) -> None:
    """Make sure that sacreBLEU knows a test set, for a pair of languages, such as `de-en`, if one is given.

    Raises:
        InputError: it does not.
    """
    if not is_named_set(name):
        near = difflib.get_close_matches(name, get_available_testsets(), n=3, cutoff=0.5)
        meant = f"did you mean {' or '.join(near)}?" if near else f"it knows {', '.join(get_available_testsets())}"
        raise InputError(
            f"test set '{name}': sacreBLEU knows none of this name; {meant} (files: name:source-file:target-file)"
        )
    pairs = get_langpairs_for_testset(name)
    if pair is not None and pair not in pairs:
        raise InputError(f"test set '{name}' has not the languages {pair}; it has {', '.join(sorted(pairs))}")


def named_set_files(name: str, pair: str) -> tuple[str, list[str]]:
    """Return the source file and the reference files of a test set, in sacreBLEU's cache; download what is missing.

    The references are those that sacreBLEU itself scores with.

    Args:
        name: of the set, as `check_named_set` knows it.
        pair: of the set.

    Raises:
        InputError: it cannot be downloaded, or what lies in the cache is not what sacreBLEU expects.
    """
    archives = list(_archives(name))
    for _, archive, md5 in archives:
        if archive.exists() and archive.stat().st_size and md5 not in (None, _md5(archive)):
            raise InputError(
                f"'{archive}' is not the archive of sacreBLEU's test set {name} (its MD5 is not {md5}); remove it, "
                "and run the same command again"
            )
    absent = [(url, archive) for url, archive, _ in archives if not archive.exists()]
    listed = "; ".join(f"{url} as {archive}" for url, archive in absent)
    fix = f"fetch it elsewhere and put it there: {listed} (SACREBLEU names another directory for all sets)"
    if not absent:
        fix = f"remove '{archives[0][1].parent.parent}', which sacreBLEU makes again"
    fault = f"test set '{name}', {pair}: sacreBLEU cannot {'download' if absent else 'read'} it"
    with sacrebleu_call(fault, fix):
        try:
            return _files(name, pair)
        except (FileNotFoundError, KeyError, ValueError):
            if absent:
                raise
            for _, archive, _ in archives:  # whose MD5 is right
                extract_tarball(str(archive), str(archive.parent))
            return _files(name, pair)


def label_of(name: str, pair: str | None) -> str:
    """Return the name of a set in results and file names, which have no slash and no full stop.

    Example:
        >>> label_of("mtnt1.1/test", None), label_of("wmt14", "de-en")
        ('mtnt1_1_test', 'wmt14_de-en')
    """
    return re.sub(r"[^\w-]", "_", name if pair is None else f"{name}_{pair}")


def _files(name: str, pair: str) -> tuple[str, list[str]]:
    # sacreBLEU lists the references of a WMT21 set in the order of a Python set
    return get_source_file(name, pair), sorted(get_reference_files(name, pair))


def _archives(name: str) -> Iterator[tuple[str, Path, str | None]]:
    """Yield address, place in the cache and MD5 of each archive of a set."""
    dataset = DATASETS[name]
    for number, url in enumerate(dataset.data):
        yield (
            url,
            Path(dataset._rawdir, dataset._get_tarball_filename(url)),
            dataset.md5[number] if dataset.md5 else None,
        )


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open_regular(path) as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
