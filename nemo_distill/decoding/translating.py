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
"""Text as it comes: lines in, their translations out, of any model; what `nemo-distill translate` does.

Lines are read and written by the program that lies in every export, and an export is opened by it too: without NeMo,
so that it starts at once.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import IO, BinaryIO

from tqdm import tqdm

from nemo_distill.config.languages import Languages
from nemo_distill.decoding import exported_program
from nemo_distill.decoding.foreign_files import foreign_kind, is_foreign
from nemo_distill.errors import InputError, StorageError
from nemo_distill.support import text_files
from nemo_distill.support.composed import Decomposed
from nemo_distill.support.compressed import check_available, open_atomic, suffix_of
from nemo_distill.support.lock import locked_file
from nemo_distill.support.manifest import refuse_inputs_as_outputs
from nemo_distill.support.progress_bar import progress_bar
from nemo_distill.support.warned import marked_logger

LINES_AT_ONCE = 2000
"""Of a file; of standard input it is what is there."""
Found = list[list[tuple[str, float]]]
"""Of each line its hypotheses, best first: raw text, and the sum of the log-probabilities of its tokens in nats."""
_logger = marked_logger(__name__)


@dataclass(frozen=True)
class LineSettings:
    """What translates, and how."""

    model: str | os.PathLike
    """A `.nemo` archive, or a directory; see `open_engine`."""
    engine: str = "auto"
    quantization: str | None = None
    device: str | None = None
    """By default a GPU if there is one."""
    languages: Languages = field(default_factory=Languages)
    beam_size: int | None = None
    """By default the model's own."""
    n_best: int | None = None
    """Write JSON with so many hypotheses of each line, and their scores; None: write the best one as text."""
    batch_tokens: int = 4096


def translate_text(
    settings: LineSettings,
    input_path: str | os.PathLike | None = None,
    output_path: str | os.PathLike | None = None,
    overwrite: bool = False,
) -> None:
    """Translate a file or standard input, line by line, into a file or to standard output.

    Of standard input those lines are translated together that are there, and written at once: who writes a line and
    waits gets its translation. What a line gets does not depend on the others. A file is written whole or not at all.

    Args:
        settings: what translates, and how.
        input_path: a text file, `.gz` and `.zst` decompressed; None: standard input.
        output_path: of the translations, compressed where it ends in `.gz` or `.zst`; None: standard output.
        overwrite: replace what is at `output_path`.

    Raises:
        InputError: the model cannot be opened; bytes that are not UTF-8; `output_path` is there already, is the input
            or the model, or is written by another process; a standard stream is closed.
        StorageError: standard output cannot be written.
    """
    output = sys.stdout
    if (input_path is None and sys.stdin is None) or (output_path is None and output is None):
        raise InputError("standard input or output is closed; give --input and --output")
    # what libraries print is no translation
    with contextlib.ExitStack() as stack, contextlib.redirect_stdout(sys.stderr):
        if output_path is None:
            write = _written_at_once(output.buffer)
        else:
            model = Path(settings.model)
            inputs = [model, *(model.iterdir() if model.is_dir() else ())]
            inputs += [] if input_path is None else [input_path]
            write = stack.enter_context(_written(Path(output_path), inputs, overwrite)).write
        try:
            translate = stack.enter_context(open_lines(settings))
            bar = stack.enter_context(_progress_bar(input_path, output if output_path is None else None))
            lines = exported_program.read_lines(sys.stdin.buffer) if input_path is None else _lines_of(input_path)
            name = "standard input" if input_path is None else f"'{input_path}'"
            translate_lines(translate, _looked_at(lines, name), write, settings.n_best, bar)
        except exported_program.ExportError as error:
            raise InputError(str(error)) from error
        except ImportError as error:  # of what an export's text needs
            raise InputError(f"{error}; README.md of the export says what to install") from error


def translate_lines(
    translate: Callable[[list[str], int], Found],
    lines: Iterable[list[str]],
    write: Callable[[bytes], object],
    n_best: int | None,
    bar: tqdm,
) -> None:
    """Translate lists of lines, and write each as soon as it is translated."""
    number = 1
    for texts in lines:
        written = exported_program.output_lines(number, texts, translate(texts, number), n_best)
        write(written.encode())
        number += len(texts)
        bar.update(len(texts))


@contextlib.contextmanager
def open_lines(settings: LineSettings) -> Iterator[Callable[[list[str], int], Found]]:
    """Give the block what translates a list of lines, of which the first has this number.

    Raises:
        InputError: as `open_engine`; more hypotheses than the beam has.
    """
    if is_foreign(settings.model) and settings.engine != "nemo" and foreign_kind(Path(settings.model)) == "export":
        model = exported_program.Model(settings.model, _device_of_export(settings.device))
        if settings.quantization in (None, model.quantization):  # else the engine says what is wrong
            yield _by_program(model, settings)
            return
    from nemo.utils import logging as nemo_logging

    from nemo_distill.decoding.opening import open_engine
    from nemo_distill.support.device import choose_device

    with nemo_logging.temp_verbosity(logging.WARNING):
        device = choose_device(settings.device)
        engine = open_engine(
            settings.model, settings.engine, settings.quantization, device, languages=settings.languages
        )
        search = engine.default_settings
        if settings.beam_size is not None:
            search = replace(search, beam_size=settings.beam_size)
        search = replace(search, num_hypotheses=settings.n_best or 1)
        engine.translate([], search, settings.batch_tokens)  # refuses what it cannot do before anything is read

        def translate(texts: list[str], first: int) -> Found:
            engine.first_line = first
            found: Found = [[] for _ in texts]
            for batch in engine.translate(texts, search, settings.batch_tokens):
                for place, hypotheses in batch:
                    found[place] = [(one.text, one.score) for one in hypotheses]
            return found

        yield translate


def _by_program(model: exported_program.Model, settings: LineSettings) -> Callable[[list[str], int], Found]:
    options = settings.languages.source, settings.languages.target, settings.beam_size, settings.n_best or 1
    model.check(*options, settings.batch_tokens)

    def translate(texts: list[str], first: int) -> Found:
        found = model.hypotheses(texts, *options, settings.batch_tokens)
        for place in model.cut:
            _logger.warning("line %d is longer than the model takes, and cut", first + place)
        return found

    return translate


def _device_of_export(asked: str | None) -> str:
    """Return the device asked for; else a GPU if there is one that CTranslate2 can use.

    Raises:
        InputError: it cannot use the one that is asked for.
    """
    import ctranslate2

    from nemo_distill.decoding.cuda_libraries import device_fault

    exported_program.check_device(asked or "cuda")
    if asked is None and ctranslate2.get_cuda_device_count() == 0:
        return "cpu"
    fault = device_fault(asked or "cuda")
    if fault and asked:
        raise InputError(f"{fault}. Or give the device cpu")
    if fault:
        _logger.warning("%s; decoding on the CPU", fault)
    return "cpu" if fault else asked or "cuda"


def _lines_of(path: str | os.PathLike) -> Iterator[list[str]]:
    lines = text_files.iterate_lines(path)
    while texts := list(islice(lines, LINES_AT_ONCE)):
        yield texts


def _looked_at(lines: Iterable[list[str]], name: str) -> Iterator[list[str]]:
    """Yield lists of lines, and warn behind the last one of decomposed letters."""
    decomposed = Decomposed()
    for texts in lines:
        decomposed.look(texts)
        yield texts
    if warning := decomposed.warning(name):
        _logger.warning(warning)


def _written_at_once(stream: BinaryIO) -> Callable[[bytes], None]:
    def write(content: bytes) -> None:
        try:
            stream.write(content)
            stream.flush()
        except BrokenPipeError:  # the reader has gone
            raise
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or Python would try again at its end
            raise StorageError(f"standard output cannot be written ({error.strerror})") from error

    return write


@contextlib.contextmanager
def _written(path: Path, inputs: Sequence[str | os.PathLike], overwrite: bool) -> Iterator[IO[bytes]]:
    """Give the block a stream whose content, compressed by its name, is at `path` when the block ends well."""
    check_available(suffix_of(path))
    with locked_file(path):
        refuse_inputs_as_outputs(inputs, [path])
        if os.path.lexists(path) and not overwrite:
            raise InputError(f"'{path}' exists; give another name, or --overwrite to replace it")
        with open_atomic(path) as stream:
            yield stream


def _progress_bar(source: str | os.PathLike | None, output: object) -> tqdm:
    """Return a bar, shown where the terminal shows neither the text nor its translation; in a log of files alone."""
    streams = [stream for stream in (sys.stdin if source is None else None, output) if stream is not None]
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    shown = (source is not None or on_terminal) and not (on_terminal and any(each.isatty() for each in streams))
    return progress_bar("translating", text_files.count_lines(source) if shown and source else None, shown=shown)
