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
"""A job of several commands: what has finished is not repeated, what does not need each other runs side by side."""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from nemo_distill.errors import InputError
from nemo_distill.support.files import write_json_atomic
from nemo_distill.support.incoming import read_json

RECORD_NAME = "stages.json"
LOGS_DIR = "logs"
PROGRESS = re.compile(r"(?:training|translating|pseudo-labels|selecting):.*?\[.*?\]")


@dataclass
class Stage:
    """One command of a job."""

    name: str
    command: list[str]
    result: Path
    """What exists once the stage has finished."""
    needs: tuple[str, ...] = ()
    """Names of the stages that must have finished before."""
    again: bool = False
    """Run it again where its command, or a stage before it, has changed; else that is an error."""


def run_stages(stages: Sequence[Stage], directory: Path, jobs: int = 1) -> None:
    """Run the commands of a job, each once.

    A stage has finished when its result exists and `stages.json` in `directory` says that it was made by this very
    command after these very stages. Its output goes to `logs/NAME.log`, its progress to the terminal.

    Args:
        stages: in any order; what one needs must be among them.
        directory: of the job.
        jobs: stages to run side by side, each on its share of the cores.

    Raises:
        InputError: a stage failed, with the end of its log; or a stage has a result that was made in another way.
    """
    by_name = {stage.name: stage for stage in stages}
    keys = _keys(by_name)
    record_path = directory / RECORD_NAME
    done = read_json(record_path) if record_path.exists() else {}
    if not isinstance(done, dict):
        raise InputError(f"'{record_path}' is not the record of a job's stages; remove it, and they are run again")
    waiting = []
    for name in by_name:
        if not by_name[name].result.exists():
            waiting.append(name)
        elif done.get(name) == keys[name]:
            print(f"[{name}] finished before", flush=True)
        elif name in done and not by_name[name].again:
            raise InputError(
                f"stage {name} has finished before, with other settings or after other stages; remove "
                f"{by_name[name].result.parent}, or give the job another output directory"
            )
        else:
            waiting.append(name)  # or it was interrupted with its result written: the command knows what is left
    jobs = max(min(jobs, len(waiting)), 1)
    threads = max(len(os.sched_getaffinity(0)) // jobs, 1)
    running: dict[Future, str] = {}
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        try:
            while waiting or running:
                unfinished = {*waiting, *running.values()}
                ready = [name for name in waiting if not unfinished & set(by_name[name].needs)]
                for name in ready[: jobs - len(running)]:
                    waiting.remove(name)
                    running[pool.submit(run_stage, by_name[name], directory, threads)] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    future.result()
                    done[name] = keys[name]
                    write_json_atomic(record_path, done)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # what runs ends, what waits does not start
            raise


def _keys(stages: dict[str, Stage]) -> dict[str, str]:
    """Return for each stage a hash of its command and of all that comes before it."""
    keys: dict[str, str] = {}
    for name in TopologicalSorter({name: stage.needs for name, stage in stages.items()}).static_order():
        stage = stages[name]
        # neither which Python runs it, nor where this checkout lies
        command = [os.path.basename(stage.command[1]), *stage.command[2:]]
        described = json.dumps([command, [keys[need] for need in stage.needs]])
        keys[name] = hashlib.sha256(described.encode()).hexdigest()
    return keys


def run_stage(stage: Stage, directory: Path, threads: int) -> None:
    """Run one stage on `threads` cores.

    Raises:
        InputError: the stage failed; the message holds the end of its log.
    """
    log_path = directory / LOGS_DIR / f"{stage.name}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    print(f"\n[{stage.name}] {shlex.join(stage.command)}", flush=True)
    start = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            stage.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0, env=environment
        )
        try:
            _follow(process, log)
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


def _follow(process: subprocess.Popen, log) -> None:
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
