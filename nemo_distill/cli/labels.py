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
"""The verbs of `nemo-distill` around pseudo-labels. Imports nothing heavy, so `--help` is quick."""

import argparse
import contextlib
from collections.abc import Callable

from nemo_distill.cli.options import (
    InputDirectory,
    InputFile,
    OutputFile,
    add_batch_tokens,
    add_bleu_tokenizer,
    add_engine,
    add_force,
    add_languages,
    add_output_dir,
    add_overwrite,
    add_paths,
    add_sharing,
    add_teachers,
    add_trust,
    languages,
    read_share,
)
from nemo_distill.errors import InputError


def add_pseudo_label(subparsers) -> None:
    """Add `nemo-distill pseudo-label`."""
    verb = subparsers.add_parser(
        "pseudo-label",
        help="translate a text with a teacher, choose among its hypotheses and filter them",
        description="Translate every line of a text with a teacher and write source.txt and hypotheses.txt, aligned, "
        "of the lines that pass the filters, and beside them source.tok.txt and hypotheses.tok.txt, which training "
        "reads, where the teacher processes text; nbest.jsonl with all hypotheses; dropped.tsv with the other lines "
        "and the reason of each; and manifest.json. Killed at any point, the same command goes on where it was; a "
        "finished directory is verified and left alone. Under torchrun the processes share the work.",
    )
    made_by = verb.add_mutually_exclusive_group(required=True)
    add_teachers(made_by, "the probabilities are averaged", foreign=True, required=False)
    made_by.add_argument(
        "--hypotheses",
        nargs="+",
        type=InputFile,
        metavar="FILE",
        help="in place of a teacher: translations of the input by somebody else, aligned text, or .jsonl with scores",
    )
    verb.add_argument(
        "--input",
        required=True,
        nargs="+",
        type=InputFile,
        metavar="FILE",
        help="source text, one sentence a line; a file or several, plain, .gz or .zst",
    )
    verb.add_argument(
        "--processed",
        action="store_true",
        help="the input is normalized and tokenized already, as the teacher's training text (Moses ...)",
    )
    verb.add_argument(
        "--disturb",
        type=int,
        metavar="N",
        help="translate N copies of the input in its place, in which other words of it stand for a fifth of the words "
        "and a twentieth are left out: more to learn where there is little text",
    )
    add_output_dir(verb, "gets the files")
    _add_search(verb)
    add_engine(verb, "one teacher that converts")
    add_batch_tokens(verb)
    verb.add_argument(
        "--shard-lines",
        type=int,
        default=5000,
        metavar="N",
        help="lines translated and stored as a whole: most that a killed process loses; default: 5000",
    )
    add_sharing(verb)
    _add_selection(verb)
    add_force(verb)
    add_languages(verb)
    add_trust(verb)
    verb.set_defaults(run=_run_pseudo_label, check=_settings, default_of=verb.get_default)


def add_select(subparsers) -> None:
    """Add `nemo-distill select`."""
    verb = subparsers.add_parser(
        "select",
        help="choose and filter anew from the hypotheses of pseudo-label",
        description="Choose among the hypotheses that `nemo-distill pseudo-label` kept, with other options, and write "
        "the same files but nbest.jsonl. Nothing is decoded.",
    )
    verb.add_argument(
        "--nbest", required=True, type=InputDirectory, metavar="DIR", help="output directory of pseudo-label, finished"
    )
    add_output_dir(verb, "another directory; gets the files")
    verb.add_argument("--target-lang", metavar="CODE", help="of the gold text, such as de; chooses the BLEU tokenizer")
    _add_selection(verb)
    verb.set_defaults(run=_run_select, check=_selected)


_SEARCH = (
    *("search", "beam_size", "num_hypotheses", "length_penalty", "max_length_delta"),
    *("top_k", "top_p", "temperature", "seed"),
)
_OF_DECODING = (
    *("disturb", "engine", "quantization", "device", "source_lang", "target_lang"),
    *("processed", "force", "batch_tokens", "shard_lines"),
)
"""Options beside those of the search that nothing reads where nothing is decoded."""
_SAMPLED = ("top_k", "top_p")
_READ_BY = {"beam_size": ("beam",), "top_k": ("top_k",), "top_p": ("top_p",), "temperature": _SAMPLED}
"""Options of the search that only some searches read."""


def _add_search(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("search")
    group.add_argument("--search", choices=("beam", "greedy", "top_k", "top_p"), help="default: beam")
    group.add_argument("--beam-size", type=int, metavar="N", help="default: 4")
    group.add_argument("--num-hypotheses", type=int, metavar="N", help="hypotheses kept of each line; default: 1")
    group.add_argument("--length-penalty", type=float, metavar="X", help="exponent of the GNMT penalty; default: 0.6")
    group.add_argument(
        "--max-length-delta", type=int, metavar="N", help="tokens more than the source has; default: 20"
    )
    group.add_argument("--top-k", type=int, metavar="N", help="sample among the N likeliest; default: 10")
    group.add_argument("--top-p", type=float, metavar="X", help="sample among the likeliest of this sum; default: 0.9")
    group.add_argument("--temperature", type=float, metavar="X", help="of sampling; default: 1")
    group.add_argument("--seed", type=int, metavar="N", help="of sampling; default: 0")


def _add_selection(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("selection")
    group.add_argument(
        "--select",
        choices=("best", "closest-bleu", "closest-chrf", "mbr"),
        default="best",
        help="keep the likeliest hypothesis (default); the one closest to gold, by sentence BLEU or chrF; or the one "
        "closest to all hypotheses of the line, by chrF (minimum Bayes risk)",
    )
    group.add_argument(
        "--target", nargs="+", type=InputFile, metavar="FILE", help="gold translations of the input, for closest-*"
    )
    group.add_argument(
        "--keep", type=int, default=1, metavar="N", help="hypotheses kept of each line, each as a pair; default: 1"
    )
    add_bleu_tokenizer(group, ", for closest-bleu")
    group.add_argument(
        "--compress", choices=("gz", "zst"), help="write compressed files, with names that end so; default: plain"
    )
    group.add_argument(
        "--lines-per-file",
        type=int,
        metavar="N",
        help="write source-00001.txt and so on, each with what is made of N further lines of the input; default: one "
        "file of each kind",
    )
    group = verb.add_argument_group("filters", "What a line is dropped for; `off` switches a limit off.")
    group.add_argument(
        "--max-length-ratio", type=_limit(float), default=3.0, metavar="X", help="letters to letters; default: 3"
    )
    group.add_argument(
        "--max-repeats", type=_limit(int), default=3, metavar="N", help="of a phrase in a row; default: 3"
    )
    group.add_argument(
        "--max-repeated",
        type=_limit(float),
        default=0.3,
        metavar="X",
        help="share of the text that came before in it, high in loops; default: 0.3",
    )
    group.add_argument(
        "--min-score", type=_limit(float), metavar="X", help="mean log-probability of a token; default: off"
    )
    group.add_argument("--keep-copies", action="store_true", help="keep hypotheses that equal their source")
    group.add_argument(
        "--ignore-placeholders", action="store_true", help="keep hypotheses that lack or add a {name}, %%s or <tag>"
    )
    group.add_argument(
        "--keep-unknown", action="store_true", help="keep hypotheses with unknown pieces, and sources of nothing else"
    )
    group.add_argument("--keep-cut", action="store_true", help="keep hypotheses that end at the length limit")
    group.add_argument("--drop-duplicates", action="store_true", help="keep equal pairs only once")
    group.add_argument(
        "--round-trip",
        action="store_true",
        help="refuse hypotheses that training reads as other tokens than the teacher wrote",
    )
    add_paths(group, "--test", "drop lines that these files hold too")
    _add_ngram(group)


def _limit(number: type) -> Callable[[str], float | int | None]:
    def limit(text: str) -> float | int | None:
        return None if text == "off" else number(text)

    limit.__name__ = "number or off"
    return limit


def _selection(args: argparse.Namespace):
    from nemo_distill.labels.filtering import FilterSettings
    from nemo_distill.labels.settings import SelectionSettings

    return SelectionSettings(
        select=args.select,
        target=args.target,
        bleu_tokenizer=args.bleu_tokenizer,
        filters=FilterSettings(
            max_length_ratio=args.max_length_ratio,
            max_repeats=args.max_repeats,
            max_repeated=args.max_repeated,
            min_score=args.min_score,
            drop_copies=not args.keep_copies,
            check_placeholders=not args.ignore_placeholders,
            drop_unknown=not args.keep_unknown,
            drop_cut=not args.keep_cut,
            drop_duplicates=args.drop_duplicates,
            round_trip=args.round_trip,
        ),
        tests=args.test,
        ngram=args.ngram,
        target_language=getattr(args, "target_lang", None),
        compress=args.compress,
        keep=args.keep,
        lines_per_file=args.lines_per_file,
    )


def _selected(args: argparse.Namespace):
    """Return what is asked of `select`."""
    if args.target_lang is not None and (args.select != "closest-bleu" or args.bleu_tokenizer is not None):
        raise InputError(
            "--target-lang: chooses the tokenizer of --select closest-bleu where no --bleu-tokenizer is given, and is "
            "not read here; leave it out"
        )
    return _selection(args)


def _refuse_decoding(args: argparse.Namespace, search: dict) -> None:
    """Refuse options of decoding where there is nothing to decode."""
    given = [*search, *(name for name in _OF_DECODING if getattr(args, name) != args.default_of(name))]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{options}: nothing is decoded where --hypotheses gives the translations; leave it out")


def _settings(args: argparse.Namespace):
    """Return what is asked of the search, and of the choice among what it finds."""
    from nemo_distill.decoding.engine import SearchSettings, check_counts
    from nemo_distill.labels.settings import check_shard_lines

    check_counts(None, args.batch_tokens)
    check_shard_lines(args.shard_lines)
    search = SearchSettings(**_searched(args))
    for name, searches in _READ_BY.items():
        if getattr(args, name) is not None and search.search not in searches:
            raise InputError(
                f"--{name.replace('_', '-')}: --search {search.search} does not read it; give --search "
                f"{' or '.join(searches)}, or leave it out"
            )
    return search, _selection(args)


def _searched(args: argparse.Namespace) -> dict:
    """Return the options of the search that are given."""
    return {name: getattr(args, name) for name in _SEARCH if getattr(args, name) is not None}


def _run_pseudo_label(args: argparse.Namespace) -> None:
    from nemo_distill.labels.given import label_given
    from nemo_distill.labels.teachers import pseudo_label

    share = read_share(args)
    if args.hypotheses:
        _refuse_decoding(args, _searched(args))
    search, selection = _settings(args)
    if args.hypotheses:
        manifest, was_finished = label_given(
            args.hypotheses, args.input, args.output_dir, selection, share=share, overwrite=args.overwrite
        )
    else:
        manifest, was_finished = pseudo_label(
            args.teacher,
            args.input,
            args.output_dir,
            search,
            selection,
            engine=args.engine,
            quantization=args.quantization or "float32",
            device=args.device,
            languages=languages(args),
            processed=args.processed,
            disturb=args.disturb,
            batch_tokens=args.batch_tokens,
            shard_lines=args.shard_lines,
            share=share,
            overwrite=args.overwrite,
            force=args.force,
        )
    if share.rank == 0:
        _print_counts(args.output_dir, args.output_dir, manifest, was_finished)


def _run_select(args: argparse.Namespace) -> None:
    from nemo_distill.labels.selection import select

    manifest, was_finished = select(args.nbest, args.output_dir, _selected(args), overwrite=args.overwrite)
    _print_counts(args.output_dir, args.nbest, manifest, was_finished)


def _print_counts(output_dir: str, nbest: str, manifest: dict, was_finished: bool) -> None:
    from nemo_distill.support.quoting import plain_text

    counts, engine = manifest["counts"], plain_text(manifest["engine"])
    state = "already there, hashes verified" if was_finished else "written"
    pairs = f", {counts['pairs']} pairs" if "pairs" in counts else ""
    print(f"{output_dir}: {counts['kept']} of {counts['lines']} lines kept{pairs} ({state}; engine: {engine})")
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts["dropped"].items())
    if reasons:
        first, *others = (name for name in manifest["files"] if name.startswith("dropped"))
        print(f"dropped (see {output_dir}/{first}{f' to {others[-1]}' if others else ''}): {reasons}")
    if marked := manifest.get("read_back"):
        listed = ", ".join(f"{mark} {count}" for mark, count in marked.items())
        print(f"training reads other tokens than the teacher wrote, scores are of those: {listed}")
    if not counts["kept"]:
        raise InputError(
            f"no line is left of {counts['lines']} ({reasons}); {output_dir} has empty files. To choose with other "
            f"filters, without decoding: nemo-distill select --nbest {nbest}"
        )


def add_leak_check(subparsers) -> None:
    """Add `nemo-distill leak-check`."""
    verb = subparsers.add_parser(
        "leak-check",
        help="look for test sentences in training text",
        description="Compare every line of the training text with every line of the test sets, without case, "
        "punctuation and differences of white space, and print how many are the same. Exit status 0 whatever is "
        "found, unless --fail is given.",
    )
    add_paths(verb, "--train", "training text, any language", required=True)
    add_paths(verb, "--test", "test text, any language", required=True)
    _add_ngram(verb)
    verb.add_argument(
        "--report", type=OutputFile, metavar="FILE", help="write every line found there, as tab-separated text"
    )
    add_overwrite(verb, "the file of --report")
    verb.add_argument("--fail", action="store_true", help="exit with status 1 if anything is found")
    verb.set_defaults(run=_run_leak_check)


def _add_ngram(verb: argparse._ActionsContainer) -> None:
    verb.add_argument(
        "--ngram",
        type=int,
        default=0,
        metavar="N",
        help="count lines that share N words in a row with a test line too, 8 for instance; default: 0, off",
    )


def _run_leak_check(args: argparse.Namespace) -> int:
    from nemo_distill.labels.leak_check import check_leaks, check_report
    from nemo_distill.support.lock import locked_file
    from nemo_distill.support.manifest import refuse_inputs_as_outputs

    if args.overwrite and not args.report:
        raise InputError("--overwrite: is for the file of --report, which is not given; give it, or leave it out")
    state = ""
    with locked_file(args.report) if args.report else contextlib.nullcontext():
        if args.report:
            refuse_inputs_as_outputs([*args.train, *args.test], [args.report])
            check_report(args.report)
        report = check_leaks(args.train, args.test, args.ngram, args.report, overwrite=args.overwrite, progress=True)
        if args.report:
            state = f"{args.report}: {'already there' if report.was_there else 'written'}"
    print(report.table())
    if state:
        print(state)
    print(f"{report.leaks} leaked lines" if report.leaks else "no leaked line")
    return 1 if args.fail and report.leaks else 0
