"""A trained model on its own decodes recordings as the solver that trained it does."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
import torch
from doc_blocks import blocks_of, commands_of

from bm import play
from bm.build import build_solver
from bm.checkpoint import CHECKPOINT
from bm.config import from_hydra
from bm.core.messages import DataError
from bm.decoder import Decoder, Reading, export, from_events, from_sound, from_table, load_state
from bm.solver import Solver
from bm.train import main as experiment
from scripts import export as export_script
from scripts import predict
from scripts.evaluate import evaluate_solver

SETTINGS = [
    "preset=demo", "dset.selections=[fake]", "dset.features_params.MelSpectrum.n_mels=12",
    "simpleconv.hidden.meg=16", "simpleconv.merger_channels=12", "simpleconv.merger_pos_dim=32",
    "simpleconv.initial_linear=12", "simpleconv.depth=3", "simpleconv.dilation_period=2",
    "optim.batch_size=64", "optim.epochs=1", "optim.lr=2e-3", "task.offset_meg_ms=150",
]  # fmt: skip


@pytest.fixture(scope="module")
def solver(tmp_path_factory: pytest.TempPathFactory) -> Solver:
    """Of two simulated listeners."""
    path = tmp_path_factory.mktemp("trained")
    arguments = [*SETTINGS, f"cache={path / 'cache'}"]
    built = build_solver(from_hydra(experiment.get_xp(arguments).cfg), path)
    built.run()
    return built


@pytest.fixture
def decoder(solver: Solver) -> Decoder:
    assert solver.folder is not None
    return play.load(solver.folder)


@pytest.fixture
def raw(solver: Solver) -> mne.io.BaseRaw:
    """Of the first listener."""
    return solver.splits.prepared[0].recording.raw()


@pytest.fixture
def sound(solver: Solver) -> tuple[str, float]:
    """What they heard, and when it began."""
    events = solver.splits.prepared[0].events
    first = events[events["kind"] == "sound"].iloc[0]
    return first["filepath"], first["start"] - first["offset"]


def begins_of(reading: Reading, step: float = 5.0) -> list[float]:
    return np.arange(0, reading.last_begin, step).tolist()


def test_estimates_are_those_of_the_solver_to_the_last_bit(solver, decoder, raw):
    test = solver.splits.datasets["test"]
    rows = torch.from_numpy(np.flatnonzero(test.table["recording"] == 0))
    with solver.best(), torch.no_grad():
        expected = solver.predict(test.gather(rows)).estimate
    reading = decoder.read(raw)
    trained = replace(reading, centre=solver.scaler.centre[0], scale=solver.scaler.scale[0])
    begins = (test.windows.first[rows] / 60).tolist()
    found = decoder.estimate(trained, begins, solver.splits.subjects[0])
    assert torch.equal(found, expected)
    own_scale = decoder.estimate(reading, begins, solver.splits.subjects[0])
    assert np.corrcoef(own_scale.flatten(), expected.flatten())[0, 1] > 0.99


def test_exported_model_predicts_the_same(solver, decoder, raw, tmp_path):
    export(load_state(solver.folder), tmp_path, "A card.")
    again = play.load(tmp_path)
    reading = decoder.read(raw)
    begins = begins_of(reading)
    for subject in (None, *solver.splits.subjects):
        assert torch.equal(
            again.estimate(again.read(raw), begins, subject),
            decoder.estimate(reading, begins, subject),
        )
    about = (tmp_path / "config.json").read_text()
    assert str(solver.folder) not in about
    assert "study_paths" not in about or json.loads(about)["config"]["study_paths"] == {}
    assert (tmp_path / "README.md").read_text() == "A card."


def test_newcomer_is_the_mean_of_the_learned_subjects(solver, decoder):
    weights = decoder.models.get_parameter("meg.subject_layers.weights")
    assert len(weights) == 3
    torch.testing.assert_close(weights[2], weights[:2].mean(dim=0))


def test_causal_embedding_knows_nothing_beyond_its_latency(decoder, raw):
    loud = raw.copy().load_data()
    cut = 100.0
    sample = int(cut * loud.info["sfreq"])
    loud._data[:, sample:] *= np.random.default_rng(0).normal(0, 3, loud.n_times - sample)
    one, other = (
        decoder.embed(decoder.read(each, warm_up=60), 0.25, causal=True) for each in (raw, loud)
    )
    assert one.begin > 60
    known = one.times + one.latency <= cut
    assert 300 < known.sum() < len(known)
    np.testing.assert_allclose(one.values[:, known], other.values[:, known], atol=1e-3)
    assert np.abs(one.values - other.values)[:, one.times > cut].max() > 0.1
    assert one.latency < decoder.embed(decoder.read(raw)).latency
    with pytest.raises(ValueError, match="warm_up=60"):
        decoder.embed(decoder.read(raw), causal=True)
    with pytest.raises(ValueError, match=r"step=9.* choose 0\.017 to"):
        decoder.embed(decoder.read(raw), step=9)
    decoder.config = replace(decoder.config, dset=replace(decoder.config.dset, highpass=0.5))
    with pytest.raises(ValueError, match=r"dset\.highpass, a filter that looks ahead"):
        decoder.embed(decoder.read(raw, warm_up=60), causal=True)


def test_embedding_holds_what_the_windows_say(decoder, raw):
    reading = decoder.read(raw)
    embedding = decoder.embed(reading, step=0.5)
    window = decoder.window
    estimate = decoder.estimate(reading, [10.0])[0]  # a window of the embedding, too
    skip = (window.n_heard - 30) // 2
    first = int(np.searchsorted(embedding.times, 10.0 + skip / 60 - 1e-9))
    np.testing.assert_allclose(
        embedding.values[:, first : first + 30], estimate[:, skip : skip + 30], atol=1e-6
    )
    assert embedding.names[:2] == ["MelSpectrum 0", "MelSpectrum 1"]
    continuous = embedding.to_raw()
    assert continuous.info["sfreq"] == 60
    assert continuous.get_data().shape == embedding.values.shape == (12, len(embedding.times))


def test_targets_are_those_of_training(solver, decoder):
    """Of a window that no border of a block is near: sounds of other lengths are cut elsewhere."""
    item = solver.splits.prepared[0]
    stimulus = from_events(item.events, decoder.window.duration)
    test = solver.splits.datasets["test"]
    rows = torch.from_numpy(np.flatnonzero(test.table["recording"] == 0)[:8])
    expected = solver.target(test.gather(rows)).values
    begins = (test.windows.first[rows] / 60).tolist()
    torch.testing.assert_close(decoder.targets(stimulus, begins), expected)


def test_missing_sensors_are_interpolated_and_bad_ones_left_out(decoder, raw, caplog):
    fewer = raw.copy().load_data().drop_channels(raw.ch_names[:2])
    fewer.info["bads"] = [raw.ch_names[3]]
    whole, reading = decoder.read(raw), decoder.read(fewer)
    n_flat = whole.matching.n_masked
    assert whole.matching.n_matched == 16 - n_flat
    assert whole.matching.n_interpolated == 0
    assert reading.matching.n_interpolated == 2
    assert reading.matching.n_masked == n_flat + 1
    assert f"Not there: {raw.ch_names[0]}, {raw.ch_names[1]}" in caplog.text
    begins = begins_of(reading)
    one, other = (decoder.estimate(each, begins).flatten() for each in (whole, reading))
    assert np.corrcoef(one, other)[0, 1] > 0.8


def test_shorter_sounds_and_labels_are_candidates(decoder, raw, sound, tmp_path):
    path, _ = sound
    table = tmp_path / "candidates.csv"
    lines = ["sound,start,label", f"{path},0,one", f"{path},1.5,two"]
    table.write_text("\n".join(lines))
    stimulus = from_table(table, decoder.window.duration)
    reading = decoder.read(raw)
    ranking = decoder.rank(reading, stimulus, [10.0, 20.0])
    assert ranking.probability.shape == (2, 2)
    np.testing.assert_allclose(ranking.probability.sum(axis=1), 1, rtol=1e-5)
    found = ranking.table()
    assert found["rank"].tolist() == [1, 2, 1, 2]
    assert set(found["label"]) == {"one", "two"}
    of_sound = from_sound(path, decoder.window.duration, step=1.5)
    both = decoder.targets(stimulus, stimulus.candidates["begin"].tolist())
    same = decoder.targets(of_sound, [0.0, 1.5])
    assert np.corrcoef(both.flatten(), same.flatten())[0, 1] > 0.98  # heard alike, cut elsewhere
    with pytest.raises(ValueError, match="isn't known"):
        ranking.accuracy(1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,start\na.wav,0\n", "needs a column 'sound'"),
        ("sound,start\nmissing.wav,0\n", "missing.wav"),
        ("", "can't be read as a table"),
    ],
)
def test_faulty_candidates_are_told(decoder, tmp_path, content, message):
    (tmp_path / "candidates.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        from_table(tmp_path / "candidates.csv", decoder.window.duration)


def test_what_can_not_be_decoded_is_told(decoder, raw, tmp_path):
    with pytest.raises(DataError, match=r"shorter than one window of the model \(3\.02 s\)"):
        decoder.read(raw.copy().crop(0, 2))
    with pytest.raises(DataError, match="can't be read as a recording"):
        decoder.read(tmp_path / "absent_raw.fif")
    reading = decoder.read(raw)
    with pytest.raises(ValueError, match=r"windows can begin from 0 to"):
        decoder.estimate(reading, [1e4])
    with pytest.raises(ValueError, match=r"doesn't know 'fake/simulated-09'.*Did you mean"):
        decoder.estimate(reading, [0.0], "fake/simulated-09")
    with pytest.raises(ValueError, match="no window"):
        decoder.estimate(reading, [])
    with pytest.raises(DataError, match="does not exist"):
        play.load(tmp_path / "nowhere")


def test_script_decodes_and_judges(solver, raw, sound, tmp_path, capsys):
    path, onset = sound
    arguments = [
        f"checkpoint={solver.folder}", f"raw={raw.filenames[0]}", f"out={tmp_path / 'out'}",
        f"audio={path}", f"onset={onset}", "step=1", f"calibrate={path}",
        f"calibrate_onset={onset}", "minutes=0.5",
    ]  # fmt: skip
    assert predict.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "calibrated on 0.5 min: loss" in printed
    assert "latency" in printed
    assert "(chance" in printed
    table = pd.read_csv(tmp_path / "out" / "ranking.csv")
    assert table["window"].min() >= onset + 30
    assert table.groupby("window")["rank"].apply(list).map(lambda r: r == [1, 2, 3, 4, 5]).all()
    stored = np.load(tmp_path / "out" / "embedding.npz")
    assert stored["values"].shape == (12, len(stored["times"]))


def test_script_judges_all_but_what_it_was_calibrated_on(solver, raw, sound, tmp_path, capsys):
    path, onset = sound
    arguments = [
        f"checkpoint={solver.folder}", f"raw={raw.filenames[0]}", f"out={tmp_path}", "step=2",
        f"calibrate={path}", f"calibrate_onset={onset}", "minutes=1",
    ]  # fmt: skip
    events = solver.splits.prepared[0].recording.events()  # before sounds are cut at blocks
    _, other = events.query("kind == 'sound'").itertuples()
    assert predict.main([*arguments, f"audio={other.filepath}", f"onset={other.start}"]) == 0
    n_windows = len(np.unique(pd.read_csv(tmp_path / "ranking.csv")["window"]))
    assert predict.main([*arguments, f"audio={path}"]) == 0
    begins = np.unique(pd.read_csv(tmp_path / "ranking.csv")["window"])
    assert (begins < onset - 3).any()
    assert not ((begins > onset - 3) & (begins < onset + 60)).any()
    assert n_windows > 40
    assert predict.main([*arguments[:-1], f"audio={path}", f"onset={onset}"]) == 2
    assert "no window is left to decode" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--help"], 0, ""),
        ([], 2, ""),
        (["raw=a.fif"], 2, "checkpoint=MODEL raw=FILE"),
        (["checkpoint=a", "raw=b", "audio=c", "events=d"], 2, "one of audio, candidates"),
        (["checkpoint=a", "raw=b", "onset=3"], 2, "onset= is when"),
        (["checkpoint=a", "raw=b", "calibrate=c"], 2, "need each other"),
        (["checkpoint=a", "raw=b", "sound=c"], 2, "Unknown option 'sound'"),
        (["checkpoint=a", "raw=b", "step=0"], 2, "positive"),
        (["checkpoint=a", "raw=b"], 1, "a does not exist"),
    ],
)
def test_script_tells_what_is_wrong(arguments, code, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert predict.main(arguments) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert ("Usage: python -m scripts.predict" in printed.out) == (not arguments or code == 0)


@pytest.fixture(scope="module")
def shared(solver: Solver, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script exports of an evaluated model."""
    evaluate_solver(solver)
    out = tmp_path_factory.mktemp("shared") / "my-model"
    assert export_script.main([f"checkpoint={solver.folder}", f"out={out}"]) == 0
    return out


def test_exported_folder_has_weights_text_and_a_card(shared, solver):
    assert {file.name for file in shared.iterdir()} == {
        "model.safetensors",
        "config.json",
        "README.md",
    }
    card = (shared / "README.md").read_text()
    assert "| `fake` | none needed: the listeners are simulated |" in card
    assert "of no use for recordings of people" in card
    retrieval = solver.retrieve()
    rows = [line for line in card.splitlines() if line.startswith("| top-10 |")]
    assert f"| {100 * retrieval.accuracy(10):.1f} % |" in rows[0]
    assert f"| {retrieval.n_candidates} | {len(retrieval.table)} |" in rows[0]
    assert "too few subjects" in rows[0]  # two
    assert "Controls were not run" in card
    assert "optim.lr = 0.002" in card
    for text in (card, (shared / "config.json").read_text()):
        assert str(Path.cwd()) not in text
        assert str(solver.folder) not in text


def test_hub_is_read_from_its_cache(shared, decoder, raw, tmp_path, monkeypatch):
    commit = "0" * 40
    snapshot = tmp_path / "models--me--my-model" / "snapshots" / commit
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(shared, snapshot)
    (tmp_path / "models--me--my-model" / "refs").mkdir()
    (tmp_path / "models--me--my-model" / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    again = play.load("hf://me/my-model")
    reading = decoder.read(raw)
    assert torch.equal(again.estimate(reading, [5.0]), decoder.estimate(reading, [5.0]))
    with pytest.raises(DataError, match=r"hf://me/other can't be had from the hub"):
        play.load("hf://me/other")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", b"damaged", "can't be read as an exported model"),
        ("config.json", b"{", "can't be read as an exported model"),
        ("config.json", b"{}", "isn't of a model that bm exported"),
    ],
)
def test_damaged_folder_is_told(shared, tmp_path, file, content, message):
    shutil.copytree(shared, tmp_path / "copy")
    (tmp_path / "copy" / file).write_bytes(content)
    with pytest.raises(DataError, match=message):
        play.load(tmp_path / "copy")


def test_licence_is_that_of_the_study(tmp_path):
    assert export_script.find_licence({"study": "brennan2019"}).startswith("CC BY 4.0 (doi:")
    assert export_script.find_licence({"study": "bids", "root": str(tmp_path)}).startswith(
        "unknown"
    )
    (tmp_path / "dataset_description.json").write_text('{"License": "CC0"}')
    assert export_script.find_licence({"study": "bids", "root": str(tmp_path)}) == "CC0"


def test_script_that_exports_tells_what_is_wrong(shared, tmp_path, capsys):
    for arguments, code, message in (
        (["sig=a"], 2, "sig=SIG (or checkpoint=PATH) out=FOLDER"),
        (["sig=a", f"out={tmp_path}"], 2, "exists already"),
        (["sig=00000000", f"out={tmp_path / 'new'}"], 1, "does not exist"),
        ([f"checkpoint={shared}", f"out={tmp_path / 'new'}"], 1, "exported model already"),
    ):
        assert export_script.main(arguments) == code
        assert message in capsys.readouterr().err
    assert export_script.main(["--help"]) == 0
    assert "hf upload" in capsys.readouterr().out


def test_page_about_new_recordings_runs_as_it_is_written(
    solver, raw, sound, root, tmp_path, monkeypatch, capsys
):
    path, onset = sound
    raw.copy().crop(onset - 10).save(tmp_path / "new_raw.fif", verbose="error")
    shutil.copy(path, tmp_path / "story.wav")
    (tmp_path / "outputs" / "xps" / "SIG").mkdir(parents=True)
    shutil.copy(solver.folder / CHECKPOINT, tmp_path / "outputs" / "xps" / "SIG")
    monkeypatch.chdir(tmp_path)
    scripts = {"scripts.predict": predict, "scripts.export": export_script}
    n_run = 0
    for block in blocks_of(root / "docs" / "predict.md"):
        if block.language == "bash":
            for _, _, module, *arguments in commands_of(block):
                assert scripts[module].main(arguments) == 0, capsys.readouterr().err
                n_run += 1
        elif block.language == "python":
            exec(compile(block.text, block.page, "exec"), {})
            n_run += 1
    assert n_run == 6
    printed = capsys.readouterr().out
    assert "top-1 " in printed
    assert "<Evoked" in printed
