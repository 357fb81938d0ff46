"""Scaling: published numbers, statistics of the training split alone, clamping and rejecting."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SmallRecording, make_splits, tell_story

from bm import scaling
from bm.core.cache import Cache
from bm.scaling import BatchScaler, robust_scale
from bm.segments import SegmentBatch, SegmentDataset, Splits

N_BASELINE, N_TIMES = 61, 361


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    """Two people, 6 and 4 sensors, who hear the same story after 6 s of silence."""
    folder = tmp_path_factory.mktemp("scaling")
    cache = Cache(folder / "cache")
    events = tell_story(folder, n_sentences=20, lead_in=6.0)
    recordings = [
        SmallRecording(cache, events, "r0", "s0", seed=0, n_sensors=6),
        SmallRecording(cache, events, "r1", "s1", seed=1, n_sensors=4),
    ]
    return make_splits(recordings, cache, ["MelSpectrum", "WordHash"])


def with_signals(dataset: SegmentDataset, change) -> SegmentDataset:
    """The same segments over other signals: `change` takes and gives [sum of T, C]."""
    store = object.__new__(type(dataset.store))
    vars(store).update(vars(dataset.store), _flat=change(dataset.store._flat.clone()))
    return SegmentDataset(
        dataset.table, store, dataset.stimuli, dataset.n_times, dataset.n_baseline
    )


def with_rows(dataset: SegmentDataset, *rows: torch.Tensor) -> SegmentDataset:
    """The same segments with other tables of features."""
    stimuli = replace(dataset.stimuli, rows=list(rows))
    return SegmentDataset(
        dataset.table, dataset.store, stimuli, dataset.n_times, dataset.n_baseline
    )


def fit(dataset: SegmentDataset, seed: int = 0, **options) -> BatchScaler:
    return BatchScaler(**options).fit(dataset, 2, seed)


def seen(dataset: SegmentDataset) -> torch.Tensor:
    """Which samples [sum of T] lie within a segment."""
    mask = torch.zeros(len(dataset.stimuli.mask), dtype=torch.bool)
    mask[dataset.samples(torch.arange(len(dataset))).flatten()] = True
    return mask


# The robust scale


def test_quartiles_are_the_published_ones(root):
    with np.load(root / "tests" / "golden" / "published_numbers.npz") as numbers:
        centre, scale = robust_scale(numbers["scaler/x"])
        np.testing.assert_array_equal(centre, numbers["scaler/center"])
        np.testing.assert_array_equal(scale, numbers["scaler/scale"])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 100])
def test_quartiles_are_values_of_the_data(n):
    values = np.random.default_rng(n).permutation(n).astype(float)[:, None] * [[1.0, -3.0]]
    centre, scale = robust_scale(values)
    for column in range(2):
        ordered = sorted(values[:, column])
        assert centre[column] == ordered[int(0.5 * n)]
        spread = ordered[int(0.75 * n)] - ordered[int(0.25 * n)]
        assert scale[column] == (spread or 1.0)


def test_flat_channel_has_scale_1():
    centre, scale = robust_scale(np.full((50, 1), 7.0))
    assert (centre[0], scale[0]) == (7.0, 1.0)


# Brain signals


def test_signals_are_scaled_by_the_training_segments_of_their_recording(splits):
    train = splits.datasets["train"]
    scaler = fit(train, n_samples_per_recording=10_000)
    for index, prepared in enumerate(splits.prepared):
        windows = []
        for first in train.table["first"][train.table["recording"] == index]:
            window = np.asarray(prepared.signal.data[first : first + N_TIMES], dtype=np.float64)
            windows.append(window - window[:N_BASELINE].mean(axis=0))
        centre, scale = robust_scale(np.concatenate(windows))
        n_sensors = len(centre)
        np.testing.assert_allclose(scaler.scale[index, :n_sensors], scale, rtol=1e-5)
        np.testing.assert_allclose(
            scaler.centre[index, :n_sensors], centre, atol=1e-5 * scale.max()
        )
    assert (scaler.centre[0] != scaler.centre[1]).all()


def test_padded_channels_have_scale_1_and_stay_0(splits):
    train = splits.datasets["train"]
    scaler = fit(train)
    assert scaler.scale[1, 4:].tolist() == [1.0, 1.0]
    assert scaler.centre[1, 4:].tolist() == [0.0, 0.0]
    second = torch.tensor(np.flatnonzero(train.table["recording"] == 1)[:5])
    assert (scaler(train.gather(second)).meg[:, 4:] == 0).all()


def test_scaled_signals_have_median_0_and_interquartile_range_1(splits):
    train = splits.datasets["train"]
    scaler = fit(train, n_samples_per_recording=10_000)
    rows = torch.tensor(np.flatnonzero(train.table["recording"] == 0))
    scaled = scaler(train.gather(rows)).meg.transpose(1, 2).flatten(0, 1).numpy()
    centre, scale = robust_scale(scaled)
    np.testing.assert_allclose(centre, 0, atol=1e-5)
    np.testing.assert_allclose(scale, 1, rtol=1e-5)


def test_jumps_are_clamped_to_20(splits):
    train = splits.datasets["train"]
    first = int(train.table["first"][0])
    scaler = fit(train)

    def jump(flat):
        flat[first + 200, 2] = 1.0
        flat[first + 201, 3] = -1.0
        return flat

    scaled = scaler(with_signals(train, jump).gather(torch.tensor([0])))
    assert scaled.meg[0, 2, 200] == 20.0
    assert scaled.meg[0, 3, 201] == -20.0
    assert (scaled.meg.abs() == 20).sum() == 2
    lower = fit(train, max_scale=2.0)(train.gather(torch.arange(20))).meg
    assert lower.abs().max() == 2.0
    assert (lower.abs() < 2.0).float().mean() > 0.9


def test_without_clamping_segments_beyond_are_rejected(splits):
    train = splits.datasets["train"]
    batch = train.gather(torch.arange(40))
    free = fit(train, max_scale=1e9)(batch).meg.abs().flatten(1).max(dim=1).values
    limit = free.median().item()
    kept = fit(train, max_scale=limit, clip=False)(batch)
    assert kept.row.tolist() == batch.row[free <= limit].tolist()
    assert 0 < len(kept) < 40
    torch.testing.assert_close(kept.meg, fit(train, max_scale=1e9)(batch).meg[free <= limit])
    for name in ("features", "mask", "subject_index", "recording_index", "layout_index"):
        assert len(getattr(kept, name)) == len(kept)
    assert len(fit(train, max_scale=1e-3, clip=False)(batch)) == 0


# Training split alone


def test_statistics_do_not_see_valid_and_test(splits):
    train = splits.datasets["train"]
    before = fit(train).state_dict()
    outside = ~seen(train)
    assert outside.float().mean() > 0.2

    def spoil(flat):
        flat[outside] = 1e6
        return flat

    mel, words = train.stimuli.rows
    unseen = torch.ones(len(mel), dtype=torch.bool)
    unseen[train.stimuli.timelines[0][seen(train)].long()] = False
    spoilt = mel.clone()
    spoilt[unseen] = 1e6
    assert unseen.sum() > 100
    after = fit(with_rows(with_signals(train, spoil), spoilt, words)).state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(after[name])), name


def test_draw_depends_on_the_seed_alone(splits):
    train = splits.datasets["train"]
    few = {"n_samples_per_recording": 10, "n_samples_features": 10}
    torch.manual_seed(1)
    one = fit(train, seed=3, **few)
    torch.manual_seed(2)
    same, other = fit(train, seed=3, **few), fit(train, seed=4, **few)
    for name in ("centre", "scale", "feature_centre", "feature_scale"):
        assert torch.equal(getattr(one, name), getattr(same, name))
        assert not torch.equal(getattr(one, name), getattr(other, name))


def test_no_training_segments_is_an_error(splits):
    train = splits.datasets["train"]
    empty = SegmentDataset(train.table[:0], train.store, train.stimuli, N_TIMES, N_BASELINE)
    with pytest.raises(ValueError, match="No training segments"):
        fit(empty)


# Features


@pytest.mark.parametrize("per_channel", [False, True])
def test_features_are_scaled_by_the_samples_with_a_word(splits, per_channel):
    train = splits.datasets["train"]
    scaler = fit(train, per_channel=per_channel)
    batch = train.gather(torch.arange(len(train)))
    mel = batch.features[:, :20].transpose(1, 2)[batch.mask[:, 0]].double()  # [n, 20]
    assert 0.5 < len(mel) / batch.mask.numel() < 0.95  # some samples count, others don't
    if per_channel:
        centre, scale = mel.mean(dim=0), mel.std(dim=0, correction=0)
    else:
        centre, scale = mel.mean().repeat(20), mel.std(correction=0).repeat(20)
    torch.testing.assert_close(scaler.feature_centre[:20].double(), centre, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(scaler.feature_scale[:20].double(), scale, rtol=1e-6, atol=1e-6)
    scaled = scaler(batch).features[:, :20]
    torch.testing.assert_close(
        scaled[3].double(), (batch.features[3, :20] - centre[:, None]) / scale[:, None]
    )


def test_labels_are_not_scaled(splits):
    train = splits.datasets["train"]
    scaler = fit(train)
    assert (scaler.feature_centre[20:].item(), scaler.feature_scale[20:].item()) == (0.0, 1.0)
    batch = train.gather(torch.arange(5))
    assert torch.equal(scaler(batch).features[:, 20:], batch.features[:, 20:])


def test_features_without_any_word_are_scaled_over_all_samples(splits, caplog):
    train = splits.datasets["train"]
    mute = replace(train.stimuli, mask=torch.zeros_like(train.stimuli.mask))
    dataset = SegmentDataset(train.table, train.store, mute, N_TIMES, N_BASELINE)
    scaler = fit(dataset)
    values = train.gather(torch.arange(len(train))).features[:, :20].double()
    assert scaler.feature_centre[0].item() == pytest.approx(values.mean().item())
    assert scaler.feature_scale[0].item() == pytest.approx(values.std(correction=0).item())
    assert "No words in the training segments" in caplog.text


@pytest.mark.parametrize("value", [0.0, -5.0, 1e-5, np.log10(np.float32(1e-5))])
@pytest.mark.parametrize("per_channel", [False, True])
def test_silent_sound_is_an_error(splits, value, per_channel):
    train = splits.datasets["train"]
    mel, words = train.stimuli.rows
    with pytest.raises(ValueError, match="Feature MelSpectrum has the same value in all training"):
        fit(with_rows(train, torch.full_like(mel, value), words), per_channel=per_channel)


def test_constant_column_is_kept_as_it_is(splits, caplog):
    train = splits.datasets["train"]
    mel, words = train.stimuli.rows
    mel = mel.clone()
    mel[:, 7] = -5.0
    with caplog.at_level(logging.WARNING):
        scaler = fit(with_rows(train, mel, words), per_channel=True)
    assert scaler.feature_scale[7] == 1.0
    assert scaler.feature_centre[7] == -5.0
    assert (scaler.feature_scale[:20] > 0.01).all()
    assert "MelSpectrum: 1 constant column(s)" in caplog.text


def test_segments_without_words_can_be_rejected(splits):
    train = splits.datasets["train"]
    batch = train.gather(torch.arange(len(train)))
    has_words = batch.mask.flatten(1).any(dim=1)
    assert 0 < (~has_words).sum() < len(train)  # the silence at the beginning
    assert len(fit(train)(batch)) == len(train)
    kept = fit(train, exclude_empty_features=True)(batch)
    assert kept.row.tolist() == batch.row[has_words].tolist()


# Tables that are scaled as a whole


def test_scaled_tables_and_scaling_in_place_give_the_same_batch_to_the_bit(splits):
    train = splits.datasets["train"]
    scaler = fit(train)
    rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    expected = scaler(train.gather(rows))
    assert expected.features.std() > 0.5
    prepared = scaler.with_scaled_features(train)
    batch = prepared.gather(rows)
    assert torch.equal(batch.features, expected.features)
    assert torch.equal(batch.meg, train.gather(rows).meg)
    scaled = scaler(batch, in_place=True)
    assert scaled.meg.data_ptr() == batch.meg.data_ptr()
    for name in SegmentBatch.__dataclass_fields__:
        one, other = getattr(scaled, name), getattr(expected, name)
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other)), name
    unscaled = train.gather(rows)
    features = scaler(unscaled, in_place=True).features
    assert torch.equal(features, expected.features)
    assert features.data_ptr() == unscaled.features.data_ptr()
    assert type(prepared) is SegmentDataset
    assert prepared.table is train.table
    assert not train.gather(rows).has_scaled_features  # as they were, for who asks


def test_splits_share_scaled_tables_and_features_that_stay_as_they_are(splits):
    scaler = fit(splits.datasets["train"])
    train, test = (scaler.with_scaled_features(splits.datasets[name]) for name in ("train", "test"))
    assert train.stimuli is test.stimuli
    assert scaler.with_scaled_features(train) is train
    (mel, words), before = train.stimuli.rows, splits.datasets["train"].stimuli.rows
    assert words is before[1]  # a class
    assert mel.data_ptr() != before[0].data_ptr()


def test_without_room_for_scaled_tables_each_batch_is_scaled(splits, monkeypatch):
    train = splits.datasets["train"]
    n_bytes = sum(rows.nbytes for rows in train.stimuli.rows)
    monkeypatch.setattr(scaling, "free_memory", lambda device: 3.9 * n_bytes)
    assert fit(train).with_scaled_features(train) is train
    monkeypatch.setattr(scaling, "free_memory", lambda device: 4.1 * n_bytes)
    assert fit(train).with_scaled_features(train) is not train


def test_tables_are_scaled_anew_with_other_statistics(splits):
    train = splits.datasets["train"]
    scaler = fit(train)
    assert scaler.with_scaled_features(train).stimuli.rows[0].std() > 0.5
    state = scaler.state_dict()
    state["feature_scale"] = 2 * state["feature_scale"]
    scaler.load_state_dict(state)
    rows = torch.arange(5)
    now = scaler.with_scaled_features(train).gather(rows).features
    assert torch.equal(now, scaler(train.gather(rows)).features)


# State


def test_state_survives_a_checkpoint(splits, tmp_path: Path):
    train = splits.datasets["train"]
    scaler = fit(train, max_scale=3.0, clip=False, per_channel=True, exclude_empty_features=True)
    torch.save(scaler.state_dict(), tmp_path / "scaler.th")
    other = BatchScaler()
    other.load_state_dict(torch.load(tmp_path / "scaler.th", weights_only=True))
    batch = train.gather(torch.arange(30))
    one, two = scaler(batch), other(batch)
    assert torch.equal(one.meg, two.meg)
    assert torch.equal(one.features, two.features)
    public = {name for name in vars(scaler) if not name.startswith("_")}
    assert public == scaler.state_dict().keys()


def test_clamp_must_be_positive():
    with pytest.raises(ValueError, match=r"norm\.max_scale=0 must be positive"):
        BatchScaler(max_scale=0)


def test_scaler_is_fitted_once_and_again_for_anything_else(splits, tmp_path, monkeypatch):
    cache, train = Cache(tmp_path), splits.datasets["train"]
    n_fits = []
    fit = BatchScaler.fit
    monkeypatch.setattr(BatchScaler, "fit", lambda *args: n_fits.append(1) or fit(*args))

    def fitted(dataset=train, seed=0, **settings):
        before = len(n_fits)
        scaler = BatchScaler(**settings).fit_once(dataset, 2, seed, Cache(tmp_path))
        return scaler, len(n_fits) - before

    first, n_first = fitted()
    again, n_again = fitted()
    assert (n_first, n_again) == (1, 0)
    for name, value in fit(BatchScaler(), train, 2, 0).state_dict().items():
        kept, new = again.state_dict()[name], first.state_dict()[name]
        assert torch.equal(torch.as_tensor(kept), torch.as_tensor(value)), name
        assert torch.equal(torch.as_tensor(kept), torch.as_tensor(new)), name
    fewer = SegmentDataset(
        train.table[3:], train.store, train.stimuli, train.n_times, train.n_baseline
    )
    louder = replace(train.stimuli, rows=[2 * rows for rows in train.stimuli.rows])
    other = SegmentDataset(train.table, train.store, louder, train.n_times, train.n_baseline)
    assert [fitted(fewer)[1], fitted(other)[1], fitted(seed=1)[1]] == [1, 1, 1]
    assert [fitted(per_channel=True)[1], fitted(max_scale=9.0)[1], fitted()[1]] == [1, 1, 0]
    assert cache.folder.exists()


def test_scale_of_signals_that_lie_in_no_file_is_not_kept(splits, tmp_path):
    train = splits.datasets["train"]
    store = object.__new__(type(train.store))
    vars(store).update(vars(train.store), arrays=[array + 1 for array in train.store.arrays])
    control = SegmentDataset(train.table, store, train.stimuli, train.n_times, train.n_baseline)
    BatchScaler().fit_once(control, 2, 0, Cache(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()
