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
"""From real text to distilled students: corpus, tokenizer, teacher, plain twin, students, table, samples, plot.

    python examples/end_to_end/run.py
    python examples/end_to_end/run.py --corpus DIR --teacher my.nemo
    python examples/end_to_end/run.py --output-dir runs/seeds --seeds 1 2 3

`student` learns from the labels and the teacher's distribution over each token (Hinton et al.), `hybrid` from the
teacher's own translations as well. Each stage is one command, printed before it runs, that can be run by hand as well.
A finished stage is not repeated: an interrupted job goes on where it stopped. The sizes suit two CPU cores.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from nemo_distill.errors import InputError, reported_errors, say_interrupts

say_interrupts("end_to_end")  # before further imports, which take their time

# isort: split

from omegaconf import OmegaConf

from nemo_distill.archives import trusted_archives
from nemo_distill.jobs import (
    Stage,
    config_faults,
    corpus_faults,
    language_faults,
    run_stages,
    seed_faults,
    setting,
    verb_command,
)
from nemo_distill.support import compat
from nemo_distill.support.files import atomic_path, check_no_file, sha256
from nemo_distill.support.incoming import open_regular
from nemo_distill.support.lock import locked
from nemo_distill.support.quoting import plain_text
from nemo_distill.support.temporary import TemporaryDirectory
from nemo_distill.support.text_files import read_lines

EXAMPLES = Path(__file__).resolve().parent.parent


def plan(args: argparse.Namespace) -> list[Stage]:
    """Return the stages of the job."""
    out = args.output_dir
    corpus = args.corpus or out / "corpus"
    stages = []
    needs = ()
    if args.corpus is None:
        command = verb_command("corpus", "ui-strings", "--source", args.source, "--target", args.target)
        stages.append(Stage("corpus", [*command, "--output-dir", str(corpus)], corpus / "manifest.json"))
        needs = ("corpus",)
    data = [setting("data.dir", corpus), setting("data.source", args.source), setting("data.target", args.target)]
    data += [f"data.tokens_in_batch={args.batch_tokens}", f"data.max_seq_length={args.max_length}"]
    if args.teacher is None:
        tokenizer = out / "tokenizer" / "tokenizer.model"
        texts = [str(corpus / f"train.{language}") for language in (args.source, args.target)]
        command = verb_command("tokenizer", "--input", *texts, "--vocab-size", str(args.vocab_size))
        stages.append(
            Stage(
                "tokenizer",
                [*command, "--output-dir", str(tokenizer.parent)],
                tokenizer,
                needs,
                reads=own_files(args, "train"),
            )
        )
        needs = ("tokenizer",)
        data.append(setting("data.tokenizer", tokenizer))
        teacher = out / "teacher" / "teacher.nemo"
        overrides = [*data, f"model={args.teacher_model}"]
        stages.append(train_stage("teacher", args, overrides, args.teacher_steps, needs))
    else:
        teacher = args.teacher
        data += tokenizer_overrides(teacher, out / "tokenizer")
    needs_teacher = needs if args.teacher else ("teacher",)
    pseudo = out / "pseudo"
    command = verb_command("pseudo-label", "--teacher", str(teacher), "--input", str(corpus / f"train.{args.source}"))
    trust = ["--trust-archive"] if args.trust_archive else []
    command += ["--output-dir", str(pseudo), *trust]
    stages.append(
        Stage(
            "pseudo-labels",
            command,
            pseudo / "manifest.json",
            needs_teacher,
            reads=own_files(args, "train", teacher=True),
        )
    )
    students, pairs = [], []
    for seed in args.seeds:
        suffix = f"@seed{seed}" if len(args.seeds) > 1 else ""
        overrides = [*data, f"model={args.student_model}", f"seed={seed}"]
        students.append(train_stage(f"plain{suffix}", args, overrides, args.student_steps, needs))
        overrides = [*overrides, setting("teacher", teacher)]
        overrides += ["+model.distillation.teacher.trust_archive=true"] if trust else []
        students.append(train_stage(f"student{suffix}", args, overrides, args.student_steps, needs_teacher))
        overrides = [*overrides, "distillation=hybrid", setting("pseudo", pseudo)]
        students.append(train_stage(f"hybrid{suffix}", args, overrides, args.student_steps, ("pseudo-labels",)))
        pairs += [f"{name}{suffix}:plain{suffix}" for name in ("student", "hybrid")]
    names = [stage.name for stage in students]
    command = verb_command("evaluate", "--model", str(teacher), *(str(stage.result) for stage in students))
    command += ["--names", "teacher", *names, "--compare", *pairs]
    command += ["--test", f"test:{corpus / f'test.{args.source}'}:{corpus / f'test.{args.target}'}"]
    evaluation = out / "evaluation"
    command += ["--output-dir", str(evaluation), *trust]
    needs = (*needs_teacher, *names)
    reads = own_files(args, "test", teacher=True)
    stages += [*students, Stage("evaluation", command, evaluation / "results.json", needs, again=True, reads=reads)]
    command = verb_command("report", "--results", str(evaluation), "--output-dir", str(out / "report"))
    command += ["--teacher", "teacher", "--plain", "plain", "--overwrite"]
    return [*stages, Stage("report", command, out / "report" / "report.md", ("evaluation",), again=True)]


def train_stage(
    name: str, args: argparse.Namespace, overrides: list[str], steps: int, needs: tuple[str, ...]
) -> Stage:
    """Return the stage that trains one model, validated some times on the way."""
    directory = args.output_dir / name
    script = EXAMPLES / ("train_nmt.py" if name.startswith(("teacher", "plain")) else "distill.py")
    settings = [setting("name", name), setting("output_dir", directory), f"trainer.max_steps={steps}"]
    settings += [f"trainer.val_check_interval={max(steps // args.validations, 1)}"]
    reads = own_files(args, "train", "valid", teacher=script.name == "distill.py")
    return Stage(
        name, [sys.executable, str(script), *overrides, *settings], directory / f"{name}.nemo", needs, reads=reads
    )


def own_files(args: argparse.Namespace, *splits: str, teacher: bool = False) -> tuple[Path, ...]:
    """Return the user's own files that a stage reads: these parts of the corpus and, if so asked, the teacher."""
    languages = (args.source, args.target) if args.corpus else ()
    text = tuple(args.corpus / f"{split}.{language}" for split in splits for language in languages)
    return (*text, args.teacher) if teacher and args.teacher else text


def tokenizer_overrides(teacher: Path, directory: Path) -> list[str]:
    """Take the tokenizers out of the user's teacher; return the overrides that make a student read text alike."""
    from nemo_distill.archives import extract_tokenizers, read_archive_config

    config = OmegaConf.to_container(read_archive_config(teacher))
    languages = {key: config.get(key) or None for key in ("src_language", "tgt_language")}
    overrides = [setting(f"model.{key}", language) for key, language in languages.items()]
    if not set(languages.values()) <= {None, "ignore"}:  # the twin reads text as the students do
        overrides.append("data.processing=languages")
    with locked(directory), TemporaryDirectory() as new:
        for side, tokenizer in extract_tokenizers(teacher, new).items():
            found, kept = Path(tokenizer["tokenizer_model"]), directory / f"{side}.model"
            if not os.path.lexists(kept):
                with atomic_path(kept) as partial:
                    partial.write_bytes(found.read_bytes())
            elif sha256(kept) != sha256(found):
                raise InputError(f"'{kept}' is of another teacher; give another --output-dir")
            overrides += [setting(f"model.{side}_tokenizer.library", tokenizer["library"])]
            overrides += [setting(f"model.{side}_tokenizer.tokenizer_model", kept)]
    return ["data.tokenizer=null", *overrides]


def show_samples(out: Path, corpus: Path, source: str, target: str, names: list[str], count: int = 5) -> None:
    """Print a few test sentences with the translations of the models."""
    columns = {"source": read_lines(corpus / f"test.{source}"), "reference": read_lines(corpus / f"test.{target}")}
    for name in names:
        columns[name] = read_lines(out / "evaluation" / "hypotheses" / f"{name}.test.txt")
    total = len(columns["source"])
    print(f"\nTranslations of {count} of the {total} test sentences:")
    for index in range(total // (2 * count), total, max(total // count, 1)):
        print()
        for name, lines in columns.items():
            print(f"  {name:<10}{plain_text(lines[index], 1000)}")


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-dir", type=_path, help="where everything goes (default: runs/demo, or its like)")
    parser.add_argument("--corpus", type=_path, help="directory of train, valid and test files (default: UI strings)")
    parser.add_argument("--teacher", type=_path, help=".nemo to learn from (default: train one)")
    parser.add_argument("--source", default="de", help="source language, the suffix of the files")
    parser.add_argument("--target", default="en", help="target language, the suffix of the files")
    parser.add_argument("--vocab-size", type=int, default=4000, help="of the tokenizer, where no teacher is given")
    parser.add_argument("--teacher-model", default="small_1x1", help="of configs/model, where no teacher is given")
    parser.add_argument("--student-model", default="tiny_1x1", help="of configs/model, for student and plain twin")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="source and target tokens of a training batch")
    parser.add_argument("--max-length", type=int, help="longer training sentences, in tokens, are left out")
    parser.add_argument("--teacher-steps", type=int, default=3000, help="training steps of the teacher")
    parser.add_argument("--student-steps", type=int, default=1200, help="training steps of student and plain twin")
    parser.add_argument("--validations", type=int, default=3, help="of each model while it trains")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1], help="one plain twin, student and hybrid for each"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="students trained side by side, on a share of the cores each"
    )
    parser.add_argument(
        "--trust-archive",
        action="store_true",
        help="the teacher is your own: it may name classes of yours, and run code",
    )
    args = parser.parse_args()
    if args.max_length is None:
        args.max_length = 48 if args.corpus is None else 128  # few UI strings are longer
    if args.output_dir is None:
        # another corpus, teacher, language or NeMo (with other tokenizers) gets a directory of its own
        languages = [] if (args.source, args.target) == ("de", "en") else [args.source, args.target]
        own = [args.corpus.resolve().name] if args.corpus else []
        own += [args.teacher.stem] if args.teacher else []
        own += ["nemo2"] if compat.NEMO_2 else []
        args.output_dir = Path("runs", "-".join(["demo", *languages, *own]))
    return args


def check_own_files(args: argparse.Namespace) -> None:
    """Refuse arguments, a corpus or a teacher that cannot serve before anything runs."""
    faults = language_faults(args.source, "--source") + language_faults(args.target, "--target")
    faults += config_faults(args.teacher_model, "--teacher-model")
    faults += config_faults(args.student_model, "--student-model") + seed_faults(args.seeds, "--seeds")
    for name in ("vocab_size", "batch_tokens", "max_length", "teacher_steps", "student_steps", "validations", "jobs"):
        if getattr(args, name) < 1:
            faults.append(f"--{name.replace('_', '-')}: got {getattr(args, name)}; give at least 1")
    if args.teacher is not None:
        with open_regular(args.teacher, fix="give the path of a .nemo file"):
            pass
    check_no_file(args.output_dir)
    if args.corpus is not None:
        faults += corpus_faults(args.corpus, args.source, args.target)
    if faults:
        raise InputError("\n  ".join(faults))


def main() -> None:
    """Run the job."""
    args = parse_arguments()
    check_own_files(args)
    out = args.output_dir
    start = time.monotonic()
    with trusted_archives(args.trust_archive):
        stages = plan(args)
    run_stages(stages, out, args.jobs)
    print("\n" + "\n".join(read_lines(out / "report" / "report.md")))
    trained = [stage.name for stage in stages if stage.name.startswith(("plain", "student", "hybrid"))]
    show_samples(out, args.corpus or out / "corpus", args.source, args.target, ["teacher", *trained[:3]])
    plot = out / "report" / "quality_vs_size.png"
    print(f"\nPlot: {plot}\nEverything is under {out}; this took {(time.monotonic() - start) / 60:.1f} minutes.")


if __name__ == "__main__":
    with reported_errors("end_to_end"):
        main()
