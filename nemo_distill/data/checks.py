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
"""Check the files that a model's configuration names, parallel text above all, before NeMo reads them.

NeMo cuts a longer target file silently, fails with an IndexError on a shorter one, and with less on an empty one.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_distill.config.mixture import ComponentConfig, MixtureConfig, label_names
from nemo_distill.data.languages import (
    component_faults,
    listed_languages,
    listed_side,
    multilingual_faults,
    set_places,
)
from nemo_distill.data.mixing.tarred import is_tarred, shard_paths
from nemo_distill.data.tokenizer import LIBRARIES, library_of, missing_marks
from nemo_distill.errors import InputError
from nemo_distill.support import compat
from nemo_distill.support.files import known_sha256, sha256
from nemo_distill.support.incoming import read_json
from nemo_distill.support.manifest import MANIFEST, is_unfinished, noted_hashes
from nemo_distill.support.quoting import plain_text
from nemo_distill.support.text_files import count_lines, measure_text
from nemo_distill.support.warned import warn_once

_DATASETS = ("train_ds", "validation_ds", "test_ds")
_CACHES = ("use_cache", "cache_ids", "cache_data_per_node")
"""With them NeMo unpickles what lies beside the text, and writes there."""
_TOKENIZERS = ("encoder_tokenizer", "decoder_tokenizer")
READ_FOR = {
    "bpe_dropout": ("yttm",),
    "r2l": ("yttm",),
    "sentencepiece_legacy": ("sentencepiece",),
    "tokenizer_model": tuple(LIBRARIES),
}
"""The libraries of tokenizers for which NeMo reads a key; `huggingface` and `megatron` take `encoder.model_name`."""
_IN_ARCHIVE = "nemo:"
"""How an archive's configuration names a file of the archive."""


def check_model_files(model_config: Mapping[str, Any], mixture: MixtureConfig | None = None) -> None:
    """Check the tokenizers and every plain-text data set of a `model` section; tarred data sets are left to NeMo.

    Of text with decomposed letters it warns.

    Args:
        model_config: a `model` section. Where its `distillation` section has a mixture, the files of `train_ds` are
            not read, and not checked.
        mixture: the mixture, if it has been read: its files are checked too.

    Raises:
        InputError: a file is missing, or text is empty, not UTF-8, or differs in length between source and target;
            lists every fault.
    """
    faults = multilingual_faults(model_config)
    for section in _TOKENIZERS:
        path = (model_config.get(section) or {}).get("tokenizer_model")
        if path and str(path).startswith(_IN_ARCHIVE):
            continue
        if path and not os.path.lexists(path):
            faults.append(f"model.{section}.tokenizer_model: no file {path}; `nemo-distill tokenizer` makes one")
        elif path:
            faults += _library_faults(f"model.{section}", path, model_config[section])
        faults += _unread_faults(section, path, model_config.get(section) or {})
    if model_config.get("shared_embeddings") and not faults:
        faults += _tied_faults(*((model_config.get(section) or {}).get("tokenizer_model") for section in _TOKENIZERS))
    for section in _DATASETS:
        asked = [key for key in _CACHES if (model_config.get(section) or {}).get(key)]
        faults += [f"model.{section}.{key}: runs code in a file beside the text; leave it out" for key in asked]
    mixed = mixture or (model_config.get("distillation") or {}).get("mixture")
    train_ds = {} if mixed else model_config.get("train_ds") or {}
    files = _as_list(train_ds.get("metadata_file" if is_tarred(train_ds) else "src_file_name"))
    lost = "NeMo's ConcatDataset reads less of in each epoch, until its shares are NaN"
    if len(files) > 1 and is_tarred(train_ds):
        faults.append(
            f"model.train_ds.metadata_file: got {len(files)} tarred sets, which {lost}; give one set, or those of a "
            "student as distillation.mixture.components"
        )
    elif len(files) > 1 and train_ds.get("concat_sampling_technique"):
        faults.append(
            f"model.train_ds.concat_sampling_technique: is given for {len(files)} files, which {lost}; leave it out "
            "(files in a list are one corpus), or give those of a student as distillation.mixture.components, with "
            "probabilities"
        )
    if (model_config.get("distillation") or {}).get("mixture"):
        faults += _batch_faults("model.train_ds", model_config.get("train_ds") or {}, mixed=True)
    for section in _DATASETS[1:] if mixed else _DATASETS:
        dataset = model_config.get(section)
        if dataset and not is_tarred(dataset):
            faults += _dataset_faults(f"model.{section}", dataset)
    for name, component in mixture.components.items() if mixture else ():
        faults += _component_faults(f"distillation.mixture.components.{name}", component)
    faults += component_faults(model_config, mixture) if mixture else []
    for name, component in mixture.components.items() if mixture and not faults else ():
        faults += _label_language_faults(f"distillation.mixture.components.{name}", component, model_config)
    if listed_languages(model_config) and not faults:
        faults += _language_faults(model_config, _DATASETS[1:] if mixed else _DATASETS)
    if faults:
        raise InputError("\n  ".join(dict.fromkeys(faults)))


def _language_faults(model_config: Mapping[str, Any], sections: Sequence[str]) -> list[str]:
    """Return what the data sets of a multilingual model say wrongly of their languages."""
    faults = []
    for section in sections:
        try:
            if model_config.get(section):
                set_places(listed_languages(model_config), section, model_config[section])
        except InputError as error:
            faults.append(str(error))
    return faults


def _library_faults(where: str, path: str, section: Mapping[str, Any]) -> list[str]:
    library = section.get("library")
    if library is not None and library not in LIBRARIES:  # of another kind, which NeMo reads
        return []
    try:
        found = library_of(path)
    except InputError as error:
        return [f"{where}.tokenizer_model: {error}"]
    if library not in (None, found):
        return [f"{where}.library: {library}, but {path} is a {found} model; give {found}, or null"]
    if found not in compat.TOKENIZER_LIBRARIES:
        return [f"{where}.tokenizer_model: {path} is a {found} model, but {compat.NO_YTTM}"]
    legacy = section.get("sentencepiece_legacy")  # NeMo adds what is missing
    missing = missing_marks(path) if found == "sentencepiece" and not legacy else []
    if missing:
        return [
            f"{where}.tokenizer_model: {path} has no {', '.join(missing)} (-1), which training needs; train one with "
            "`nemo-distill tokenizer`, or with --pad_id=0 --unk_id=1 --bos_id=2 --eos_id=3"
        ]
    return []


def _unread_faults(section: str, path: str | None, tokenizer: Mapping[str, Any]) -> list[str]:
    """Return what a tokenizer's section asks for that NeMo reads for another library alone."""
    library = tokenizer.get("library")
    if library is None:
        try:
            library = library_of(path) if path else None
        except InputError:  # said already
            return []
    return [
        f"model.{section}.{key}: got {plain_text(tokenizer[key], 100)}, which NeMo reads for {' and '.join(readers)} "
        f"alone, and this one's library is {plain_text(library, 40)}; leave it out"
        for key, readers in READ_FOR.items()
        if tokenizer.get(key) and library not in (None, *readers)
    ]


def _tied_faults(source: str | None, target: str | None) -> list[str]:
    if not (source and target) or str(source).startswith(_IN_ARCHIVE) or sha256(source) == sha256(target):
        return []
    return [
        f"model.shared_embeddings: true makes one vector of each id for source and target, and {source} and {target} "
        "have different words at the same ids; give one tokenizer for both sides, or shared_embeddings: false"
    ]


def _component_faults(where: str, component: ComponentConfig) -> list[str]:
    if component.metadata_file:
        try:
            shard_paths(component)
        except InputError as error:
            return [f"{where}: {error}"]
        return []
    if component.directory and is_unfinished(component.directory):
        return [f"{where}.directory: the labels in {component.directory} are unfinished; run the same command again"]
    try:
        sources, targets = zip(*component.text_files, strict=True)
    except InputError as error:
        return [f"{where}.directory: {error}"]
    lacking = [pair for pair in zip(sources, targets, strict=True) if not all(map(os.path.isfile, pair))]
    if component.directory and lacking:
        return [
            f"{where}.directory: {component.directory} does not hold "
            f"{' and '.join(map(os.path.basename, lacking[0]))}, which `nemo-distill pseudo-label` writes"
        ]
    if component.directory and (faults := changed_label_faults(f"{where}.directory", component.directory)):
        return faults
    return _pair_faults(where, sources, targets, ("source", "target"))


def changed_label_faults(where: str, directory: str) -> list[str]:
    """Return what pseudo-labels have that is not as their manifest says; nothing without a manifest.

    Args:
        where: names the directory, for messages.
        directory: of the labels.
    """
    try:
        names = [name for pair in label_names(directory) for name in pair]
        hashes = noted_hashes(directory, names)
        if hashes is None:
            return []
        changed = [
            name for name, wanted in zip(names, hashes, strict=True) if known_sha256(Path(directory, name)) != wanted
        ]
        if changed:
            return [
                f"{where}: '{Path(directory, name)}' has changed since it was written; make the labels anew "
                "(--overwrite)"
                for name in changed
            ]
        counts = read_json(Path(directory, MANIFEST)).get("counts", {})
        kept = counts.get("pairs", counts.get("kept")) if isinstance(counts, dict) else None
        found = sum(count_lines(Path(directory, name)) for name in names[::2])
        if kept not in (None, found) or isinstance(kept, bool):
            more = f" and the others have {found}" if len(names) > 2 else f" has {found}"
            return [
                f"{where}: the manifest counts {plain_text(str(kept), 40)} lines, {names[0]}{more}; make the "
                "labels anew (--overwrite)"
            ]
        return []
    except InputError as error:
        return [f"{where}: {error}"]


def _label_language_faults(where: str, component: ComponentConfig, model_config: Mapping[str, Any]) -> list[str]:
    """Return whether pseudo-labels were made in another language than their component says."""
    if not component.directory or component.language is None:
        return []
    content = read_json(Path(component.directory, MANIFEST)) if Path(component.directory, MANIFEST).is_file() else {}
    noted = content.get("languages") if isinstance(content, dict) else None
    made_in = noted.get(listed_side(model_config)) if isinstance(noted, dict) else None
    if made_in in (None, "ignore", component.language):
        return []
    return [
        f"{where}.language: got '{component.language}', and the labels in {component.directory} were made in "
        f"{plain_text(str(made_in), 40)}"
    ]


def _dataset_faults(where: str, dataset: Mapping[str, Any]) -> list[str]:
    sources, targets = _as_list(dataset.get("src_file_name")), _as_list(dataset.get("tgt_file_name"))
    if len(sources) != len(targets) or not sources:
        return [
            f"{where}: got {len(sources)} src_file_name and {len(targets)} tgt_file_name; give one target file for "
            "each source file"
        ]
    return _batch_faults(where, dataset) + _pair_faults(where, sources, targets, ("src_file_name", "tgt_file_name"))


def _batch_faults(where: str, dataset: Mapping[str, Any], mixed: bool = False) -> list[str]:
    tokens = dataset.get("tokens_in_batch")
    if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0:
        return []
    said = "is missing" if tokens is None else f"got {plain_text(tokens, 80)}"
    taken = "a mixture takes it from there; " if mixed else ""
    return [f"{where}.tokens_in_batch: {said}; {taken}give the tokens of a batch with its padding, such as 4096"]


def _pair_faults(where: str, sources: Sequence[str], targets: Sequence[str], keys: tuple[str, str]) -> list[str]:
    faults = []
    for pair in zip(sources, targets, strict=True):
        source, target = pair
        counts = [_count_lines(path, f"{where}.{key}", faults) for path, key in zip(pair, keys, strict=True)]
        if None not in counts and counts[0] != counts[1]:
            faults.append(
                f"{where}: {source} has {counts[0]} lines, {target} has {counts[1]}; line n of one must translate "
                "line n of the other"
            )
    return faults


def _as_list(names: Any) -> list[str]:
    if names is None:
        return []
    return [names] if isinstance(names, str) else list(names)


def _count_lines(name: str, where: str, faults: list[str]) -> int | None:
    """Return the number of lines; None, and a fault, where the file cannot serve."""
    if not os.path.lexists(name):
        faults.append(f"{where}: no file {name}")
        return None
    try:
        count, has_text, decomposed = measure_text(name)
    except InputError as error:
        faults.append(f"{where}: {error}")
        return None
    if not has_text:
        faults.append(f"{where}: {name} is empty ({count} lines, no text)")
        return None
    if warning := decomposed.warning(f"{where}: '{name}'"):
        from nemo.utils.get_rank import is_global_rank_zero  # seconds, which wrong paths are told without

        if is_global_rank_zero():
            warn_once(warning)
    return count
