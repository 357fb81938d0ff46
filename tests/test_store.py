"""Store and loader: the same numbers from every residency, the same order from every loader."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import RULES, SmallRecording, make_splits, tell_story

from bm.core.cache import Cache
from bm.core.machine import available_memory
from bm.core.messages import DataError
from bm.features.mel import MelSpectrum
from bm.recordings import Signal
from bm.recordings.sensors import Sensors
from bm.scaling import BatchScaler
from bm.segments import SegmentBatch, SegmentDataset, SegmentLoader, SignalStore, build_splits
from bm.segments.loader import one_ahead
from bm.segments.prepare import BlockRule, Prepared, SignalSettings, build_tables, prepare
from bm.segments.store import choose_residency

RESIDENCIES = ("device", "host", "disk")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("store") / "cache")


@pytest.fixture(scope="module")
def prepared(stored: Cache) -> list[Prepared]:
    """Recordings of 6 and 4 sensors."""
    stored.folder.mkdir(exist_ok=True)
    events = tell_story(stored.folder)
    recordings = [
        SmallRecording(stored, events, "r0", "s0", seed=0, n_sensors=6),
        SmallRecording(stored, events, "r1", "s1", seed=1, n_sensors=4),
    ]
    return prepare(recordings, SignalSettings(), BlockRule())


@pytest.fixture(scope="module")
def datasets(prepared: list[Prepared], stored: Cache) -> dict[str, SegmentDataset]:
    """Training segments by residency."""
    return {
        residency: make_splits(
            [], stored, ["MelSpectrum", "WordHash"], residency, prepared=prepared
        ).datasets["train"]
        for residency in RESIDENCIES
    }


def assert_same(one: SegmentBatch, other: SegmentBatch) -> None:
    for name in SegmentBatch.__dataclass_fields__:
        left, right = getattr(one, name), getattr(other, name)
        assert torch.equal(torch.as_tensor(left).cpu(), torch.as_tensor(right).cpu()), name


def make_signal(n_samples: int, n_sensors: int, seed: int, path: Path) -> Signal:
    values = np.random.default_rng(seed).standard_normal((n_samples, n_sensors))
    np.save(path, values.astype(np.float32))
    names = [f"X{number}" for number in range(n_sensors)]
    sensors = Sensors(names, np.zeros((n_sensors, 2), np.float32), np.zeros((n_sensors, 3)))
    return Signal(np.load(path, "r"), 120.0, sensors)


# Store


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_gathered_windows_are_slices_of_the_signals(tmp_path, residency):
    signals = [
        make_signal(100, 3, 0, tmp_path / "a.npy"),
        make_signal(50, 5, 1, tmp_path / "b.npy"),
    ]
    store = SignalStore(signals, residency)
    assert (store.residency, store.n_sensors) == (residency, 5)
    recording, first = torch.tensor([1, 0, 0, 1, 0]), torch.tensor([40, 90, 0, 0, 37])
    windows = store.gather(recording, first, 10)
    assert windows.shape == (5, 5, 10)
    assert windows.dtype == torch.float32
    for window, index, begin in zip(windows, recording.tolist(), first.tolist(), strict=True):
        signal = signals[index].data
        np.testing.assert_array_equal(window[: signal.shape[1]], signal[begin : begin + 10].T)
        assert (window[signal.shape[1] :] == 0).all()
    assert store.gather(recording[:0], first[:0], 10).shape == (0, 5, 10)


def test_all_residencies_give_the_same_batches_to_the_bit(datasets):
    rows = torch.randperm(len(datasets["host"]), generator=torch.Generator().manual_seed(0))
    reference = datasets["host"].gather(rows)
    assert set(reference.recording_index.tolist()) == {0, 1}
    for residency in ("device", "disk"):
        assert datasets[residency].store.residency == residency
        assert_same(datasets[residency].gather(rows), reference)


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_batches_do_not_touch_the_store(datasets, residency):
    dataset = datasets[residency]
    rows = torch.arange(4)
    before = dataset.gather(rows).meg.clone()
    dataset.gather(rows).meg.fill_(7.0)
    assert torch.equal(dataset.gather(rows).meg, before)


def test_signals_stay_on_disk_only_if_they_must(datasets):
    assert datasets["disk"].store._flat is None
    assert datasets["host"].store._flat is not None
    free = available_memory()
    assert choose_residency(int(0.1 * free), "cpu") == "host"
    assert choose_residency(int(0.9 * free), "cpu") == "disk"


def test_automatic_residency_of_a_small_study_is_memory(prepared):
    assert SignalStore([item.signal for item in prepared]).residency == "host"
    with pytest.raises(ValueError, match=r"dset\.residency='gpu'.*device, disk, host"):
        SignalStore([item.signal for item in prepared], "gpu")


@pytest.mark.gpu
def test_residencies_give_the_same_batches_on_a_gpu(prepared, stored, datasets):
    rows = torch.arange(len(datasets["host"]))
    reference = datasets["host"].gather(rows)
    for residency in RESIDENCIES:
        store = SignalStore([item.signal for item in prepared], residency, "cuda")
        window = store.gather(torch.tensor([0, 1]), torch.tensor([5, 9]), 361)
        expected = datasets["host"].store.gather(torch.tensor([0, 1]), torch.tensor([5, 9]), 361)
        assert torch.equal(window.cpu(), expected)
        assert window.device.type == ("cuda" if residency == "device" else "cpu")
    assert choose_residency(1000, "cuda") == "device"
    loader = SegmentLoader(datasets["host"], 32, "cuda", n_workers=2)
    batches = list(loader.in_order())
    assert batches[0].meg.device.type == "cuda"
    torch.testing.assert_close(torch.cat([one.meg for one in batches]).cpu(), reference.meg)
    assert torch.equal(torch.cat([one.features for one in batches]).cpu(), reference.features)
    assert torch.cat([one.row for one in batches]).tolist() == rows.tolist()


# Storage in half precision


@pytest.mark.parametrize(("storage", "n_bits"), [("bf16", 8), ("fp16", 11)])
def test_half_precision_takes_half_the_memory_and_loses_what_its_bits_lose(
    tmp_path, storage, n_bits
):
    signal = make_signal(500, 4, 0, tmp_path / "a.npy")
    wanted = 1e-13 * (1000 + signal.data)  # teslas far from 0
    wanted[:, 3] = 2e-13  # flat
    signals = [replace(signal, data=wanted), replace(signal, data=wanted[:400, :2])]
    store = SignalStore(signals, "host", storage=storage)
    assert store.n_bytes == store._flat.nbytes == SignalStore(signals, "host").n_bytes // 2
    recording, first = torch.tensor([0, 1]), torch.tensor([3, 90])
    windows = store.gather(recording, first, 300)
    assert windows.dtype == torch.float32
    expected = torch.from_numpy(np.stack([wanted[3:303, :2].T, wanted[90:390, :2].T]))
    error = (windows[:, :2] - expected).abs() / 1e-13
    most = float(np.abs(signal.data).max()) * 2.0**-n_bits
    assert 0.2 * most < error.max() < 1.01 * most + 1e-3  # fp32 rounds 1000, too
    assert torch.equal(windows[0, 3], torch.full((300,), 2e-13))
    assert (windows[1, 2:] == 0).all()
    for residency in ("device", "disk"):
        elsewhere = SignalStore(signals, residency, storage=storage)
        assert torch.equal(elsewhere.gather(recording, first, 300), windows)


def test_features_are_kept_in_half_precision_but_classes_are_not(prepared, stored):
    names = ["MelSpectrum", "WordHash"]
    splits = {
        storage: make_splits([], stored, names, "host", prepared=prepared, storage=storage)
        for storage in ("fp32", "fp16")
    }
    whole, half = (splits[storage].datasets["train"] for storage in ("fp32", "fp16"))
    assert [rows.dtype for rows in half.stimuli.rows] == [torch.float16, torch.float32]
    rows = torch.arange(20)
    one, other = half.gather(rows), whole.gather(rows)
    assert one.meg.dtype == one.features.dtype == torch.float32
    assert not torch.equal(one.features[:, :-1], other.features[:, :-1])
    torch.testing.assert_close(one.features, other.features, rtol=1e-3, atol=1e-6)
    assert torch.equal(one.features[:, -1], other.features[:, -1])
    batch = next(SegmentLoader(half, 20).in_order())
    assert_same(batch, one)
    assert BatchScaler().fit(half, 2, 0).with_scaled_features(half) is half  # that would be fp32


def test_features_that_half_precision_cannot_hold_are_refused(prepared, stored):
    _, (table,) = build_tables(prepared, [MelSpectrum(n_mels=4)], stored)
    table.rows[5] = 1e5
    store = SignalStore([item.signal for item in prepared], "host", storage="fp16")
    with pytest.raises(DataError, match=r"MelSpectrum .* too large .* dset\.storage=fp32 or bf16"):
        build_splits(prepared, [table], RULES, store)


# Batch


def test_selected_segments_keep_what_belongs_to_them(datasets):
    batch = datasets["host"].gather(torch.arange(10, 20))
    keep = torch.zeros(10, dtype=torch.bool)
    keep[[2, 7]] = True
    assert_same(batch.select(keep), datasets["host"].gather(torch.tensor([12, 17])))
    assert len(batch.select(~keep)) == 8
    assert_same(batch.to("cpu"), batch)


# Loader


def orders(loader: SegmentLoader, epoch: int) -> list[list[int]]:
    return [batch.row.tolist() for batch in loader.epoch(epoch)]


def test_order_follows_from_seed_and_epoch_alone(datasets):
    dataset = datasets["host"]
    torch.manual_seed(1)
    first = orders(SegmentLoader(dataset, 32, seed=5), 3)
    torch.manual_seed(2)
    loader = SegmentLoader(dataset, 32, seed=5)
    orders(loader, 0)  # what came before doesn't matter
    assert orders(loader, 3) == first
    assert orders(loader, 4) != first
    assert orders(SegmentLoader(dataset, 32, seed=6), 3) != first


def test_every_segment_comes_once_an_epoch(datasets):
    dataset = datasets["host"]
    loader = SegmentLoader(dataset, 32)
    n = len(dataset)
    assert n % 32 != 0
    batches = orders(loader, 0)
    assert sorted(row for batch in batches for row in batch) == list(range(n))
    assert [len(batch) for batch in batches] == [32] * (n // 32) + [n % 32]  # the last is smaller
    assert len(loader) == len(batches) == n // 32 + 1
    assert [row for batch in batches for row in batch] != list(range(n))
    in_order = [row for batch in loader.in_order() for row in batch.row.tolist()]
    assert in_order == list(range(n))


@pytest.mark.parametrize("residency", RESIDENCIES)
@pytest.mark.parametrize("n_workers", [1, 3, 50])
def test_workers_change_nothing(datasets, residency, n_workers):
    alone = list(SegmentLoader(datasets["host"], 30, seed=2).epoch(1))
    together = list(SegmentLoader(datasets[residency], 30, seed=2, n_workers=n_workers).epoch(1))
    assert len(alone) == len(together)
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)


def test_number_of_batches_can_be_limited(datasets):
    dataset = datasets["host"]
    everything = orders(SegmentLoader(dataset, 32, seed=1), 0)
    for n_workers in (0, 2):
        loader = SegmentLoader(dataset, 32, seed=1, max_batches=3, n_workers=n_workers)
        assert len(loader) == 3
        assert orders(loader, 0) == everything[:3]
        assert len(list(loader.in_order())) == 3
    assert len(SegmentLoader(dataset, 32, max_batches=1000)) == len(everything)
    assert len(SegmentLoader(dataset, 10_000)) == 1


def test_loader_that_is_left_early_leaves_no_threads(datasets):
    before = threading.active_count()
    batches = SegmentLoader(datasets["host"], 8, n_workers=3).epoch(0)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_error_in_a_worker_reaches_the_caller(datasets):
    broken = SegmentDataset(
        datasets["host"].table.assign(first=10**9),
        datasets["host"].store,
        datasets["host"].stimuli,
        361,
        61,
    )
    with pytest.raises(IndexError):
        list(SegmentLoader(broken, 8, n_workers=2).epoch(0))


def test_batch_must_hold_a_segment(datasets):
    with pytest.raises(ValueError, match=r"optim\.batch_size=0 must be at least 1"):
        SegmentLoader(datasets["host"], 0)


def test_next_batch_is_on_its_way_before_one_is_given():
    asked: list[int] = []
    ahead = one_ahead(asked.append(number) or number for number in range(4))
    assert [(number, len(asked)) for number in ahead] == [(0, 2), (1, 3), (2, 4), (3, 4)]
    assert list(one_ahead(iter([7]))) == [7]
    assert list(one_ahead(iter([]))) == []


def test_empty_split_has_no_batches(datasets):
    dataset = datasets["host"]
    empty = SegmentDataset(dataset.table[:0], dataset.store, dataset.stimuli, 361, 61)
    assert len(SegmentLoader(empty, 8)) == 0
    assert list(SegmentLoader(empty, 8).epoch(0)) == []
