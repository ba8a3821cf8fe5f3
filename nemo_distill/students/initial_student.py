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
"""`nemo-distill init`: write a student that starts from its teacher's layers, without training it."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_bottleneck_model import MTBottleneckModel
from omegaconf import DictConfig, OmegaConf

from nemo_distill.archives.reader import archive_sha256
from nemo_distill.archives.restore import extract_tokenizers, restore_model
from nemo_distill.config.languages import LANGUAGE_KEYS, Languages
from nemo_distill.config.layers import InitConfig
from nemo_distill.config.model_keys import key_faults
from nemo_distill.config.model_widths import width_faults
from nemo_distill.errors import InputError, StorageError
from nemo_distill.students.layer_init import InitReport, initialise
from nemo_distill.students.model_section import NOT_TAKEN, read_model_section, size_faults
from nemo_distill.support import files, manifest
from nemo_distill.support.incoming import read_json
from nemo_distill.support.lock import locked_file
from nemo_distill.support.quoting import error_line
from nemo_distill.support.records import read_record
from nemo_distill.support.temporary import TemporaryDirectory

_ADVICE = "give another name, or --overwrite"


def write_initial_student(
    teacher: str | Path,
    student: str | Path,
    output: str | Path,
    config: InitConfig,
    seed: int = 1,
    overwrite: bool = False,
    languages: Languages | None = None,
) -> InitReport:
    """Build a student, set what `config` says from the teacher, and save it.

    Args:
        teacher: a `.nemo` archive; its tokenizers become the student's.
        student: a YAML file: a model section, or anything with a `model` section, whose keys are laid over the
            teacher's configuration. A file with hydra's `defaults` is composed of the files in its directory.
        output: path of the `.nemo` archive to write, of a plain `MTEncDecModel`. Beside it `OUTPUT.json` notes what it
            was made from: an archive of the same inputs and settings that is there already is verified and left alone.
        config: layer maps and the rest; `from_teacher` is given.
        seed: of what stays random.
        overwrite: replace an archive that this wrote before.
        languages: of the teacher's text, and so the student's, in place of what the archive says.

    Returns:
        What came from where.

    Raises:
        InputError: a file cannot be read or changes meanwhile, the configuration gives no model, it cannot start from
            this teacher, or `output` is another file or in use.
        StorageError: there is no room for the archive.
    """
    return find_or_write(teacher, student, output, config, seed, overwrite, languages)[0]


def find_or_write(
    teacher: str | Path,
    student: str | Path,
    output: str | Path,
    config: InitConfig,
    seed: int,
    overwrite: bool,
    languages: Languages | None = None,
) -> tuple[InitReport, bool]:
    """Do what `write_initial_student` does; return the report, and whether the archive was there already."""
    output = Path(output)
    given, digest = read_model_section(student)
    request = {"teacher": archive_sha256(teacher), "student": digest, "seed": seed, "init": asdict(config)}
    if languages and languages != Languages():
        request["languages"] = asdict(languages)
    record = f"{output.name}.json"
    manifest.refuse_inputs_as_outputs([teacher, student], [output, output.with_name(record)])
    with locked_file(output):
        directory = output.parent
        files.remove_unfinished(directory, record)
        _refuse_changed(output, directory / record)
        if found := manifest.find_finished(directory, request, overwrite, [output.name], record):
            return _read_report(found.get("report"), directory / record), True
        manifest.claim(directory, [output.name], overwrite, record)
        with TemporaryDirectory() as tokenizers:
            source = restore_model(teacher, sha256=request["teacher"], languages=languages)
            model, report = _build(teacher, source, request["teacher"], student, given, config, seed, tokenizers)
            manifest.start_run(directory, [output.name], overwrite, name=record)
            _save(model, output)
        manifest.finish_run(directory, request, [output.name], {"report": asdict(report)}, record)
    return report, False


def _read_report(content: Any, record: Path) -> InitReport:
    report = read_record(InitReport, content, str(record), _ADVICE)
    named = {*report.copied, *report.kept} <= {*report.shapes} and {*report.copied.values()} <= {*report.source_shapes}
    if not named:
        raise InputError(f"'{record}' is damaged: it tells of tensors that it does not list; {_ADVICE}")
    return report


def _refuse_changed(output: Path, record: Path) -> None:
    """Refuse to touch an archive that somebody has put in the place of the one that the record lists."""
    found = read_json(record) if record.is_file() else {}
    listed = found.get("files") if isinstance(found, dict) else None
    if not (manifest.is_file_list(listed) and output.name in listed and os.path.lexists(output)):
        return
    if files.sha256(output) != listed[output.name]["sha256"]:
        raise InputError(
            f"'{output}' has changed since init wrote it, so it stays; move it away, or give another --output"
        )


def _build(
    teacher: str | Path,
    source: MTEncDecModel,
    sha256: str,
    student: str | Path,
    given: DictConfig,
    config: InitConfig,
    seed: int,
    tokenizers: Path,
) -> tuple[MTEncDecModel, InitReport]:
    """Return the student that starts from the teacher; its tokenizers stay in a directory until it is saved."""
    if not -(1 << 63) <= seed < 1 << 63:
        raise InputError(f"--seed has {len(str(seed))} digits; give one of at most 18")
    section = OmegaConf.create(OmegaConf.to_container(source.cfg, resolve=True))
    for key in NOT_TAKEN:
        section.pop(key, None)
    _refuse_other_encoders(teacher, section)
    taken = [key for key, value in section.items() if not OmegaConf.is_dict(value)]
    taken += [f"{part}.{key}" for part in ("encoder", "decoder", "head") for key in section.get(part) or {}]
    if faults := list(key_faults(OmegaConf.to_container(given), bool(section.encoder.get("arch")), taken)):
        raise InputError(f"{student}: {'; '.join(faults)}")
    try:
        section = OmegaConf.merge(section, _without_languages(student, section, given))
    except Exception as error:  # of OmegaConf: a value where the teacher has a section
        raise InputError(f"{student} does not fit the teacher's configuration: {error_line(error, 400)}") from error
    sizes = {side: getattr(getattr(source, f"{side}_tokenizer"), "vocab_size", 0) for side in ("encoder", "decoder")}
    widths = [each.removeprefix("model.") for each in width_faults(OmegaConf.to_container(section))]
    if faults := [*size_faults(section, sizes), *widths]:
        raise InputError(f"{student} gives no model: {'; '.join(faults)}")
    for side, tokenizer in extract_tokenizers(teacher, tokenizers, sha256=sha256).items():
        section[f"{side}_tokenizer"].update(tokenizer)
    torch.manual_seed(seed)
    try:
        model = (MTBottleneckModel if section.encoder.get("arch") else MTEncDecModel)(section)
    except Exception as error:  # of NeMo, whatever the section holds
        raise InputError(f"{student} gives no model: {error_line(error, 400)}") from error
    return model, initialise(model, source, config, where="init")


def _without_languages(student: str | Path, section: DictConfig, given: DictConfig) -> DictConfig:
    """Return what is laid over a teacher's section without the languages, by which its text is processed.

    Raises:
        InputError: it names another language than the teacher has.
    """
    given = given.copy()
    for key in ("multilingual", *LANGUAGE_KEYS.values()):
        asked, own = (
            None if each in (None, "", "ignore", False) else each for each in (given.pop(key, None), section.get(key))
        )
        if asked is not None and asked != own:
            raise InputError(
                f"{student}: {key}: got {asked}, and the teacher has {own}, by which the student's text is processed "
                "too; leave it out, or give --source-lang and --target-lang where the teacher's archive is wrong"
            )
    return given


def _refuse_other_encoders(teacher: str | Path, section: DictConfig) -> None:
    """Refuse teachers whose encoder has no list of NeMo's layers, of which a student could take some.

    Raises:
        InputError: it has none.
    """
    library, arch = section.encoder.get("library", "nemo"), section.encoder.get("arch") or "seq2seq"
    if library != "nemo" or arch != "seq2seq":
        kind = f"arch: {arch}" if library == "nemo" else f"library: {library}"
        raise InputError(
            f"{teacher} has an encoder ({kind}) without a list of NeMo's layers that a student could take; train with "
            "distillation.init: {from_teacher: every_nth, encoder: null} to start from its decoder alone"
        )


def _save(model: MTEncDecModel, output: Path) -> None:
    with files.atomic_path(output) as partial:
        try:
            model.save_to(str(partial))
        except RuntimeError as error:  # of torch, where the system says that there is no room
            raise StorageError(
                f"'{output}' cannot be written: {error_line(error, 400)}; make room, then go on"
            ) from error
