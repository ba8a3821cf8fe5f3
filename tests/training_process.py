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
"""Training runs in processes of their own, which a test can stop, kill and start again.

They are forked from a server that has imported NeMo once, which spares each of them the imports.
"""

import contextlib
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["nemo_distill.training.run", "nemo_distill.model", "nemo.collections.nlp.models"])


class TrainingProcesses:
    """The processes of one run, started as `torchrun` would start them.

    Args:
        config: of `run_training`, as plain data.
        diary: file that the first process writes one line to for each thing it does, such as `step 4`.
        plain: train a stock `MTEncDecModel`, else a student.
        world_size: number of processes.
        hold: a line of the diary; where it is written, the first process waits for `let_go`.
    """

    def __init__(
        self, config: dict[str, Any], diary: Path, plain: bool = True, world_size: int = 1, hold: str = ""
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.diary = diary
        self.processes = [
            _CONTEXT.Process(target=_train, args=(config, str(diary), plain, rank, world_size, port, hold))
            for rank in range(world_size)
        ]
        for process in self.processes:
            process.start()

    def lines(self) -> list[str]:
        """Return the diary so far, of all runs that have written to it."""
        return self.diary.read_text("utf-8").splitlines() if self.diary.exists() else []

    def wait_for(self, condition: Callable[[list[str]], bool], timeout: float = 120) -> None:
        """Wait until the diary fulfils a condition, or all is over."""
        deadline = time.monotonic() + timeout
        while not condition(self.lines()):
            if not any(process.is_alive() for process in self.processes):
                return
            assert time.monotonic() < deadline, f"waited in vain; the diary ends {self.lines()[-3:]}"
            time.sleep(0.002)

    def send(self, number: int, rank: int = 0) -> None:
        """Send a signal to one process, if it still runs."""
        if self.processes[rank].is_alive():  # else its number may be another's
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.processes[rank].pid, number)

    def let_go(self) -> None:
        """End the wait of the first process."""
        self.diary.with_suffix(".go").touch()

    def statuses(self, timeout: float = 120) -> list[int]:
        """Return the exit statuses, negative for a signal; kill what has not ended in time."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0))
        hanging = [process for process in self.processes if process.is_alive()]
        for process in hanging:
            process.kill()
            process.join()
        assert not hanging, f"{len(hanging)} of {len(self.processes)} processes hung; diary {self.lines()[-5:]}"
        return [process.exitcode for process in self.processes]


def _train(config: dict[str, Any], diary: str, plain: bool, rank: int, world_size: int, port: int, hold: str) -> None:
    if world_size > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "tests"}
        os.environ |= {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    import torch
    from nemo.collections.nlp.models import MTEncDecModel
    from omegaconf import OmegaConf

    from nemo_distill.model import DistilledMTEncDecModel
    from nemo_distill.support.compat import lightning
    from nemo_distill.training import run as training
    from nemo_distill.training.trainer import SafeCheckpointIO

    torch.set_num_threads(1)
    build_trainer = training.build_trainer
    with open(diary if rank == 0 else os.devnull, "a", encoding="utf-8", buffering=1) as file:

        def write(*words: Any) -> None:
            print(*words, file=file)
            while rank == 0 and hold == " ".join(map(str, words)) and not Path(diary).with_suffix(".go").exists():
                time.sleep(0.002)

        class Diary(lightning().Callback):
            def on_train_batch_start(self, trainer, *args):
                write("trains", trainer.global_step + 1)

            def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
                write("step", trainer.global_step, outputs["loss"].item(), int(batch[0].sum()))

            def on_validation_batch_start(self, trainer, *args):
                write("validates", trainer.global_step)

            def on_validation_end(self, trainer, *args):
                write("scored", trainer.global_step, float(trainer.callback_metrics["val_sacreBLEU"]))

        class Storage(SafeCheckpointIO):
            def save_checkpoint(self, checkpoint, path, storage_options=None):
                write("saves", checkpoint["global_step"])
                super().save_checkpoint(checkpoint, path, storage_options)
                write("saved", checkpoint["global_step"])

        def with_diary(section):
            trainer = build_trainer(section)
            trainer.callbacks.insert(0, Diary())
            trainer.strategy.checkpoint_io = Storage()
            return trainer

        training.build_trainer = with_diary
        training.run_training(OmegaConf.create(config), MTEncDecModel if plain else DistilledMTEncDecModel)
        write("finished")
