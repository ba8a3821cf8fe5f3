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
"""What a run directory holds and whose it is: its configuration, its archive with the hash, what overwriting removes.

What is removed proves to be of the run whose `config.yaml` lies there: its archive by the hash that the run noted, its
checkpoints and logs by their names. Links are not followed, and what is unknown stays, or is refused where a later run
would take it for its own.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nemo.utils import logging
from omegaconf import OmegaConf

from nemo_distill.archives.restore import extract_tokenizers, read_archive_config
from nemo_distill.errors import InputError
from nemo_distill.support.files import is_plain, is_unfinished, sha256, write_json_atomic, write_text_atomic
from nemo_distill.support.finished_run import FINISHED, FinishedRun, read_finished
from nemo_distill.support.incoming import check_yaml, read_json, read_yaml_text
from nemo_distill.support.lock import LOCK
from nemo_distill.support.manifest import MANIFEST, refuse_other
from nemo_distill.support.manifest import is_unfinished as is_unfinished_run
from nemo_distill.support.quoting import error_line
from nemo_distill.support.temporary import TemporaryDirectory
from nemo_distill.training.checkpoints import file_name_of, is_own, other_origin
from nemo_distill.training.identity import identity, may_grow, why_not_longer
from nemo_distill.training.inputs import INPUTS_FILE
from nemo_distill.training.text_settings import origin_model

LOG_DIRECTORY, TEXT_DIRECTORY = "log", "text"
CHECKPOINTS = f"{LOG_DIRECTORY}/checkpoints"
CONFIG_FILE = "config.yaml"
_LOGS = re.compile(  # NeMo's, Lightning's and TensorBoard's
    r"nemo_log_globalrank-\d+_localrank-\d+\.txt|nemo_error_log\.txt|lightning_logs\.txt|cmd-args\.log|git-info\.log|"
    r"events\.out\.tfevents\.\d+\..+\.\d+\.\d+|finished\.json|validations\.json"
)
_SIZES = ("hidden_size", "inner_size", "num_layers", "num_attention_heads")


def archive_path(directory: Path, name: Any) -> Path:
    """Return where the archive of a run goes.

    Raises:
        InputError: the name is no name of a file.
    """
    if not isinstance(name, str | int) or not re.fullmatch(r"[\w.@+=,() -]{1,100}", str(name)):
        raise InputError(f"name: got {ascii(name)[:80]}; give letters, digits and any of . _ @ + = -")
    return directory / f"{name}.nemo"


def refuse_other_run(directory: Path, archive: Path, plain: dict[str, Any], overwrite: bool) -> None:
    """Make sure that the directory is free, or belongs to this very run, or may be overwritten.

    The same run may be asked for with other settings of *how* to run, with files elsewhere of the same content, and
    with more steps; see `identity`.

    Raises:
        InputError: none of these.
    """
    if not directory.exists() or all(map(_is_of_no_run, directory.iterdir())):
        return
    stored = _stored_config(directory)
    if overwrite:
        _files_of_run(directory, stored, archive)
    else:
        earlier, asked = (identity(each, (directory / INPUTS_FILE).is_file()) for each in (stored, plain))
        advice = "give another output_dir, or overwrite=true to replace it"
        reason = why_not_longer(earlier, asked)
        refuse_other(directory, may_grow(earlier, asked), asked, advice=f"{reason}; {advice}" if reason else advice)


def _is_of_no_run(path: Path) -> bool:
    """Return whether something in a directory is what a run leaves that was stopped before it had begun."""
    if path.name == TEXT_DIRECTORY and path.is_dir() and not path.is_symlink():
        return is_unfinished_run(path) or bool(processed_files(path.parent)) or not any(path.iterdir())
    return is_unfinished(path) or path.name == LOCK


def processed_files(directory: Path) -> list[Path]:
    """Return the processed text of the run in a directory, its manifest last: what proves to be its own.

    Raises:
        InputError: a file has changed since, or something else lies there.
    """
    place = directory / TEXT_DIRECTORY
    if not os.path.lexists(place / MANIFEST):
        return []
    manifest = read_json(place / MANIFEST)
    request = manifest.get("request") if isinstance(manifest, dict) else None
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    if place.is_symlink() or not isinstance(request, dict) or request.get("verb") != "preprocess":
        raise InputError(f"'{place}' is not what a run makes there; move it away")
    found = []
    for name, entry in listed.items() if isinstance(listed, dict) else ():
        path = place / name
        if "/" in name or not path.is_file() or path.is_symlink() or not isinstance(entry, dict):
            continue
        if sha256(path) != entry.get("sha256"):
            raise InputError(f"'{path}' has changed since the run there wrote it; move it away")
        found.append(path)
    return [*found, place / MANIFEST]


def claim_directory(directory: Path, archive: Path, plain: dict[str, Any], overwrite: bool) -> None:
    """Record the configuration of a new run, over an older one if so asked; make ready to go on with the same run.

    Raises:
        InputError: what would be removed is not provably of the older run.
    """
    text = OmegaConf.to_yaml(OmegaConf.create(plain))
    try:
        check_yaml(text)
    except ValueError as error:
        raise InputError(f"the configuration cannot be kept in {CONFIG_FILE}: {error}") from error
    if overwrite and os.path.lexists(directory / CONFIG_FILE):
        logging.info(f"overwrite: removing the run in {directory}")
        for path in _files_of_run(directory, _stored_config(directory), archive):
            path.unlink(missing_ok=True)
    write_text_atomic(directory / CONFIG_FILE, text)


def note_archive(partial: Path, archive: Path, max_steps: int | None = None, **told: Any) -> None:
    """Note the hash of an archive that is about to be put in its place, the `max_steps` of its trainer, and what else
    is told of its run, see `FinishedRun`.
    """
    new, earlier = sha256(partial), sha256(archive) if archive.is_file() and is_plain(archive) else None
    noted = FinishedRun(archive.name, new, max_steps, earlier if earlier != new else None, **told)
    write_json_atomic(archive.parent / FINISHED, asdict(noted))


def is_finished(
    archive: Path, model: Mapping[str, Any], max_steps: int | None = None, patience: int | None = None
) -> bool:
    """Return whether a run has left its archive, it is still the one that the run wrote, and no more steps are wanted.

    Args:
        archive: where it is.
        model: `model` section of the run. An archive of an earlier version, which noted no hash, is compared with it.
        max_steps: of the trainer.
        patience: of the run: one that patience ended has converged, however many steps are allowed, until more of it
            is asked for.

    Raises:
        InputError: something else lies there.
    """
    if not os.path.lexists(archive):
        return False
    finished = read_finished(archive.parent)
    if finished is None:
        _check_unnoted(archive, model)
    elif finished.earlier is not None and sha256(archive) == finished.earlier:  # killed before it was replaced
        return False
    elif archive.name != finished.archive or sha256(archive) != finished.sha256:
        raise InputError(
            f"'{archive}' is not what this run wrote there; move it away, and the same command writes it again"
        )
    if finished is not None and finished.stopped_after is not None:
        return patience is not None and finished.stopped_after >= patience
    return finished is None or None in (finished.max_steps, max_steps) or finished.max_steps == max_steps


def _check_unnoted(archive: Path, model: Mapping[str, Any]) -> None:
    """Make sure that an archive has the sizes and tokenizers of a run.

    Raises:
        InputError: it has others.
    """
    stored = read_archive_config(archive)
    wanted = {f"{side}.{key}": (model.get(side) or {}).get(key) for side in ("encoder", "decoder") for key in _SIZES}
    others = [key for key, size in wanted.items() if size is not None and OmegaConf.select(stored, key) != size]
    paths = {side: (model.get(f"{side}_tokenizer") or {}).get("tokenizer_model") for side in ("encoder", "decoder")}
    if all(paths.values()):
        with TemporaryDirectory() as new:
            found = extract_tokenizers(archive, new)
            others += [
                f"{side}_tokenizer"
                for side, path in paths.items()
                if sha256(path) != sha256(found[side]["tokenizer_model"])
            ]
    if others:
        raise InputError(
            f"'{archive}' is of another run, with other model.{', model.'.join(others)}; move it away, and the same "
            "command writes it"
        )


def _stored_config(directory: Path) -> dict[str, Any]:
    """Return the configuration of the run in a directory.

    Raises:
        InputError: there is none.
    """
    path = directory / CONFIG_FILE
    if not os.path.lexists(path):
        raise InputError(f"output_dir: {directory} is not empty and holds no run; give another directory")
    text = read_yaml_text(path)
    try:
        stored = OmegaConf.to_container(OmegaConf.create(text))
    except Exception as error:  # of YAML's values, of OmegaConf's grammar
        raise InputError(f"'{path}' cannot be read ({error_line(error, 200)}); mend or remove it") from error
    sections = ("model", "trainer", "exp_manager")
    if not isinstance(stored, dict) or not all(isinstance(stored.get(key), dict) for key in sections):
        raise InputError(f"output_dir: '{path}' is not the configuration of a run; give another directory")
    return stored


def _files_of_run(directory: Path, stored: dict[str, Any], archive: Path) -> list[Path]:
    """Return what overwriting removes: checkpoints, logs and the archive of the run, each proven to be its own.

    Raises:
        InputError: something else is in the way.
    """
    log, checkpoints = directory / LOG_DIRECTORY, directory / CHECKPOINTS
    for path in (directory / CONFIG_FILE, log, checkpoints):
        if path.is_symlink() or (path.name != CONFIG_FILE and os.path.lexists(path) and not path.is_dir()):
            raise InputError(f"overwrite: '{path}' is not what a run makes there; remove it by hand")
    file_name = file_name_of(stored["exp_manager"].get("checkpoint_callback_params") or {})
    found = []
    for path in checkpoints.iterdir() if checkpoints.is_dir() else ():
        if is_unfinished(path) or is_own(path, file_name):
            if not is_unfinished(path) and (fault := other_origin(path, origin_model(stored), stored.get("seed"))):
                raise InputError(f"overwrite: '{path}' is not of the run there ({fault}); move it away")
            found.append(path)
        elif path.suffix == ".ckpt":  # the new run would go on from it
            raise InputError(f"overwrite: '{path}' is not named as the run there names its checkpoints; move it away")
    moved = [path for path in log.glob("run_*") if path.is_dir() and not path.is_symlink()]  # by NeMo, at each start
    for place in (log, *moved):
        found += [path for path in place.glob("*") if _LOGS.fullmatch(path.name) and is_plain(path)]
    finished = read_finished(directory)
    for path in {archive, archive_path(directory, stored.get("name"))}:
        if os.path.lexists(path):
            if finished is None or path.name != finished.archive or not is_plain(path):
                raise InputError(f"overwrite: '{path}' is not noted as written by the run there; move it away")
            if sha256(path) != finished.sha256:
                raise InputError(f"overwrite: '{path}' has changed since the run there wrote it; move it away")
            found.append(path)
    return sorted(found, key=lambda path: path.name == Path(FINISHED).name)  # what proves the archive goes last
