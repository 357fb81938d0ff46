"""Every feature in a real `dora run` on the simulated study: one epoch, from its name to its table.

Features run side by side, family by family: a run for each would take minutes to import things.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_language_models import save_bert, save_spacy, save_xlm
from small_speech_models import WIDTH, make_model

from bm.checkpoint import CHECKPOINT, read_checkpoint
from bm.features import registry
from bm.features.language_models import BERT, XLM
from bm.features.speech import XLSR

FAMILIES = {
    "sound": ["MelSpectrum", "Pitch", "Envelope", "SpeechActivity"],
    "words": [
        "WordPulse", "WordSegment", "WordLength", "WordIndex", "WordFrequency", "WordHash",
        "Modality", "Phoneme", "PhonemePulse",
    ],
    "text": [
        "WordEmbedding", "WordEmbeddingSmall", "PartOfSpeech", "BertEmbedding", "XlmEmbedding",
    ],
    "speech": ["Wav2VecTransformer", "Wav2VecConvolution", "SpeechEncoder"],
    "random": ["Wav2VecTransformer", "Wav2VecConvolution", "SpeechEncoder", "Wav2VecChunk"],
    "chunk": ["WordLength", "Wav2VecChunk"],
}  # fmt: skip
"""Run together."""
DIMENSIONS = {
    "MelSpectrum": 6, "WordEmbedding": 2, "WordEmbeddingSmall": 96, "BertEmbedding": 16,
    "XlmEmbedding": 16, "Wav2VecTransformer": WIDTH, "Wav2VecConvolution": 8,
    "SpeechEncoder": WIDTH, "Wav2VecChunk": 134,
}  # fmt: skip
"""Of the small models here; 1 for all others."""
CASES = [(family, name) for family, names in FAMILIES.items() for name in names]

Run = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A small encoder, and small models in the place of all pretrained ones."""
    models = tmp_path_factory.mktemp("models")
    make_model(models / XLSR.replace("/", "--"), "wav2vec2-large", num_hidden_layers=24)
    make_model(models / "someone--whisper", "whisper")
    save_bert(models / BERT["en"][0].replace("/", "--"))
    save_xlm(models / XLM[0].replace("/", "--"))
    save_spacy(models / "md", "en", vectors={"the": [1.0, 0.0], "a": [0.0, 2.0], "and": [1.0, 1.0]})
    save_spacy(models / "sm", "en", tags={"the": "DET", "a": "DET", "and": "CCONJ"})
    save_spacy(models / "layer", "en", with_layer=True)
    params = "dset.features_params"
    return [
        "dset.selections=[fake]", "+selections.fake.n_minutes=2", "device=cpu",
        f"features_models={models}",
        f"cache={tmp_path_factory.mktemp('cache')}", f"{params}.MelSpectrum.n_mels=6",
        f"{params}.SpeechEncoder.model=someone/whisper",
        f"{params}.WordEmbedding.model={models}/md",
        f"{params}.WordEmbeddingSmall.model={models}/layer",
        f"{params}.PartOfSpeech.model={models}/sm",
        "simpleconv.hidden.meg=8", "simpleconv.depth=2", "simpleconv.merger_channels=8",
        "simpleconv.merger_pos_dim=32", "simpleconv.initial_linear=8",
        "optim.batch_size=16", "optim.max_batches=4", "optim.epochs=1",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(
    overrides: list[str], tmp_path_factory: pytest.TempPathFactory, python_env: dict[str, str]
) -> Run:
    """Checkpoint of a family of features, after `dora run`; it runs once, even if it fails."""
    known: dict[str, tuple[subprocess.CompletedProcess[str], Path]] = {}

    def checkpoint(family: str) -> dict[str, Any]:
        if family not in known:
            folder = tmp_path_factory.mktemp(family)
            names = FAMILIES[family]
            chosen = [*overrides, f"dset.features=[{','.join(names)}]"]
            if family == "random":
                chosen += [f"dset.features_params.{name}.random=true" for name in names]
            command = [sys.executable, "-m", "dora", "-P", "bm", "run", *chosen]
            env = {**python_env, "HF_HUB_OFFLINE": "1"}
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
            known[family] = done, folder
        done, folder = known[family]
        assert done.returncode == 0, done.stderr[-3000:]
        (path,) = folder.glob(f"outputs/xps/*/{CHECKPOINT}")
        return read_checkpoint(path)

    return checkpoint


def test_every_feature_has_its_case():
    assert {name for _, name in CASES} == set(registry)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_every_feature_works_in_a_dora_run(run, family, name):
    state = run(family)
    (epoch,) = state["history"]
    assert np.isfinite([epoch["train"]["loss"], epoch["valid"]["loss"]]).all()
    assert epoch["test"]["n_candidates"] > 10
    dimensions = {feature["name"]: feature["dimension"] for feature in state["features"]}
    assert list(dimensions) == FAMILIES[family]
    assert dimensions[name] == DIMENSIONS.get(name, 1)
    first = sum(list(dimensions.values())[: list(dimensions).index(name)])
    columns = slice(first, first + dimensions[name])
    scale, centre = (state["scaler"][f"feature_{what}"][columns] for what in ("scale", "centre"))
    assert torch.isfinite(scale).all()
    is_scaled = bool((scale != 1).any() or (centre != 0).any())
    assert is_scaled == registry[name].normalizable  # classes stay as they are
    estimated = next(values for key, values in state["models"].items() if "final.2.weight" in key)
    encoded = sum(WIDTH if one == "Wav2VecChunk" else n for one, n in dimensions.items())
    assert encoded in estimated.shape
