"""Pretrained models: found on this machine before the network is asked, and complete or refused."""

import hashlib
import http.server
import io
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SmallRecording, tell_story
from small_speech_models import WIDTH, change_weights, make_model
from transformers import AutoModel

import bm.build
from bm.config import from_dict
from bm.core.messages import DataError
from bm.features.speech import XLSR, XLSR_REVISION, SpeechEncoder, Wav2VecTransformer
from bm.features.weights import find_model, model_identity

NAME, COMMIT = "someone/small-model", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "small", "wav2vec2-large")


@pytest.fixture
def copied(model, tmp_path) -> Path:
    """A folder of models with one that may be changed."""
    shutil.copytree(model, tmp_path / "models" / NAME.replace("/", "--"))
    return tmp_path / "models"


@pytest.fixture
def hub_cache(monkeypatch, tmp_path) -> Path:
    """The hub's cache, empty, on a machine without network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def keep(hub_cache: Path, model: Path, name: str = NAME, commit: str = COMMIT) -> Path:
    """Lay a model into the hub's cache, as a download of the main branch does."""
    repository = hub_cache / f"models--{name.replace('/', '--')}"
    folder = repository / "snapshots" / commit
    shutil.copytree(model, folder)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return folder


# Found


def test_model_that_is_nowhere_is_told_how_to_get(hub_cache, tmp_path):
    copied = XLSR.replace("/", "--")
    with pytest.raises(DataError) as error:
        Wav2VecTransformer(models_folder=tmp_path).about  # noqa: B018
    message = str(error.value)
    assert f"{XLSR} is not on this machine, and can't be downloaded" in message
    assert f"hf download {XLSR} --revision {XLSR_REVISION} --local-dir {copied}\n" in message
    assert f"copy that folder to {tmp_path / copied} (features_models=PATH" in message
    with pytest.raises(DataError, match=r"folder \./nowhere/model does not exist"):
        SpeechEncoder("./nowhere/model").about  # noqa: B018


def test_model_is_found_by_its_folder_in_the_models_folder_or_the_cache(
    hub_cache, copied, model, tmp_path
):
    assert find_model(str(model), tmp_path) == model
    in_cache = keep(hub_cache, model)
    assert find_model(NAME, tmp_path / "none") == in_cache
    assert find_model(NAME, tmp_path / "none", COMMIT) == in_cache
    assert find_model(NAME, copied) == copied / NAME.replace("/", "--")
    with pytest.raises(DataError, match=f"--revision {'f' * 40}"):
        find_model(NAME, tmp_path / "none", "f" * 40)
    (in_cache / "model.safetensors").unlink()  # a download that was cut short
    with pytest.raises(DataError, match=f"hf download {NAME} --local-dir"):
        find_model(NAME, tmp_path / "none")
    assert find_model(NAME, tmp_path / "none", with_weights=False) == in_cache


def test_features_models_is_where_an_experiment_finds_models(copied, cache, tmp_path, monkeypatch):
    recording = SmallRecording(cache, tell_story(tmp_path, lead_in=7.0))
    monkeypatch.setattr(bm.build, "build_recordings", lambda config: [recording])
    params = {"SpeechEncoder": {"model": NAME, "layers": [1]}}
    dset = {"features": ["SpeechEncoder", "MelSpectrum"], "features_params": params}
    config = from_dict({"features_models": str(copied), "cache": str(cache.folder), "dset": dset})
    data = bm.build.build_data(config, "cpu")
    assert data.features[0].folder.parent == copied
    train = data.splits.datasets["train"]
    assert train.n_features == WIDTH + 120
    assert train.gather(torch.arange(len(train))).features[:, :WIDTH].std() > 0.1


def test_identity_is_that_of_the_content(hub_cache, copied, model, tmp_path):
    (folder,) = copied.iterdir()
    one = model_identity(folder)
    assert one == model_identity(model)  # another place
    assert model_identity(keep(hub_cache, model)) == f"models--someone--small-model@{COMMIT}"
    untrained = model_identity(folder, with_weights=False)
    change_weights(folder, lambda weights: weights["feature_projection.projection.bias"].add_(1e-6))
    assert model_identity(folder) != one
    assert model_identity(folder, with_weights=False) == untrained
    extractor = folder / "preprocessor_config.json"
    extractor.write_text(extractor.read_text().replace("true", "false"))
    assert model_identity(folder, with_weights=False) != untrained


@pytest.fixture
def hub(model) -> Iterator[str]:
    """A hub on this machine, with one model in the format of the published XLSR-53."""
    files = {path.name: path.read_bytes() for path in model.glob("*.json")}
    weights = {"quantizer.codevectors": torch.zeros(1, 4, 2)}  # for training only
    for name, values in AutoModel.from_pretrained(model).state_dict().items():
        old = name.replace("parametrizations.weight.original0", "weight_g")
        old = old.replace("parametrizations.weight.original1", "weight_v")
        weights[f"wav2vec2.{old}"] = values
    assert sum(name.endswith(("weight_g", "weight_v")) for name in weights) == 2
    file = io.BytesIO()
    torch.save(weights, file)
    files["pytorch_model.bin"] = file.getvalue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            content = files.get(self.path.rsplit("/", 1)[-1])
            found = content is not None and self.path.startswith(f"/{NAME}/resolve/")
            self.send_response(200 if found else 404)
            self.send_header("X-Repo-Commit", COMMIT)
            if not found:
                self.send_header("X-Error-Code", "EntryNotFound")
                content = b""
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_model_is_downloaded_into_the_cache(hub, hub_cache, model, tmp_path, python_env):
    program = f"from bm.features.weights import find_model; print(find_model('{NAME}', 'none'))"
    environment = {**python_env, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path)}
    environment.update(HF_HUB_OFFLINE="0", TRANSFORMERS_OFFLINE="0")
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert Path(done.stdout.strip()).name == COMMIT, done.stderr
    folder = find_model(NAME, tmp_path)  # from now on without network
    assert str(folder) == done.stdout.strip()
    assert model_identity(folder).endswith(f"@{COMMIT}")
    sound = torch.linspace(-1, 1, 8000)
    downloaded, here = (SpeechEncoder(str(place)).frames(sound) for place in (folder, model))
    np.testing.assert_array_equal(downloaded, here)


# Complete


def broken(folder: Path) -> str:
    """What using a model folder comes to."""
    with pytest.raises(DataError) as error:
        SpeechEncoder(str(folder), layers=[1]).frames(torch.zeros(8000))
    assert str(folder) in str(error.value)
    return str(error.value)


def test_incomplete_or_broken_model_is_named(copied):
    (folder,) = copied.iterdir()
    change_weights(folder, lambda weights: weights.pop("encoder.pos_conv_embed.conv.bias"))
    assert "lack encoder.pos_conv_embed.conv.bias. Are they" in broken(folder)
    (folder / "model.safetensors").write_bytes(b"\x10" * 1000)
    assert "Is the download complete?" in broken(folder)
    (folder / "model.safetensors").unlink()
    assert "lacks the weights (model.safetensors or" in broken(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    (folder / "preprocessor_config.json").unlink()
    assert "preprocessor_config.json is missing" in broken(folder)
    (folder / "config.json").write_text("<html>")
    assert "Cannot read the model configuration" in broken(folder)
    (folder / "config.json").unlink()
    assert "lacks config.json" in broken(folder)


def test_model_of_another_kind_is_refused(copied):
    (folder,) = copied.iterdir()
    extractor = folder / "preprocessor_config.json"
    extractor.write_text(extractor.read_text().replace("16000", "8000"))
    assert "wants sound at 8000 Hz" in broken(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert "model_type='bert' does not exist" in broken(folder)
    assert "Allowed: data2vec-audio, hubert, wav2vec2," in broken(folder)
