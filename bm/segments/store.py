"""Where the brain signals live during training: on the device, in memory, or mapped from disk."""

import logging
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from bm.core.machine import available_memory
from bm.core.messages import check_choice

logger = logging.getLogger(__name__)

RESIDENCIES = ("auto", "device", "host", "disk")
STORAGES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Types that signals and features may be kept in."""
DEVICE_SHARE, HOST_SHARE = 0.6, 0.5


@runtime_checkable
class Stored(Protocol):
    """What is stored of a recording (a `bm.recordings.Signal`)."""

    @property
    def data(self) -> np.ndarray:
        """Brain signal [T, C] float32."""


class SignalStore:
    """The signals of all recordings, from which batches of windows are gathered.

    All residencies give the same numbers. Recordings with fewer sensors than the largest are padded
    with zeros. In half precision each sensor is kept as deviations from its mean, in units of their
    standard deviation: teslas are too small for "fp16", and offsets too large for both.

    Parameters
    ----------
    signals : preprocessed recordings.
    residency : "device" (all signals in the memory of `device`), "host" (RAM), "disk" (mapped
        files), or "auto": the first of these with room to spare.
    device : where training happens.
    storage : type that signals are kept in, of `STORAGES`; windows are rounded to it on disk, too.

    Attributes
    ----------
    arrays, lengths : data of each recording, and their samples.
    n_bytes : of all signals together.
    dtype : of what is kept.
    centre, spread : [R, C] of each recording and sensor, which half precision is relative to.

    Raises
    ------
    MemoryError : there is no room where the signals were told to be.
    """

    def __init__(
        self,
        signals: Sequence[Stored],
        residency: str = "auto",
        device: str = "cpu",
        storage: str = "fp32",
    ):
        check_choice("dset.residency", residency, RESIDENCIES)
        check_choice("dset.storage", storage, STORAGES)
        self.dtype = STORAGES[storage]
        self.n_sensors = max(signal.data.shape[1] for signal in signals)
        self.lengths = lengths = [len(signal.data) for signal in signals]
        self.n_bytes = n_bytes = sum(lengths) * self.n_sensors * self.dtype.itemsize
        self.residency = choose_residency(n_bytes, device) if residency == "auto" else residency
        _check_room(n_bytes, self.residency, device)
        self.device = device
        self.home = device if self.residency == "device" else "cpu"
        self.first_row = torch.tensor(np.cumsum([0, *lengths[:-1]]), device=self.home)
        self.arrays = [signal.data for signal in signals]
        self.centre = torch.zeros(len(signals), self.n_sensors)
        self.spread = torch.ones(len(signals), self.n_sensors)
        self._scales: dict[torch.device, tuple[Tensor, Tensor]] = {}
        if self.is_half:
            self._measure()
        self._flat: Tensor | None = None
        if self.residency != "disk":
            flat = torch.empty(sum(lengths), self.n_sensors, dtype=self.dtype)
            for index, (rows, array) in enumerate(
                zip(flat.split(lengths), self.arrays, strict=True)
            ):
                n_sensors = array.shape[1]
                if self.is_half:
                    rows[:, :n_sensors] = self._pack(array, index)
                else:
                    rows.numpy()[:, :n_sensors] = array
                rows[:, n_sensors:] = 0.0
            self._flat = flat.to(self.home)
        logger.info(
            "Signals: %.2f GB, kept on %s%s.",
            n_bytes / 1e9, _describe(self.residency, device), f" in {storage}" * self.is_half,
        )  # fmt: skip

    @property
    def is_half(self) -> bool:
        """Whether signals and features are kept in half precision."""
        return self.dtype != torch.float32

    def gather(self, recording_index: Tensor, first: Tensor, n_times: int) -> Tensor:
        """Windows [B, C, T] float32 that begin at sample `first` [B] of each recording [B]."""
        return self.restore(self.gather_stored(recording_index, first, n_times), recording_index)

    def gather_stored(self, recording_index: Tensor, first: Tensor, n_times: int) -> Tensor:
        """The same windows as they are kept, for `restore`."""
        if self._flat is not None:
            rows = (self.first_row[recording_index] + first)[:, None]
            rows = rows + torch.arange(n_times, device=self.home)
            windows = self._flat.index_select(0, rows.flatten())
            return windows.view(len(first), n_times, self.n_sensors).transpose(1, 2)
        windows = torch.zeros(len(first), n_times, self.n_sensors, dtype=self.dtype)
        for row, (index, begin) in enumerate(
            zip(recording_index.tolist(), first.tolist(), strict=True)
        ):
            array = self.arrays[index]
            windows[row, :, : array.shape[1]] = self._pack(array[begin : begin + n_times], index)
        return windows.transpose(1, 2)

    def restore(self, windows: Tensor, recording_index: Tensor) -> Tensor:
        """Windows [B, C, T] float32 of what is kept, on whichever device that is."""
        if not self.is_half:
            return windows
        device = windows.device
        if device not in self._scales:  # copied once: a GPU would be waited for each time
            self._scales[device] = self.centre.to(device), self.spread.to(device)
        centre, spread = (of_all[recording_index][..., None] for of_all in self._scales[device])
        return windows.float().mul_(spread).add_(centre)

    def _pack(self, values: np.ndarray, index: int) -> Tensor:
        """What is kept of values [n, C] of a recording."""
        tensor = torch.from_numpy(values.copy())
        if not self.is_half:
            return tensor
        n_sensors = values.shape[1]
        deviations = tensor.sub_(self.centre[index, :n_sensors])
        return deviations.div_(self.spread[index, :n_sensors]).to(self.dtype)

    def _measure(self) -> None:
        """Mean and standard deviation of each sensor over all of its recording."""
        for index, array in enumerate(self.arrays):
            spread, centre = torch.std_mean(torch.from_numpy(array.copy()), dim=0, correction=0)
            self.centre[index, : len(centre)] = centre
            self.spread[index, : len(spread)] = torch.where(spread == 0, 1.0, spread)


def free_memory(device: str) -> int:
    """Bytes that can still be taken on a device, or of the host's memory."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory()


def choose_residency(n_bytes: int, device: str) -> str:
    """Fastest place with room for `n_bytes`; what was chosen, and why, is logged."""
    free = available_memory()
    chosen, share, place = "disk", HOST_SHARE, "host memory"
    if n_bytes < HOST_SHARE * free:
        chosen = "host"
    if device.startswith("cuda"):
        free_on_gpu = free_memory(device)
        if n_bytes < DEVICE_SHARE * free_on_gpu:
            chosen, share, place, free = "device", DEVICE_SHARE, device, free_on_gpu
    logger.info(
        "dset.residency=auto is %s: signals take %.2f GB, and may take %.0f %% of the %.2f GB of "
        "%s that are free.",
        chosen, n_bytes / 1e9, 100 * share, free / 1e9, place,
    )  # fmt: skip
    return chosen


def _check_room(n_bytes: int, residency: str, device: str) -> None:
    """Raise a MemoryError before signals are copied to where there is no room for them."""
    if residency == "disk":
        return
    free = free_memory(device if residency == "device" else "cpu")
    if n_bytes > free:
        raise MemoryError(
            f"Signals take {n_bytes / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free for "
            f"dset.residency={residency}. Set dset.residency=disk, which gives the same numbers, "
            "or use fewer recordings (dset.n_recordings)."
        )


def _describe(residency: str, device: str) -> str:
    return {"device": device, "host": "the host's memory", "disk": "disk (mapped files)"}[residency]
