"""How long does a validation take, by CTranslate2 and by NeMo's modules? Run with `make bench`.

Of a model and text that conftest.py names, on all cores that the process may run on; for one of them:

    BENCH_MODEL=student.nemo BENCH_SOURCE=valid.de BENCH_TARGET=valid.en \\
        taskset -c 0 .venv/bin/python -m pytest -m slow tests/benchmarks/test_validation_time.py
"""

import os
import time

import pytest
import torch
from omegaconf import OmegaConf

from nemo_distill.training import validation
from nemo_distill.training.repairs import repair_model
from nemo_distill.training.trainer import build_trainer

SMALLEST_RATIO = 2


@pytest.mark.slow
def test_seconds_of_a_validation(translation_model, sentences, references, tmp_path, monkeypatch, capsys) -> None:
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)  # the other tests keep to one
    for name, lines in (("source", sentences), ("target", references)):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    model = repair_model(translation_model)
    section = {"src_file_name": str(tmp_path / "source"), "tgt_file_name": str(tmp_path / "target")}
    section |= {"tokens_in_batch": 2048, "clean": False, "max_seq_length": 512, "shuffle": False, "num_samples": -1}
    model.setup_validation_data(OmegaConf.create({**section, "drop_last": False, "pin_memory": False}))
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = build_trainer(OmegaConf.create({"accelerator": "cpu", "devices": 1, "max_steps": 1, **quiet}))
    seconds, scores = {}, {}
    for name, at_end in (("CTranslate2", True), ("NeMo's modules", False)):
        monkeypatch.setattr(validation, "_translates_at_end", lambda model, at_end=at_end: at_end)
        start = time.perf_counter()
        scores[name] = trainer.validate(model, verbose=False)[0]["val_sacreBLEU"]
        seconds[name] = time.perf_counter() - start
    with capsys.disabled():
        print(
            f"\n{len(sentences)} sentences, beam {model.beam_search.beam_size}, {threads} threads, seconds and BLEU:"
        )
        for name, value in seconds.items():
            print(f"  {name:<16}{value:8.1f}{scores[name]:8.2f}")
    assert scores["CTranslate2"] == pytest.approx(scores["NeMo's modules"], abs=0.5)
    assert seconds["CTranslate2"] * SMALLEST_RATIO <= seconds["NeMo's modules"]
