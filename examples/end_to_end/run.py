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

    python examples/end_to_end/run.py
    python examples/end_to_end/run.py --corpus DIR --teacher my.nemo
    python examples/end_to_end/run.py --output-dir runs/seeds --seeds 1 2 3

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
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from nemo_distill.errors import InputError, reported_errors
from nemo_distill.files import read_json, read_lines, write_json_atomic

EXAMPLES = Path(__file__).resolve().parent.parent
CLI = [sys.executable, "-m", "nemo_distill.cli"]
PROGRESS = re.compile(r"(?:training|translating):.*?\[.*?\]")


@dataclass
class Stage:
    """One command of the job."""

    name: str
    command: list[str]
    result: Path
    """What exists once the stage has finished."""


def plan(args: argparse.Namespace) -> list[list[Stage]]:
    """Return the stages of the job in order; those in one list do not need each other."""
    out = args.output_dir
    corpus = args.corpus or out / "corpus"
    waves = []
    if args.corpus is None:
        command = [*CLI, "corpus", "ui-strings", "--source", args.source, "--target", args.target]
        waves.append([Stage("corpus", [*command, "--output-dir", str(corpus)], corpus / "manifest.json")])
    data = [f"data.dir={corpus}", f"data.source={args.source}", f"data.target={args.target}"]
    data += [f"data.tokens_in_batch={args.batch_tokens}", f"data.max_seq_length={args.max_length}"]
    if args.teacher is None:
        tokenizer = out / "tokenizer" / "tokenizer.model"
        texts = [str(corpus / f"train.{language}") for language in (args.source, args.target)]
        command = [*CLI, "tokenizer", "--input", *texts, "--vocab-size", str(args.vocab_size)]
        waves.append([Stage("tokenizer", [*command, "--output-dir", str(tokenizer.parent)], tokenizer)])
        data.append(f"data.tokenizer={tokenizer}")
        teacher = out / "teacher" / "teacher.nemo"
        overrides = [*data, f"model={args.teacher_model}"]
        waves.append([train_stage("teacher", "train_nmt.py", out, overrides, args.teacher_steps, args.validations)])
    else:
        teacher = args.teacher
        data += tokenizer_overrides(teacher, out / "tokenizer")
    students = []
    for seed in args.seeds:
        suffix = f"@seed{seed}" if len(args.seeds) > 1 else ""
        overrides = [*data, f"model={args.student_model}", f"seed={seed}"]
        students.append(
            train_stage(f"plain{suffix}", "train_nmt.py", out, overrides, args.student_steps, args.validations)
        )
        overrides = [*overrides, f"teacher={teacher}"]
        students.append(
            train_stage(f"student{suffix}", "distill.py", out, overrides, args.student_steps, args.validations)
        )
    waves.append(students)
    names = [stage.name for stage in students]
    command = [*CLI, "evaluate", "--model", str(teacher), *(str(stage.result) for stage in students)]
    command += ["--names", "teacher", *names, "--compare"]
    command += [f"{student}:{plain}" for plain, student in zip(names[::2], names[1::2], strict=True)]
    command += ["--test", f"test:{corpus / f'test.{args.source}'}:{corpus / f'test.{args.target}'}"]
    evaluation = out / "evaluation"
    waves.append([Stage("evaluation", [*command, "--output-dir", str(evaluation)], evaluation / "results.json")])
    command = [*CLI, "report", "--results", str(evaluation), "--output-dir", str(out / "report")]
    command += ["--teacher", "teacher", "--plain", "plain"]
    waves.append([Stage("report", command, out / "report" / "report.md")])
    return waves


def train_stage(name: str, script: str, out: Path, overrides: list[str], steps: int, validations: int) -> Stage:
    """Return the stage that trains one model, validated some times on the way."""
    settings = [f"name={name}", f"output_dir={out / name}", f"trainer.max_steps={steps}"]
    settings += [f"trainer.val_check_interval={max(steps // validations, 1)}"]
    return Stage(name, [sys.executable, str(EXAMPLES / script), *overrides, *settings], out / name / f"{name}.nemo")


def tokenizer_overrides(teacher: Path, directory: Path) -> list[str]:
    """Take the tokenizers out of the user's teacher; return the overrides that make a student read text alike."""
    from nemo_distill.archive import extract_tokenizers, read_archive_config

    config = read_archive_config(teacher)
    overrides = [f"model.{key}={config.get(key) or 'null'}" for key in ("src_language", "tgt_language")]
    for side, tokenizer in extract_tokenizers(teacher, directory).items():
        overrides += [f"model.{side}_tokenizer.{key}={value}" for key, value in tokenizer.items()]
    return ["data.tokenizer=null", *overrides]


def run_stage(stage: Stage, out: Path, threads: int) -> None:
    """Run one stage on `threads` cores; its output goes to a log, its progress to the terminal.

    Raises:
        InputError: the stage failed; the message holds the end of its log.
    """
    log_path = out / "logs" / f"{stage.name}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    print(f"\n[{stage.name}] {shlex.join(stage.command)}", flush=True)
    start = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            stage.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0, env=environment
        )
        try:
            follow(process, log, stage.name)
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


def follow(process: subprocess.Popen, log, name: str) -> None:
    """Copy a process's output to `log`; show its progress bars, in place on a terminal, else now and then."""
    on_terminal = sys.stderr.isatty()
    shown_at = time.monotonic()
    pending = b""
    while chunk := os.read(process.stdout.fileno(), 65536):
        log.write(chunk)
        log.flush()
        *parts, pending = re.split(rb"[\r\n]", pending + chunk)
        found = [PROGRESS.search(part.decode("utf-8", "replace")) for part in parts]
        bars = [match.group() for match in found if match]
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
            print(f"  {name:<10}{lines[index]}")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-dir", type=Path, help="where everything goes (default: runs/demo, or its like)")
    parser.add_argument("--corpus", type=Path, help="directory with train, valid and test files (default: UI strings)")
    parser.add_argument("--teacher", type=Path, help=".nemo to learn from (default: train one)")
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="one student and one plain twin for each")
    parser.add_argument(
        "--jobs", type=int, default=1, help="students trained side by side, on a share of the cores each"
    )
    args = parser.parse_args()
    if args.max_length is None:
        args.max_length = 48 if args.corpus is None else 128  # few UI strings are longer
    if args.output_dir is None:
        # another corpus, teacher or language gets a directory of its own
        languages = [] if (args.source, args.target) == ("de", "en") else [args.source, args.target]
        own = [args.corpus.resolve().name] if args.corpus else []
        own += [args.teacher.stem] if args.teacher else []
        args.output_dir = Path("runs", "-".join(["demo", *languages, *own]))
    return args


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
    waves = plan(args)
    for wave in waves:
        waiting = [stage for stage in wave if done.get(stage.name) != stage.command or not stage.result.exists()]
        for stage in wave:
            if stage not in waiting:
                print(f"[{stage.name}] finished before")
        with ThreadPoolExecutor(max_workers=args.jobs) as pool:
            threads = len(os.sched_getaffinity(0)) // min(args.jobs, max(len(waiting), 1))
            futures = {pool.submit(run_stage, stage, out, max(threads, 1)): stage for stage in waiting}
            try:
                for future in as_completed(futures):
                    future.result()
                    done[futures[future].name] = futures[future].command
                    write_json_atomic(done_path, done)
            except BaseException:
                pool.shutdown(cancel_futures=True)  # what runs ends, what waits does not start
                raise
    print("\n" + (out / "report" / "report.md").read_text("utf-8"))
    trained = [stage.name for wave in waves for stage in wave if stage.name.startswith(("plain", "student"))]
    show_samples(out, args.corpus or out / "corpus", args.source, args.target, ["teacher", *trained[:2]])
    plot = out / "report" / "quality_vs_size.png"
    print(f"\nPlot: {plot}\nEverything is under {out}; this took {(time.monotonic() - start) / 60:.1f} minutes.")


if __name__ == "__main__":
    with reported_errors("end_to_end"):
        main()
