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
from . import archives as archives
from . import capture as capture
from . import config as config
from . import data as data
from . import decoding as decoding
from . import errors as errors
from . import evaluation as evaluation
from . import jobs as jobs
from . import labels as labels
from . import losses as losses
from . import recipes as recipes
from . import students as students
from . import teachers as teachers
from . import training as training
from .config import DistillationConfig as DistillationConfig
from .mixin import DistillationModelPT as DistillationModelPT
from .model import DistilledMTBottleneckModel as DistilledMTBottleneckModel
from .model import DistilledMTEncDecModel as DistilledMTEncDecModel

__version__: str
