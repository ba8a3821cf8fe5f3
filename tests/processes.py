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
"""Run a function in several processes that train together over gloo, as `torchrun` would start them.

The processes are forked from a server that has imported NeMo once, which spares each of them the imports.
"""

import importlib.util
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["nemo_distill.training.run", "nemo_distill.model", "nemo.collections.nlp.models"])


def run_processes(function: Callable, *arguments: Any, world_size: int = 2, timeout: float = 120) -> list[Any]:
    """Call `function(*arguments)` in `world_size` processes; return what each one returned, by rank.

    Args:
        function: at the top of a file, which the processes load too.
        arguments: can be pickled.
        world_size: number of processes.
        timeout: in seconds; where it is over, the processes are killed, and the test fails.

    Raises:
        AssertionError: a process raised, died or did not end; holds its traceback.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(world_size):
        receiver, sender = _CONTEXT.Pipe(duplex=False)
        module = sys.modules[function.__module__]
        called = (module.__name__, module.__file__, function.__name__, arguments)
        process = _CONTEXT.Process(target=_run, args=(sender, rank, world_size, port, called))
        process.start()
        sender.close()
        started.append((process, receiver))
    results, faults = [], []
    try:
        for rank, (_, receiver) in enumerate(started):
            if not receiver.poll(timeout if not faults else 5):
                faults.append(f"process {rank} did not end")
                continue
            try:
                result, fault = receiver.recv()
            except EOFError:
                result, fault = None, "died"
            results.append(result)
            faults += [f"process {rank}: {fault}"] if fault else []
    finally:
        for process, _ in started:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
    assert not faults, "\n".join(faults)
    return results


def _load(name: str, path: str) -> ModuleType:
    """Load a test file under the name that it has in the tests: their package is on no path."""
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(sender, rank: int, world_size: int, port: int, called: tuple) -> None:
    os.environ.update(
        {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "WORLD_SIZE": str(world_size),
            "LOCAL_WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": "tests",
            "GLOO_SOCKET_IFNAME": "lo",
        }
    )
    import torch

    torch.set_num_threads(1)
    name, path, function, arguments = called
    try:
        sender.send((getattr(_load(name, path), function)(*arguments), None))
    except BaseException:
        sender.send((None, traceback.format_exc()))
        raise
