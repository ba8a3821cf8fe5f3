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
import errno
import hashlib
import os
import random

import pytest

from nemo_distill.errors import StorageError
from nemo_distill.support.seen import DIGEST_BYTES, Seen


def digest(text: object) -> bytes:
    return hashlib.blake2b(str(text).encode(), digest_size=DIGEST_BYTES).digest()


def test_it_says_what_a_set_says(tmp_path):
    generator, seen, known = random.Random(3), Seen(tmp_path, 700), set()
    for _ in range(3000):
        key = digest(generator.randrange(700))
        assert seen.add(key) == (key in known)
        known.add(key)


def test_keys_of_one_slot_stay_apart_and_go_on_at_the_beginning(tmp_path):
    """All belong into the last of 21 slots."""
    keys = [(20 + 21 * number).to_bytes(8, "little") + bytes(8) for number in range(10)]
    seen = Seen(tmp_path, 10)
    assert [seen.add(key) for key in keys * 2] == [False] * 10 + [True] * 10


def test_keys_that_differ_in_their_second_half_alone(tmp_path):
    seen = Seen(tmp_path, 2)
    assert not seen.add(b"a" * 16)
    assert not seen.add(b"a" * 15 + b"b")
    assert seen.add(b"a" * 16)


def test_nothing_of_it_is_left_and_it_never_fills(tmp_path):
    seen = Seen(tmp_path, 1)
    assert not os.listdir(tmp_path)
    seen.add(digest(1))
    assert seen.add(digest(1))
    with pytest.raises(ValueError, match="more keys than were announced"):
        seen.add(digest(2))


def test_a_full_disk_is_said_before_any_work(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nemo_distill.support.seen.os.posix_fallocate", full)
    with pytest.raises(StorageError, match=f"'{tmp_path}' cannot be written .No space left on device.; make room"):
        Seen(tmp_path, 1000)
