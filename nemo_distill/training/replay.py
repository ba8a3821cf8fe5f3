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
"""What makes a resumed run the run that was stopped: random numbers and the order of the data, as functions of place.

No generator's state is stored. Before every batch all generators are seeded from the run's seed, the process, the
epoch and the number of the batch. The order of an epoch's data follows from the run's seed and the epoch. So a run
that starts in the middle does there what it would have done without the stop.
"""

import random

import numpy as np
import torch


def seed_generators(*place: int) -> None:
    """Seed Python's, NumPy's and torch's generators (all devices) from numbers that say where a run is.

    Example:
        >>> seed_generators(1, 0, 3, 250)  # seed 1, process 0, epoch 3, batch 250
    """
    words = np.random.SeedSequence(place).generate_state(8, np.uint64).tolist()
    torch.manual_seed(words[0])
    random.seed(words[1])
    np.random.seed(np.array(words[2:], dtype=np.uint64).view(np.uint32))


def settle_progress(
    loops: dict, epoch: int, batches_in_epoch: float, logged_steps: int, accumulated: int
) -> tuple[int, int, bool, int]:
    """Make Lightning's counters say that every batch that was processed is done, whichever hook a checkpoint is from.

    Lightning counts a batch as completed, and an epoch as over, at other times than checkpoints are written, so that
    a run resumed from them repeats a batch or takes a cut epoch for a whole one. In the middle of an accumulated step,
    whose gradients no checkpoint holds, they go back to its first batch.

    Args:
        loops: the `fit_loop` part of a checkpoint; changed in place.
        epoch: number of the epoch that is running, or that ended last.
        batches_in_epoch: of this process.
        logged_steps: optimizer steps that the logs have counted.
        accumulated: batches of an optimizer step.

    Returns:
        Where to go on: the epoch, the batches of it that are done, whether these are all of it, and how many batches
        are to be trained again.
    """
    epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    place = batches["current"]["processed"]
    whole = place >= batches_in_epoch or batches["is_last_batch"]
    if whole and epochs["current"]["processed"] > epoch:
        epoch, place = epoch + 1, 0
        whole = False
    again = 0 if whole else place % accumulated
    place -= again
    begun = epoch + (place > 0)  # Lightning tells an epoch to go on with by this
    epochs["total"] = dict.fromkeys(epochs["total"], epoch)
    epochs["current"] = {"ready": begun, "started": begun, "processed": epoch, "completed": epoch}
    batches["total"] = dict.fromkeys(batches["total"], batches["total"]["processed"] - again)
    batches["current"] = dict.fromkeys(batches["current"], place)
    batches["is_last_batch"] = whole
    validation = loops["epoch_loop.val_loop.batch_progress"]
    validation["current"] = dict.fromkeys(validation["current"], 0)
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = logged_steps
    return epoch, place, whole, again
