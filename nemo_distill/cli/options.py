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
"""Options that several verbs share. Imports nothing heavy, so that `--help` is quick."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from nemo_distill.config.languages import Languages
from nemo_distill.decoding.engine import ENGINES, QUANTIZATIONS
from nemo_distill.errors import InputError
from nemo_distill.support.files import check_no_file
from nemo_distill.support.incoming import check_directory, check_file
from nemo_distill.support.share import Share

Options = argparse._ActionsContainer
"""A parser, or a group of its options."""
OR_NAME = "or a name on NGC such as nmt_de_en_transformer24x6"
FOREIGN = "directory of a model of CTranslate2 or transformers, or of an export"
"""What else than an archive can decode, for the help."""


class GivenPath(str):
    """A path that an option gives, `~` expanded; `check_paths` looks whether what is there is of its kind."""

    def __new__(cls, text: str) -> "GivenPath":
        """Make a path of an option's value; an empty one is an error."""
        if not text:  # as of an unset variable
            raise argparse.ArgumentTypeError("it is empty; give a path")
        return super().__new__(cls, os.path.expanduser(text))

    def _check(self) -> None:
        """Raise an InputError where this is not what it is given as."""
        raise NotImplementedError


class InputFile(GivenPath):
    """A file that a verb reads."""

    def _check(self) -> None:
        check_file(self)


class InputDirectory(GivenPath):
    """A directory that a verb reads."""

    def _check(self) -> None:
        check_directory(self)


class Corpus(InputDirectory):
    """The directory of a corpus, or the name of the one that is fetched."""

    def _check(self) -> None:
        from nemo_distill.jobs.recipe import UI_STRINGS

        if self != UI_STRINGS:
            super()._check()


class InputPath(InputFile):
    """A file or a directory that a verb reads."""

    def _check(self) -> None:
        if not os.path.isdir(self):
            super()._check()


class Archive(GivenPath):
    """A `.nemo` archive: its path, or a name of NGC, which `find_archives` finds: the names take seconds to know."""

    def _check(self) -> None:
        from nemo_distill.archives.ngc import check_archive

        check_archive(self)


class Model(Archive):
    """A `.nemo` archive, or the directory of a model that is not NeMo's."""

    def _check(self) -> None:
        from nemo_distill.decoding.foreign_files import foreign_kind, is_foreign

        if is_foreign(self):
            foreign_kind(Path(self))
        else:
            super()._check()


class OutputDirectory(GivenPath):
    """A directory that a verb writes."""

    def _check(self) -> None:
        check_no_file(Path(self))


class OutputFile(GivenPath):
    """A file that a verb writes."""

    def _check(self) -> None:
        if os.path.isdir(self):
            raise InputError(f"'{self}' is a directory; give another name")
        check_no_file(Path(self).parent)


def check_paths(args: argparse.Namespace) -> None:
    """Look at each path that is read or written, before torch and NeMo are imported.

    Raises:
        InputError: there is nothing to read, or a file in place of a directory, or the other way round.
    """
    for value in vars(args).values():
        for each in value if isinstance(value, list) else [value]:
            for path in each if isinstance(each, list) else [each]:  # of an option that takes pairs
                if isinstance(path, GivenPath):
                    path._check()


def check_test_sets(test_sets: Sequence[str]) -> None:
    """Look whether the files of test sets are there, as `check_paths`.

    Raises:
        InputError: a set is written wrongly, is none of sacreBLEU's, or has a file that cannot be opened.
    """
    from nemo_distill.evaluation.test_sets import TestSet, parse_test_set

    for found in map(parse_test_set, test_sets):
        for each in (found.source, found.target, *found.further_targets) if isinstance(found, TestSet) else ():
            InputFile(each)._check()


def find_archives(args: argparse.Namespace) -> None:
    """Put the path in the place of each archive that is given by name, in place; it is fetched if need be.

    Raises:
        ArchiveError: neither a file nor a name, or it cannot be fetched.
    """
    from nemo_distill.archives.ngc import find_archive

    for key, value in vars(args).items():
        if isinstance(value, Archive):
            setattr(args, key, find_archive(value))
        elif isinstance(value, list):
            setattr(args, key, [find_archive(each) if isinstance(each, Archive) else each for each in value])


def add_paths(
    verb: Options,
    name: str,
    text: str,
    metavar: str = "FILE",
    required: bool = False,
    kind: type[GivenPath] = InputFile,
) -> None:
    """Add an option that takes several paths and may be repeated; none is an empty list.

    Args:
        verb: gets the option.
        name: of the option.
        text: its help.
        metavar: `FILE`, `DIR` or `PATH`.
        required: it must be given.
        kind: of path.
    """
    several = {"nargs": "+", "action": "extend", "type": kind, "metavar": metavar, "help": text}
    verb.add_argument(name, **several, **({"required": True} if required else {"default": []}))


def add_output_dir(verb: Options, gets: str, replaces: str = "another run in the output directory") -> None:
    """Add the directory that a verb writes, and the leave to replace what it holds.

    Args:
        verb: gets the options.
        gets: what the help says of `--output-dir`.
        replaces: what `--overwrite` replaces, for the help.
    """
    verb.add_argument("--output-dir", required=True, type=OutputDirectory, metavar="DIR", help=gets)
    add_overwrite(verb, replaces)


def add_overwrite(verb: Options, replaces: str) -> None:
    """Add the leave to replace something."""
    verb.add_argument("--overwrite", action="store_true", help=f"replace {replaces}")


def add_teachers(verb: Options, several: str, foreign: bool = False, required: bool = True) -> None:
    """Add the teachers of a verb that takes several; `several` says what for, `foreign` whether others serve too."""
    text = f".nemo archive, {OR_NAME}; of several, {several}" + (f"; or the {FOREIGN}" if foreign else "")
    add_paths(verb, "--teacher", text, required=required, kind=Model if foreign else Archive)


def add_models(verb: Options, note: str = "") -> None:
    """Add the options that name models."""
    text = f".nemo archives, {OR_NAME}, or the {FOREIGN}{note}"
    add_paths(verb, "--model", text, metavar="PATH", required=True, kind=Model)
    verb.add_argument(
        "--names",
        nargs="+",
        action="extend",
        metavar="LABEL",
        help="labels of the models, name@seed1 for one of several seeds; default: file names",
    )


def add_engine(verb: Options, converted: str) -> None:
    """Add the options that choose what decodes; `converted` says for which models that is CTranslate2 by default."""
    verb.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help=f"what decodes; default: CTranslate2 for {converted}, NeMo's modules for all else",
    )
    verb.add_argument(
        "--quantization",
        metavar="TYPE",
        help=f"of the weights in CTranslate2: {', '.join(QUANTIZATIONS)}; default: float32",
    )


def add_decoding(verb: Options, shared: bool = False, several: bool = False) -> None:
    """Add the options that say how to decode, and how to share that where processes can; `read_share` reads these.

    Args:
        verb: gets the options.
        shared: processes can share its work.
        several: it decodes with each of several beam sizes.
    """
    more, each = ({"nargs": "+"}, "; several: with each of them; 1 is greedy") if several else ({}, "")
    text = f"hypotheses while decoding{each}; default: each model's own"
    verb.add_argument("--beam-size", type=int, metavar="N", help=text, **more)
    add_batch_tokens(verb)
    (add_sharing if shared else add_device)(verb)


def add_batch_tokens(verb: Options, counted: str = "source tokens") -> None:
    """Add the option that bounds a batch; `counted` says what is counted."""
    verb.add_argument(
        "--batch-tokens", type=int, default=4096, metavar="N", help=f"{counted} in a batch, padded; default: 4096"
    )


def add_device(verb: Options, shared: bool = False) -> None:
    """Add the option that says where to compute; `shared` where processes share the work."""
    each = ", under torchrun or srun one each" if shared else ""
    verb.add_argument("--device", help=f"cpu, cuda or cuda:N; default: a GPU if there is one{each}")


def add_sharing(verb: Options) -> None:
    """Add the options of a verb whose work several processes can share."""
    add_device(verb, shared=True)
    verb.add_argument(
        "--wait-minutes",
        type=float,
        default=60.0,
        metavar="N",
        help="under torchrun or srun: how long the first process waits for the next shard of another; default: 60",
    )


def add_force(verb: Options) -> None:
    """Add the option that goes on with text of which the teacher knows nothing."""
    verb.add_argument(
        "--force",
        action="store_true",
        help="go on though the teacher's scores say that the lines of source and target do not belong together, are "
        "the wrong way round, or of another language",
    )


def read_share(args: argparse.Namespace) -> Share:
    """Return which part of the work this process does, and say so where it is not all of it.

    Raises:
        InputError: the variables of torchrun and Slurm contradict each other.
    """
    share = Share.from_environment(args.wait_minutes)
    if share.world_size > 1:
        print(f"process {share.rank + 1} of {share.world_size} (rank {share.rank})", flush=True)
    return share


def add_test_set(verb: Options, several: bool = False) -> None:
    """Add the test set, or several, that models translate."""
    more = {"nargs": "+", "action": "extend"} if several else {}
    verb.add_argument(
        "--test",
        required=True,
        metavar="NAME:SOURCE:TARGET",
        help="a name and aligned text files, of which more than one may be targets; languages behind the name, as in "
        "t:en-de:test.en:test.de, tell a model of several; or a test set of sacreBLEU's, as wmt14 or wmt14:de-en"
        f"{'; may be repeated' if several else ''}",
        **more,
    )


def add_bleu_tokenizer(verb: Options, use: str = "") -> None:
    """Add the option that names a tokenizer of sacreBLEU's; `use` says what for, where that is not clear."""
    verb.add_argument(
        "--bleu-tokenizer",
        metavar="NAME",
        help=f"sacreBLEU's{use}, such as zh, ja-mecab, ko-mecab, flores200, char; default: that of the target "
        "language, else of the script that the references are written in",
    )


def add_languages(verb: Options) -> None:
    """Add the options that say which languages the models' text has; `languages` reads them."""
    group = verb.add_argument_group("languages", "Decide how raw text is processed before and after the tokenizers.")
    for side in ("source", "target"):
        group.add_argument(
            f"--{side}-lang",
            metavar="CODE",
            help="such as de; `ignore`: text is read as it is; default: what the model's archive names",
        )


def languages(args: argparse.Namespace) -> Languages:
    """Return the languages that the options give.

    Raises:
        InputError: one is no language.
    """
    found = Languages(args.source_lang, args.target_lang)
    if faults := found.faults("--%s-lang"):
        raise InputError("; ".join(faults))
    return found


def add_trust(verb: Options) -> None:
    """Add the option that lifts the limits on what an archive may name."""
    verb.add_argument(
        "--trust-archive",
        action="store_true",
        help="the .nemo archives are your own: they may name classes of yours, and so run code",
    )
