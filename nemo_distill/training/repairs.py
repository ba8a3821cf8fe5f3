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
"""Faults of NeMo that stop a plain `MTEncDecModel` from training or validating properly, mended on the instance.

Besides, what NeMo and TensorBoard do around a run and should not. Nothing here changes weights, state dict or archive.
"""

import errno
import logging
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_bottleneck_model import MTBottleneckModel
from nemo.collections.nlp.modules.common.transformer import BeamSearchSequenceGenerator
from nemo.utils import exp_manager as nemo_manager

from nemo_distill.data.languages import directions
from nemo_distill.data.processors import RawTextProcessor
from nemo_distill.decoding.search import repair_search
from nemo_distill.errors import StorageError
from nemo_distill.support.compat import NEMO_2, lightning
from nemo_distill.training import validation
from nemo_distill.training.reading import keep_to_positions
from nemo_distill.training.trainer import process_group

pl = lightning()
_VALIDATION = ("eval_step", "eval_epoch_end")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@contextmanager
def without_git() -> Iterator[None]:
    """Context in which NeMo's exp_manager asks git nothing: a repository's configuration names programs that git runs,
    and its diff, which may be private, would be kept in the log.
    """
    before = nemo_manager.get_git_hash, nemo_manager.get_git_diff
    nemo_manager.get_git_hash, nemo_manager.get_git_diff = lambda: (False, ""), str
    try:
        yield
    finally:
        nemo_manager.get_git_hash, nemo_manager.get_git_diff = before


@contextmanager
def knowing_slurm() -> Iterator[None]:
    """Context in which NeMo's exp_manager knows when Slurm has started the processes of a run on several nodes.

    It asks the trainer for an attribute that Lightning 2 has no more, takes that for a no, and logs as an error that
    Slurm does not handle them.
    """
    before = nemo_manager.check_slurm
    nemo_manager.check_slurm = _is_managed_by_slurm
    try:
        yield
    finally:
        nemo_manager.check_slurm = before


def _is_managed_by_slurm(trainer: pl.Trainer) -> bool:
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return isinstance(environment, pl.plugins.environments.SLURMEnvironment)


@contextmanager
def one_storage_error(directory: Path) -> Iterator[None]:
    """Context in which logs and TensorBoard's events that cannot be written are one error, without tracebacks before.

    Raises:
        StorageError: there is no room.
    """
    raised, hook = logging.raiseExceptions, threading.excepthook

    def pass_over_storage(arguments: threading.ExceptHookArgs) -> None:  # the writer raises it again where it is used
        if not isinstance(arguments.exc_value, OSError):
            hook(arguments)

    logging.raiseExceptions, threading.excepthook = False, pass_over_storage
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in _NO_ROOM:
            raise
        raise StorageError(
            f"'{directory}' cannot be written: {error.strerror}; make room, and run the same command again"
        ) from error
    finally:
        logging.raiseExceptions, threading.excepthook = raised, hook


def repair_model(model: MTEncDecModel) -> MTEncDecModel:
    """Mend one model in place, and return it.

    - Validation hypotheses no longer depend on the batch, and decoding no longer unfreezes what it used.
    - Languages given as `ignore` (raw text) get a processor that does nothing; NeMo's validation calls one regardless.
    - A many-to-one model has a language id for each of its languages, none; NeMo has an empty list, and fails on it.
    - A SentencePiece tokenizer with added special tokens (`sentencepiece_legacy`) leaves start, end and padding out of
      text; NeMo writes `<pad>` into references and translations where that token was added.
    - Validation scores are right for any number of processes and sets, see `validation.py` here; they need no
      process group. A model class with validation methods of its own keeps those; they find a group at the end.
    - A validation in the middle of an accumulated step leaves the step's gradients; under Lightning 2.0 it clears them
      (mended in 2.1: https://github.com/Lightning-AI/pytorch-lightning/pull/18710).
    - Training pairs that the model has no positions for are left out, see `keep_to_positions`.
    """
    if type(model.beam_search) is BeamSearchSequenceGenerator:
        repair_search(model)
    for tokenizer in (model.encoder_tokenizer, model.decoder_tokenizer):
        if getattr(tokenizer, "legacy", False) and "ids_to_text" not in vars(tokenizer):
            tokenizer.ids_to_text = partial(_text_alone, tokenizer)
    if model.multilingual:
        for side in ("source", "target"):
            processors = getattr(model, f"{side}_processor_list")
            processors[:] = [processor or RawTextProcessor() for processor in processors]
        model.multilingual_ids = [direction.token for direction in directions(model)]
    else:
        model.source_processor = model.source_processor or RawTextProcessor()
        model.target_processor = model.target_processor or RawTextProcessor()
    stock = [[getattr(kind, name) for name in _VALIDATION] for kind in (MTEncDecModel, MTBottleneckModel)]
    if [getattr(type(model), name) for name in _VALIDATION] in stock:
        model.eval_step = types.MethodType(validation.eval_step, model)
        model.eval_epoch_end = types.MethodType(validation.eval_epoch_end, model)
    else:
        model.eval_epoch_end = types.MethodType(_eval_epoch_end_in_group, model)
    if not NEMO_2:
        model.zero_grad = types.MethodType(_zero_grad_between_steps, model)
    keep_to_positions(model)
    return model


def _text_alone(tokenizer, ids) -> str:
    """Return the text of token ids without start, end and padding."""
    marks = {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id}
    return type(tokenizer).ids_to_text(tokenizer, [int(each) for each in ids if int(each) not in marks])


def _eval_epoch_end_in_group(model: MTEncDecModel, *args, **kwargs) -> None:
    with process_group():
        type(model).eval_epoch_end(model, *args, **kwargs)


def _zero_grad_between_steps(model: MTEncDecModel, set_to_none: bool = True) -> None:
    trainer = model._trainer
    in_fit = trainer is not None and trainer.state.fn == "fit" and trainer.validating
    if not (in_fit and trainer.fit_loop._should_accumulate()):
        type(model).zero_grad(model, set_to_none)
