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
"""Which text, tokenizers and teachers a run was begun with: it goes on with the same ones, by their content."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nemo_distill.archives.ngc import cache_path, known_names
from nemo_distill.archives.reader import archive_sha256
from nemo_distill.config.mixture import ComponentConfig, as_list, label_names
from nemo_distill.config.reading import inner_section
from nemo_distill.data.mixing.tarred import shard_paths
from nemo_distill.data.tokens.store import is_large
from nemo_distill.errors import InputError
from nemo_distill.support.files import known_sha256, write_json_atomic
from nemo_distill.support.incoming import read_json
from nemo_distill.support.manifest import MANIFEST
from nemo_distill.support.records import faults_of

INPUTS_FILE = "inputs.json"
_TEXT_KEYS = ("src_file_name", "tgt_file_name", "metadata_file")
_SHARDS = "tar_files"


def input_hashes(model: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the SHA-256 of each file that a run reads, by the key of its `model` section that names it.

    Of a cache that is its manifest, which has the hashes of the rest. The place of a file does not count. What is
    missing or of a wrong type is left to those who read it.

    Raises:
        InputError: a file cannot be read.
    """
    return {
        key: [
            archive_sha256(path) if path.suffix == ".nemo" else known_sha256(path) for path in paths if path.exists()
        ]
        for key, paths in _input_files(model)
    }


def has_large_text(model: Mapping[str, Any]) -> bool:
    """Return whether a run is trained on text files of so many bytes, uncompressed, that their ids are stored."""
    found = (
        path
        for key, paths in _input_files(model)
        if key.startswith(("train_ds", "distillation.mixture")) and not key.endswith(("metadata_file", _SHARDS))
        for path in paths
        if path.is_file()
    )
    return is_large(found)


def _input_files(model: Mapping[str, Any]) -> Iterator[tuple[str, list[Path]]]:
    """Yield the keys of a `model` section that name files, and these files."""
    components = inner_section(model, "distillation", "mixture", "components")
    places = [((f"{side}_tokenizer",), ("tokenizer_model",)) for side in ("encoder", "decoder")]
    for name in ("validation_ds", "test_ds") if components else ("train_ds", "validation_ds", "test_ds"):
        places.append(((name,), _TEXT_KEYS))
    for name in components:
        place = ("distillation", "mixture", "components", name)
        places.append((place, ("source", "target", "metadata_file")))
        for labels in _paths(inner_section(model, *place).get("directory")):
            names = [name for pair in label_names(labels) for name in pair]
            yield f"{'.'.join(map(str, place))}.directory", [labels / name for name in names]
    places += [(("distillation", "teacher"), ("model_path",)), (("distillation", "init"), ("from_nemo",))]
    for place, keys in places:
        section = inner_section(model, *place)
        for key, paths in ((_SHARDS, _shards(section)), *((key, _paths(section.get(key))) for key in keys)):
            if paths:
                yield f"{'.'.join(map(str, place))}.{key}", paths
    name = inner_section(model, "distillation", "teacher").get("model_name")
    if name is not None and name in known_names():
        yield "distillation.teacher.model_name", [cache_path(name)]
    for cache in _paths(inner_section(model, "distillation", "teacher").get("cache")):
        yield "distillation.teacher.cache", [cache / MANIFEST]


def _shards(section: Mapping[str, Any]) -> list[Path]:
    """Return the shards of the tarred set that a section names, whose metadata says nothing of what is in them."""
    metadata, shards = (as_list(section.get(key)) for key in ("metadata_file", "tar_files"))
    if len(metadata) != 1 or not all(isinstance(each, str) and each for each in (*metadata, *shards)):
        return []
    try:
        return shard_paths(ComponentConfig(metadata_file=metadata[0], tar_files=section.get("tar_files")))
    except InputError:
        return []


def _paths(value: Any) -> list[Path]:
    return [Path(each) for each in as_list(value) if isinstance(each, str) and each and "\0" not in each]


def refuse_changed_inputs(directory: Path, hashes: Mapping[str, list[str]]) -> None:
    """Refuse to go on with a run whose text, tokenizers or teachers are other ones than it was begun with.

    Raises:
        InputError: the message names the keys.
    """
    path = directory / INPUTS_FILE
    if not path.exists():  # a new run, or one of an earlier version
        return
    noted = read_json(path)
    if any(faults_of(dict[str, list[str]], noted)):
        raise InputError(f"'{path}' is damaged; remove it to go on without the comparison of data and teachers")
    changed = sorted(
        key
        for key in {*noted, *hashes}
        if noted.get(key) != hashes.get(key)
        and (key in noted or not key.endswith(_SHARDS))  # which once were not noted
    )
    if changed:
        raise InputError(
            f"the run in '{directory}' was begun with other files for model.{', model.'.join(changed)}: they have "
            "changed since. Put them back, give another output_dir, or overwrite=true to train anew"
        )


def note_inputs(directory: Path, hashes: Mapping[str, list[str]]) -> None:
    """Note what a run is begun with."""
    write_json_atomic(directory / INPUTS_FILE, hashes)
