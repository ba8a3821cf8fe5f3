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
"""From real text to a distilled student: corpus, tokenizer, teacher, plain twin, student, table, samples, plot.

    python examples/end_to_end/run.py --output-dir runs/demo
    python examples/end_to_end/run.py --output-dir runs/mine --corpus DIR --teacher my.nemo

Each stage is one command, printed before it runs, that can be run by hand as well. A finished stage is not repeated:
an interrupted job goes on where it stopped. The sizes suit two CPU cores.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from nemo_distill.errors import InputError, reported_errors
from nemo_distill.files import read_json, read_lines, write_json_atomic

EXAMPLES = Path(__file__).resolve().parent.parent
CLI = [sys.executable, "-m", "nemo_distill.cli"]
PROGRESS = re.compile(r"(training|translating|downloading)[^:]*: .*")


@dataclass
class Stage:
    """One command of the job."""

    name: str
    command: list[str]
    result: Path
    """What exists once the stage has finished."""


def plan(args: argparse.Namespace) -> list[Stage]:
    """Return the stages of the job in order."""
    out = args.output_dir
    corpus = args.corpus or out / "corpus"
    texts = [str(corpus / f"train.{language}") for language in (args.source, args.target)]
    stages = []
    if args.corpus is None:
        command = [*CLI, "corpus", "ui-strings", "--source", args.source, "--target", args.target]
        stages.append(Stage("corpus", [*command, "--output-dir", str(corpus)], corpus / "manifest.json"))
    data = [f"data.dir={corpus}", f"data.source={args.source}", f"data.target={args.target}"]
    if args.teacher is None:
        tokenizer = out / "tokenizer" / "tokenizer.model"
        command = [*CLI, "tokenizer", "--input", *texts, "--vocab-size", str(args.vocab_size)]
        stages.append(Stage("tokenizer", [*command, "--output-dir", str(tokenizer.parent)], tokenizer))
        data.append(f"data.tokenizer={tokenizer}")
        teacher = out / "teacher" / "teacher.nemo"
        stages.append(train_stage("teacher", "train_nmt.py", out, [*data, "model=small_teacher"], args.teacher_steps))
    else:
        teacher = args.teacher
        data += tokenizer_overrides(teacher, out / "tokenizer")
    student = [*data, "model=small_student", f"seed={args.seed}"]
    stages.append(train_stage("plain", "train_nmt.py", out, student, args.student_steps))
    stages.append(train_stage("student", "distill.py", out, [*student, f"teacher={teacher}"], args.student_steps))
    models = [str(path) for path in (teacher, out / "plain" / "plain.nemo", out / "student" / "student.nemo")]
    test = f"test:{corpus / f'test.{args.source}'}:{corpus / f'test.{args.target}'}"
    command = [*CLI, "evaluate", "--model", *models, "--names", "teacher", "plain", "student", "--test", test]
    command += ["--compare", "student:plain", "--output-dir", str(out / "evaluation")]
    stages.append(Stage("evaluation", command, out / "evaluation" / "results.json"))
    command = [*CLI, "report", "--results", str(out / "evaluation"), "--output-dir", str(out / "report")]
    stages.append(
        Stage("report", [*command, "--teacher", "teacher", "--plain", "plain"], out / "report" / "report.md")
    )
    return stages


def train_stage(name: str, script: str, out: Path, overrides: list[str], steps: int) -> Stage:
    """Return the stage that trains one model, validated ten times on the way."""
    settings = [f"name={name}", f"output_dir={out / name}", f"trainer.max_steps={steps}"]
    settings += [f"trainer.val_check_interval={max(steps // 2, 1)}"]
    return Stage(name, [sys.executable, str(EXAMPLES / script), *overrides, *settings], out / name / f"{name}.nemo")


def tokenizer_overrides(teacher: Path, directory: Path) -> list[str]:
    """Take the tokenizers out of the user's teacher; return the overrides that make a student read text alike."""
    from nemo_distill.archive import extract_tokenizers, read_archive_config

    config = read_archive_config(teacher)
    overrides = [f"model.{key}={config.get(key)}" for key in ("src_language", "tgt_language")]
    for side, tokenizer in extract_tokenizers(teacher, directory).items():
        overrides += [f"model.{side}_tokenizer.{key}={value}" for key, value in tokenizer.items()]
    return ["data.tokenizer=null", *overrides]


def run_stage(stage: Stage, out: Path, environment: dict[str, str]) -> None:
    """Run one stage; its output goes to a log, its progress to the terminal.

    Raises:
        InputError: the stage failed; the message holds the end of its log.
    """
    log_path = out / "logs" / f"{stage.name}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    print(f"\n[{stage.name}] {shlex.join(stage.command)}", flush=True)
    start = time.monotonic()
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            stage.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0, env=environment
        )
        try:
            follow(process, log)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()
    if process.returncode != 0:
        tail = "\n".join(re.split(r"[\r\n]+", log_path.read_text("utf-8", "replace"))[-12:])
        raise InputError(
            f"stage {stage.name} failed with status {process.returncode}; its log, {log_path}, ends:\n{tail}"
        )
    print(f"[{stage.name}] done in {time.monotonic() - start:.0f} s", flush=True)


def follow(process: subprocess.Popen, log) -> None:
    """Copy a process's output to `log`; show its progress bars, in place on a terminal, else now and then."""
    on_terminal = sys.stderr.isatty()
    shown_at = time.monotonic()
    pending = b""
    while chunk := os.read(process.stdout.fileno(), 65536):
        log.write(chunk)
        log.flush()
        *parts, pending = re.split(rb"[\r\n]", pending + chunk)
        bars = [text for part in parts if PROGRESS.fullmatch(text := part.decode("utf-8", "replace").strip())]
        if bars and (on_terminal or time.monotonic() - shown_at > 30):
            shown_at = time.monotonic()
            print(
                f"\r\033[K{bars[-1]}" if on_terminal else bars[-1],
                end="" if on_terminal else "\n",
                file=sys.stderr,
                flush=True,
            )
    if on_terminal:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def show_samples(out: Path, corpus: Path, source: str, target: str, count: int = 5) -> None:
    """Print a few test sentences with the translations of the three models."""
    columns = {"source": read_lines(corpus / f"test.{source}"), "reference": read_lines(corpus / f"test.{target}")}
    for name in ("teacher", "plain", "student"):
        columns[name] = read_lines(out / "evaluation" / "hypotheses" / f"{name}.test.txt")
    total = len(columns["source"])
    print(f"\nTranslations of {count} of the {total} test sentences:")
    for index in range(total // (2 * count), total, max(total // count, 1)):
        print()
        for name, lines in columns.items():
            print(f"  {name:<10}{lines[index]}")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output-dir", type=Path, required=True, help="where everything goes; an interrupted job goes on"
    )
    parser.add_argument("--corpus", type=Path, help="directory with train, valid and test files (default: UI strings)")
    parser.add_argument("--teacher", type=Path, help=".nemo to learn from (default: train one)")
    parser.add_argument("--source", default="de", help="source language, the suffix of the files")
    parser.add_argument("--target", default="en", help="target language, the suffix of the files")
    parser.add_argument("--vocab-size", type=int, default=4000, help="of the tokenizer, where no teacher is given")
    parser.add_argument("--teacher-steps", type=int, default=700, help="training steps of the teacher")
    parser.add_argument("--student-steps", type=int, default=700, help="training steps of student and plain twin")
    parser.add_argument("--seed", type=int, default=1, help="of student and plain twin")
    return parser.parse_args()


def check_own_files(args: argparse.Namespace) -> None:
    """Refuse a corpus or a teacher that cannot serve before anything runs."""
    missing = [] if args.teacher is None or args.teacher.is_file() else [str(args.teacher)]
    if args.corpus is not None:
        names = [f"{split}.{lang}" for split in ("train", "valid", "test") for lang in (args.source, args.target)]
        missing += [str(args.corpus / name) for name in names if not (args.corpus / name).is_file()]
    if missing:
        raise InputError(f"no file {', '.join(missing)}; a corpus has train, valid and test files per language")


def main() -> None:
    """Run the job."""
    args = parse_arguments()
    check_own_files(args)
    out = args.output_dir
    start = time.monotonic()
    done_path = out / "stages.json"
    done = read_json(done_path) if done_path.exists() else {}
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}
    for stage in plan(args):
        if done.get(stage.name) == stage.command and stage.result.exists():
            print(f"[{stage.name}] finished before")
            continue
        run_stage(stage, out, environment)
        done[stage.name] = stage.command
        write_json_atomic(done_path, done)
    print("\n" + (out / "report" / "report.md").read_text("utf-8"))
    show_samples(out, args.corpus or out / "corpus", args.source, args.target)
    plot = out / "report" / "quality_vs_size.png"
    print(f"\nPlot: {plot}\nEverything is under {out}; this took {(time.monotonic() - start) / 60:.1f} minutes.")


if __name__ == "__main__":
    with reported_errors("end_to_end"):
        main()
