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
from .filtering import FilterSettings as FilterSettings
from .given import label_given as label_given
from .labelling import label as label
from .leak_check import check_leaks as check_leaks
from .nbest import NBest as NBest
from .nbest import read_nbest as read_nbest
from .selection import select as select
from .settings import SelectionSettings as SelectionSettings
from .teachers import pseudo_label as pseudo_label
