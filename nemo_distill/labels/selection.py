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
"""Hypotheses chosen anew from n-best lists that are there."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from nemo_distill.errors import InputError
from nemo_distill.labels import checks
from nemo_distill.labels.checks import DROPPED, NBEST
from nemo_distill.labels.choosing import write_selection
from nemo_distill.labels.filtering import check_least_score
from nemo_distill.labels.given import remove_shards
from nemo_distill.labels.settings import NO_SCORES, SelectionSettings
from nemo_distill.support import incoming, manifest
from nemo_distill.support.lock import locked
from nemo_distill.support.numbered import base_name, numbered, numbers_for, numbers_in
from nemo_distill.support.warned import marked_logger

_logger = marked_logger(__name__)


def select(
    nbest_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    settings: SelectionSettings | None = None,
    *,
    overwrite: bool = False,
    progress: bool = True,
) -> tuple[dict[str, Any], bool]:
    """Choose and filter anew from the n-best lists of a finished directory; nothing is decoded.

    Args:
        nbest_dir: a directory that `pseudo_label` wrote.
        output_dir: another directory; gets the same files but `nbest.jsonl`.
        settings: what to choose; by default the likeliest hypothesis and the default filters.
        overwrite: replace another run in `output_dir`.
        progress: show a progress bar.

    Returns:
        The manifest, and whether the directory was already finished and nothing had to be done.

    Raises:
        InputError: `nbest_dir` is not such a directory, is not finished, or changes meanwhile; bad settings;
            `output_dir` is taken or in use.

    Example:
        >>> select("labels", "labels-bleu", SelectionSettings("closest-bleu", "train.en"))  # doctest: +SKIP
    """
    settings = settings or SelectionSettings()
    source, directory = Path(nbest_dir), Path(output_dir)
    if os.path.realpath(directory) == os.path.realpath(source):
        raise InputError(f"'{output_dir}' holds the n-best lists themselves; give another output directory")
    labelled = _read_labelled(source)
    if settings.target is not None and labelled["request"].get("disturb") is not None:
        raise InputError(f"target: the labels in '{source}' are of disturbed copies, which have no gold translations")
    if settings.tests and labelled["request"].get("disturb") is not None:
        raise InputError(f"tests: the labels in '{source}' are of disturbed copies, in which no test line is found")
    if settings.select == "closest-bleu" and settings.target_language is None:
        settings = replace(settings, target_language=(labelled.get("languages") or {}).get("target"))
    if "hypotheses" not in labelled["request"]:
        check_least_score(settings.filters)
    lines, num_hypotheses = labelled["counts"]["lines"], checks.check_nbest_request(labelled, source)
    name, found = NBEST + checks.suffix_in(labelled), numbers_in(labelled["files"])
    nbest = [numbered(name, number) for number in found]
    digests = [labelled["files"][each]["sha256"] for each in nbest]
    request = {"verb": "select", "nbest": digests if len(digests) > 1 else digests[0], **settings.request()}
    processed = checks.has_processed(labelled)
    if "languages" not in labelled and "teachers" in labelled["request"]:
        _logger.warning(
            "the labels in '%s' are of an earlier release: where the teacher normalizes and tokenizes text (Moses), "
            "they lack the text that training should read; make them anew",
            source,
        )
    filters = settings.filters
    if (
        (filters.drop_cut or filters.drop_unknown)
        and "teachers" in labelled["request"]
        and "nbest_format" not in labelled
    ):
        _logger.warning(
            "the labels in '%s' are of an earlier release, which noted less of what is unknown or cut; make them anew",
            source,
        )
    numbers = numbers_for(lines, settings.lines_per_file)
    names = checks.file_names(processed, DROPPED, suffix=settings.suffix, numbers=numbers)
    with locked(directory):
        manifest.refuse_inputs_as_outputs(settings.inputs, [directory / name for name in names])
        if finished := manifest.find_finished(directory, request, overwrite):
            checks.check_manifest(finished, directory, names)
            return finished, True
        settings.check(lines, num_hypotheses, request)
        if settings.filters.min_score is not None and labelled["request"].get("scores") is False:
            raise InputError(f"{NO_SCORES}: those of '{nbest_dir}' have none")
        remove_shards(manifest.claim(directory, names, overwrite), overwrite)
        manifest.start_run(directory, names, overwrite)
        where = [source / each for each in nbest], digests, directory
        facts = write_selection(
            *where, settings, lines, progress, request, processed, checks.reads_processed(labelled["request"])
        )
        kept = ("engine", "languages", "input_name", "teacher_names", "tokenizers", "disturb")
        details = {key: labelled[key] for key in kept if key in labelled}
        return manifest.finish_run(directory, request, names, {**details, **facts}), False


def _read_labelled(source: Path) -> dict[str, Any]:
    """Return the manifest of a finished directory of `pseudo-label`, whose files have the hashes that it lists."""
    content = incoming.read_json(source / manifest.MANIFEST) if (source / manifest.MANIFEST).is_file() else {}
    request = content.get("request") if isinstance(content, dict) else None
    found = manifest.find_finished(source, request) if isinstance(request, dict) else None
    if found is None or NBEST not in map(base_name, found["files"]):
        raise InputError(f"'{source}' holds no finished n-best lists; give a directory of `nemo-distill pseudo-label`")
    checks.check_manifest(found, source, checks.listed_names(found, NBEST, DROPPED))
    return found
