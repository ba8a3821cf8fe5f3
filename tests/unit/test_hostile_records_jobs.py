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
"""Results of stages and of runs are those that were made, or the job says that they are not."""

import json
import sys

import pytest
from damage import small_disk, tree

from nemo_distill.errors import InputError
from nemo_distill.jobs import Stage, run_stages
from nemo_distill.jobs.running import Processes
from nemo_distill.support.incoming import read_json
from nemo_distill.training.directory import archive_path, is_finished, note_archive
from nemo_distill.training.trainer import SafeCheckpointIO


def stage(tmp_path, again: bool = False) -> Stage:
    code = "import sys; open(sys.argv[1], 'w').write('made')"
    return Stage("one", [sys.executable, "-c", code, str(tmp_path / "one")], tmp_path / "one", again=again)


def test_a_result_that_has_changed_is_not_taken_for_the_stage(tmp_path):
    run_stages([stage(tmp_path)], tmp_path)
    (tmp_path / "one").write_text("swapped")
    with pytest.raises(InputError, match=r"stage one has finished before, and \S+one has changed since; remove"):
        run_stages([stage(tmp_path)], tmp_path)
    assert (tmp_path / "one").read_text() == "swapped"
    run_stages([stage(tmp_path, again=True)], tmp_path)
    assert (tmp_path / "one").read_text() == "made"


def test_a_record_without_the_hash_of_the_result_proves_nothing(tmp_path, capsys):
    """As earlier versions wrote it: the command runs, and knows its own result."""
    run_stages([stage(tmp_path)], tmp_path)
    record = tmp_path / "stages.json"
    record.write_text(json.dumps({name: entry["key"] for name, entry in read_json(record).items()}))
    (tmp_path / "one").write_text("swapped")
    run_stages([stage(tmp_path)], tmp_path)
    assert "finished before" not in capsys.readouterr().out
    assert (tmp_path / "one").read_text() == "made"
    assert read_json(record)["one"]["sha256"]


@pytest.mark.parametrize(
    "content",
    [{"one": "my stage"}, {"act 1": "the forest"}, {"one": {"key": "x"}}, {"one": {"key": "0" * 64, "sha256": ""}}],
)
def test_a_record_that_is_not_of_a_job_is_refused_and_stays(tmp_path, content):
    (tmp_path / "stages.json").write_text(json.dumps(content))
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"stages\.json.*move it away"):
        run_stages([stage(tmp_path)], tmp_path)
    assert tree(tmp_path) == before


def test_a_stage_that_leaves_no_result_has_failed(tmp_path):
    with pytest.raises(InputError, match="stage one ended well without its result"):
        run_stages([Stage("one", ["true"], tmp_path / "one")], tmp_path)
    assert read_json(tmp_path / "stages.json")["one"]["sha256"] is None


def test_another_archive_is_not_the_end_of_a_run(tmp_path):
    archive = archive_path(tmp_path, "a")
    assert not is_finished(archive, {})
    archive.write_bytes(b"weights")
    with pytest.raises(InputError):  # nothing is noted, and it is no archive
        is_finished(archive, {})
    note_archive(archive, archive)
    assert is_finished(archive, {})
    archive.write_bytes(b"others")
    with pytest.raises(InputError, match=r"a\.nemo' is not what this run wrote there; move it away"):
        is_finished(archive, {})


@pytest.mark.parametrize("name", ["../x", "", "a/b", None, True, "a\nb", ".." * 60])
def test_the_name_of_a_run_is_no_path(tmp_path, name):
    if name is True:
        pytest.skip("a word")
    with pytest.raises(InputError, match="name: got"):
        archive_path(tmp_path, name)


def test_a_full_disk_ends_a_stage_and_the_job_says_so(tmp_path):
    """The process is read on, or it would wait for ever to be read."""
    code = "import sys\nfor _ in range(3000): print('x' * 1000, flush=True)"
    with small_disk(10_000), pytest.raises(OSError, match="File too large"):
        Processes().run("one", [sys.executable, "-c", code], tmp_path, 1)


def test_a_checkpoint_that_is_no_section_is_refused(tmp_path):
    import torch

    torch.save([1], tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=r"a\.ckpt cannot be read as a checkpoint .*: it holds a list"):
        SafeCheckpointIO().load_checkpoint(tmp_path / "a.ckpt")
