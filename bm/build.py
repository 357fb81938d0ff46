"""The only factory: from a configuration to recordings, features, segments, models and a solver."""

import itertools
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from dora import to_absolute_path

from bm import distrib
from bm.build_models import build_loss, build_models
from bm.checkpoint import CHECKPOINT
from bm.config import Config, DsetConfig, to_dict
from bm.core.cache import Cache
from bm.core.layout import NO_POSITION
from bm.core.machine import keep_freed_memory
from bm.core.messages import DataError, check_choice
from bm.core.plugins import load_plugins
from bm.core.versions import git_commit, versions
from bm.encoding import EncodingSolver
from bm.features import Feature, make_features
from bm.losses import ClipLoss
from bm.optimizer import OptimizerSettings
from bm.recordings import Recording
from bm.recordings.montage import collect_montages
from bm.scaling import BatchScaler
from bm.segments import SignalStore, Splits, WindowRule, build_splits
from bm.segments.anchors import add_anchor_values
from bm.segments.controls import apply_control
from bm.segments.prepare import BlockRule, SignalSettings, build_tables, prepare
from bm.segments.rejection import reject_segments
from bm.solver import History, Solver, Training
from bm.studies import from_selection
from bm.training import choose_precision

logger = logging.getLogger(__name__)

Provenance = Sequence[tuple[str, Any, str]]


@dataclass(frozen=True)
class Data:
    """Segments of an experiment, and the features they carry."""

    splits: Splits
    features: list[Feature]


def build_recordings(config: Config) -> list[Recording]:
    """Recordings of all selections, interleaved, in their final order.

    Raises
    ------
    ValueError : a selection doesn't exist.
    """
    load_plugins(config.plugins, to_absolute_path("."))
    dset, cache = config.dset, Cache(to_absolute_path(config.cache))
    per_selection = [list(from_selection(one, cache)) for one in build_selections(config)]
    recordings = [
        recording
        for group in itertools.zip_longest(*per_selection)
        for recording in group
        if recording is not None
    ]
    if dset.shuffle_recordings_seed >= 0:
        random.Random(dset.shuffle_recordings_seed).shuffle(recordings)
    recordings = recordings[dset.skip_recordings :][: dset.n_recordings]
    subjects = sorted({(one.study, one.subject_uid) for one in recordings})[: dset.n_subjects]
    return [one for one in recordings if (one.study, one.subject_uid) in subjects]


def build_selections(config: Config) -> list[dict[str, Any]]:
    """Selections of the experiment, each with the path of its study.

    Raises
    ------
    ValueError : a selection doesn't exist.
    """
    for name in config.dset.selections:
        check_choice("dset.selections", name, config.selections)
    return [_selection(config, name) for name in config.dset.selections]


def build_data(config: Config, device: str) -> Data:
    """Prepare recordings and features, and cut both into segments."""
    dset = config.dset
    signals, blocks = build_rules(dset)
    features = build_features(config)
    windows = build_windows(dset)
    cache = Cache(to_absolute_path(config.cache))
    recordings = build_recordings(config)
    aside: dict[str, str] = {}
    prepared = prepare(recordings, signals, blocks, dset.on_bad_recording, aside)
    extra = build_features(config, dset.extra_test_features)
    prepared, tables = build_tables(
        prepared, [*features, *extra], cache, dset.on_bad_recording, aside
    )
    tables, of_extra = tables[: len(features)], tables[len(features) :]
    prepared = apply_control(prepared, dset.control, config.seed)
    signals_of = [item.signal for item in prepared]
    store = SignalStore(signals_of, dset.residency, device, dset.storage)
    splits = build_splits(
        prepared,
        tables,
        windows,
        store,
        baseline=dset.apply_baseline,
        event_mask=dset.event_mask,
        n_subjects_test=dset.n_subjects_test,
        allow_empty_split=dset.allow_empty_split,
        n_dimensions=dset.sensor_dimensions,
    )
    if dset.autoreject:
        splits = reject_segments(splits, config.seed)
    test = splits.datasets["test"]
    test.table = add_anchor_values(test.table, of_extra, dset.sample_rate)
    return Data(replace(splits, set_aside=aside), features)


def build_rules(dset: DsetConfig) -> tuple[SignalSettings, BlockRule]:
    """How signals are preprocessed, and how recordings are divided into blocks."""
    bandpass = None if dset.bandpass is None else _pair(dset.bandpass, "dset.bandpass")
    signals = SignalSettings(dset.sample_rate, dset.highpass, bandpass, dset.notch)
    return signals, _from_fields(BlockRule, dset)


def build_features(config: Config, names: Sequence[str] | None = None) -> list[Feature]:
    """Features that are decoded, or those of `names`; their own models are loaded when used."""
    load_plugins(config.plugins, to_absolute_path("."))
    folder = to_absolute_path(config.features_models)
    dset = config.dset
    shared = {"models_folder": folder, "sample_rate": dset.sample_rate}
    chosen = dset.features if names is None else names
    return make_features(chosen, dset.features_params, **shared)


def build_windows(dset: DsetConfig) -> dict[str, WindowRule]:
    """Windows of each split."""
    train = _from_fields(WindowRule, dset)
    test = {name: value for name, value in vars(dset.test).items() if value is not None}
    return {"train": train, "valid": train, "test": replace(train, **test)}


def build_solver(
    config: Config,
    folder: Path | None = None,
    publish: Callable[[History], None] | None = None,
    provenance: Provenance = (),
) -> Solver:
    """Everything that an experiment needs to run.

    Parameters
    ----------
    config : the experiment.
    folder : where its checkpoint lives; None: nothing is kept.
    publish : told the history after each epoch.
    provenance : (key, value, source) of values that aren't the defaults, kept in the checkpoint.
    """
    device = choose_device(config.device)
    if device == "cpu":
        keep_freed_memory()
    data = build_data(config, device)
    splits, train = data.splits, data.splits.datasets["train"]
    _check_positions(config, splits)
    models = build_models(
        config, train.store.n_sensors, train.n_features, len(splits.subjects), data.features
    )
    loss = build_loss(config, data.features, train)
    if isinstance(loss, ClipLoss):
        models["loss"] = loss  # it can have parameters, and a mode for training
    n_parameters = sum(parameter.numel() for parameter in models.parameters())
    if config.optim.batch_norm_scope == "all":
        distrib.synchronise_batch_norm(models)
    logger.info("Model: %s parameters.", f"{n_parameters:,}")
    scaler = build_scaler(config, splits)
    solver = _solver_of(config)(
        splits,
        models,
        loss,
        scaler,
        build_training(config, device),
        _from_fields(OptimizerSettings, config.optim),
        folder,
        describe(config, data, provenance),
        publish,
    )
    if config.continue_sig is not None:
        if folder is None:
            raise ValueError(
                "continue_sig needs an experiment folder to find the other one beside."
            )
        solver.start_from(folder.parent / config.continue_sig / CHECKPOINT, config.continue_best)
    return solver


def build_scaler(config: Config, splits: Splits) -> BatchScaler:
    """Scaler, fitted on the training segments."""
    norm = config.norm
    scaler = BatchScaler(
        norm.max_scale,
        norm.clip,
        norm.scaler.per_channel,
        norm.scaler.n_samples_per_recording,
        norm.scaler.n_samples_features,
        norm.exclude_empty_features,
    )
    cache = Cache(to_absolute_path(config.cache))
    return scaler.fit_once(splits.datasets["train"], len(splits.prepared), config.seed, cache)


def build_training(config: Config, device: str) -> Training:
    """Settings of the solver."""
    return Training(
        epochs=config.optim.epochs,
        batch_size=config.optim.batch_size,
        sample_rate=config.dset.sample_rate,
        max_batches=config.optim.max_batches,
        patience=config.early_stop_patience,
        seed=config.seed,
        delay=config.task.offset_meg_ms / 1000,
        device=device,
        precision=choose_precision(config.optim.precision, device),
        compile=config.optim.compile,
        micro_batch=config.optim.micro_batch,
        eval_every=config.eval_every,
        n_workers=config.num_workers if device != "cpu" else 0,
        mask_loss=config.task.mask_loss,
        negatives=config.optim.negatives,
        negative_pool_size=config.optim.negative_pool_size,
        svd=config.optim.svd,
        negatives_scope=config.optim.negatives_scope,
        word_top_x=config.test.wer_topx,
        word_negatives=config.test.wer_negatives,
        word_recordings=config.test.wer_recordings,
        word_study=config.test.wer_study,
        random_estimates=config.test.wer_random,
        n_prints=config.num_prints,
        on_bad_loss=config.optim.on_bad_loss,
    )


def choose_device(wanted: str) -> str:
    """The configured device, or the CPU (logged) where there is no such thing.

    Where several processes train one model, "cuda" is the GPU of this process on its machine.

    Raises
    ------
    ValueError : there are more processes on this machine than GPUs.
    """
    has_mps = torch.backends.mps.is_available()
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        hint = " This machine has an Apple GPU: device=mps" if has_mps else ""
        logger.warning("device=%s, but no GPU is available: using the CPU.%s", wanted, hint)
        return "cpu"
    if wanted == "mps" and not has_mps:
        logger.warning("device=mps, but there is no Apple GPU that torch can use: using the CPU.")
        return "cpu"
    if wanted != "cuda" or distrib.world_size() == 1:
        return wanted
    local_rank, n_gpus = distrib.local_rank(), torch.cuda.device_count()
    if local_rank >= n_gpus:
        raise ValueError(
            f"This is process {local_rank + 1} of its machine, which has {n_gpus} GPU(s): start "
            "as many processes as there are GPUs, or set device=cpu."
        )
    return f"cuda:{local_rank}"


def describe(config: Config, data: Data, provenance: Provenance) -> dict[str, Any]:
    """What makes a checkpoint self-contained, in plain values."""
    sensors = [item.signal.sensors for item in data.splits.prepared]
    montages = collect_montages(sensors, config.dset.sensor_dimensions)
    return {
        "config": to_dict(config),
        "provenance": [list(entry) for entry in provenance],
        "features": [{"name": one.name, "dimension": one.dimension} for one in data.features],
        "sensors": [list(one.names) for one in sensors],
        "montages": [montage.to_dict() for montage in montages],
        "versions": versions(),
        "commit": git_commit(),
    }


def _solver_of(config: Config) -> Callable[..., Solver]:
    """The solver of the task, once it is known to fit the loss."""
    if config.task.type == "decode":
        if config.task.lowpass:
            raise ValueError(
                f"task.lowpass={config.task.lowpass} filters predicted brain signals "
                "(task.type=encode). To filter what a decoder sees, set dset.bandpass."
            )
        return Solver
    if config.optim.loss not in ("l1", "mse"):
        raise ValueError(
            f"optim.loss={config.optim.loss} is for decoding: task.type=encode needs l1 or mse."
        )
    task = config.task
    return partial(
        EncodingSolver,
        meg_init=task.meg_init,
        lowpass=task.lowpass,
        lowpass_gt=task.lowpass_gt,
        lowpass_gt_test=task.lowpass_gt_test,
    )


def _check_positions(config: Config, splits: Splits) -> None:
    """Spatial attention needs to know where at least one sensor is."""
    is_ours = config.model_name == "simpleconv" and config.encoder.target is None
    if not (is_ours and config.simpleconv.merger):
        return
    for item in splits.prepared:
        places = item.signal.sensors.places(config.dset.sensor_dimensions)
        if (places == NO_POSITION).all():
            raise DataError(
                f"{item.recording}: no usable sensor has a position, so spatial attention has "
                "nothing to attend to. Give positions (a montage), leave the recording out, or set "
                "simpleconv.merger=false."
            )


def _selection(config: Config, name: str) -> dict[str, Any]:
    """A selection, with the path of its study where it names none."""
    selection = dict(config.selections[name])
    paths = config.study_paths.get("default", {})
    for key in ("path", "root"):
        if selection.get(key):
            selection[key] = to_absolute_path(selection[key])
    if not any(selection.get(key) for key in ("path", "root")) and selection.get("study") in paths:
        selection["path"] = to_absolute_path(paths[selection["study"]])
    return selection


def _from_fields(kind: Any, config: Any) -> Any:
    """Build a dataclass from the keys of a configuration that have the names of its fields."""
    names = kind.__dataclass_fields__
    return kind(**{name: getattr(config, name) for name in names if hasattr(config, name)})


def _pair(values: Sequence[float], key: str) -> tuple[float, float]:
    if len(values) != 2:
        raise ValueError(f"{key}={list(values)} needs two frequencies, [low, high].")
    return values[0], values[1]
