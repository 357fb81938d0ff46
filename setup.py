"""Package metadata. Dependencies are ranges here; requirements.txt has the tested versions."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

# Lower bounds are what the tests run with; upper ones keep out the next major version.
REQUIRED = [
    "dora-search>=0.1.13,<1",
    "filelock>=4.2,<5",
    "huggingface-hub>=2.4,<3",
    "hydra-core>=1.3.8,<2",
    "jinja2>=3.1,<4",
    "julius>=0.2.8,<1",
    "markupsafe>=3.0,<4",
    "matplotlib>=3.11,<4",
    "mne>=1.13,<2",
    "mne-bids>=0.20,<1",
    "numpy>=2.4,<3",
    "omegaconf>=2.3,<3",
    "packaging>=26.3,<27",
    "pandas>=3.1,<4",
    "pyarrow>=26,<27",  # pandas reads and writes the event tables with it
    "requests>=2.34,<3",
    "safetensors>=0.8,<1",  # models that are passed on
    "scipy>=1.17,<2",
    "soundfile>=0.14,<1",
    "submitit>=1.5.4,<2",
    "torch>=2.13,<3",
    "tqdm>=4.70,<5",
    "treetable>=0.2.6,<1",  # tables of `dora grid`
    "transformers>=5.23,<6",  # the wav2vec 2.0 feature of the published configuration
    "xxhash>=4.1,<5",
]

EXTRAS = {
    "dev": [
        "beartype>=0.23,<1",
        "cheroot>=11.1,<12",  # serves WebDAV in the tests
        "codespell>=2.4,<3",
        "hypothesis>=6.170,<7",
        "import-linter>=2.16,<3",
        "jaxtyping>=0.3.11,<1",
        "jupyter-client>=8.10,<9",
        "mypy>=2.4,<3",
        "nbclient>=0.11,<1",
        "nbformat>=5.11,<6",
        "nbstripout>=0.9,<1",
        "pandas-stubs>=3.1,<4",
        "pre-commit>=4.7,<5",
        "psutil>=7.2,<8",
        "pybv>=0.8,<1",
        "pytest>=9.2,<10",
        "pytest-timeout>=2.4,<3",
        "pytest-xdist>=3.8,<4",
        "ruff>=0.17,<0.18",
        "types-tqdm>=4.70,<5",
        "wsgidav>=4.4,<5",
    ],
    "analysis": ["scikit-learn>=1.9,<2"],
    "audio": ["librosa>=0.11,<1"],
    "text": ["spacy>=3.8.18,<4", "wordfreq>=3.1,<4"],
    "encoders": ["braindecode>=1.8,<2"],
    "fuzz": ["atheris>=3.0,<4"],  # Linux and macOS
    "notebooks": ["ipykernel>=7.4,<8", "jupytext>=1.19,<2"],
    "tracking": ["hiplot>=0.1.33,<1", "tensorboard>=2.21,<3", "wandb>=0.31,<1"],
    "demo": ["espeakng-loader>=0.2.4,<1"],
}


def read_version() -> str:
    """Version from bm/__init__.py, read as text: importing bm would need its dependencies."""
    text = (HERE / "bm" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    if match is None:
        raise ValueError('bm/__init__.py has no line __version__ = "X.Y.Z".')
    return match.group(1)


setup(
    name="bm",
    version=read_version(),
    description="Decode speech from MEG and EEG with contrastive learning",
    license="MIT",
    license_files=["LICENSE"],
    packages=find_packages(include=["bm", "bm.*"]),
    package_data={
        "bm": ["py.typed"],
        "bm.evaluation": ["*.j2"],
        "bm.published": ["*.csv"],
        "bm.studies.simulated": ["texts/*.txt"],
    },
    python_requires=">=3.11",
    install_requires=REQUIRED,
    extras_require=EXTRAS,
)
