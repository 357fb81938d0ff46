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
    with zeros.

    Parameters
    ----------
    signals : preprocessed recordings.
    residency : "device" (all signals in the memory of `device`), "host" (RAM), "disk" (mapped
        files), or "auto": the first of these with room to spare.
    device : where training happens.

    Attributes
    ----------
    arrays, lengths : data of each recording, and their samples.
    n_bytes : of all signals together.

    Raises
    ------
    MemoryError : there is no room where the signals were told to be.
    """

    def __init__(self, signals: Sequence[Stored], residency: str = "auto", device: str = "cpu"):
        check_choice("dset.residency", residency, RESIDENCIES)
        self.n_sensors = max(signal.data.shape[1] for signal in signals)
        self.lengths = lengths = [len(signal.data) for signal in signals]
        self.n_bytes = n_bytes = sum(lengths) * self.n_sensors * 4
        self.residency = choose_residency(n_bytes, device) if residency == "auto" else residency
        _check_room(n_bytes, self.residency, device)
        self.device = device
        self.home = device if self.residency == "device" else "cpu"
        self.first_row = torch.tensor(np.cumsum([0, *lengths[:-1]]), device=self.home)
        self.arrays = [signal.data for signal in signals]
        self._flat: Tensor | None = None
        if self.residency != "disk":
            flat = torch.empty(sum(lengths), self.n_sensors)
            for rows, array in zip(flat.split(lengths), self.arrays, strict=True):
                rows.numpy()[:, : array.shape[1]] = array
                rows[:, array.shape[1] :] = 0.0
            self._flat = flat.to(self.home)
        logger.info(
            "Signals: %.2f GB, kept on %s.", n_bytes / 1e9, _describe(self.residency, device)
        )

    def gather(self, recording_index: Tensor, first: Tensor, n_times: int) -> Tensor:
        """Windows [B, C, T] that begin at sample `first` [B] of each recording [B]."""
        if self._flat is not None:
            rows = (self.first_row[recording_index] + first)[:, None]
            rows = rows + torch.arange(n_times, device=self.home)
            windows = self._flat.index_select(0, rows.flatten())
            return windows.view(len(first), n_times, self.n_sensors).transpose(1, 2)
        windows = torch.zeros(len(first), n_times, self.n_sensors)
        for row, (index, begin) in enumerate(
            zip(recording_index.tolist(), first.tolist(), strict=True)
        ):
            array = self.arrays[index]
            windows[row, :, : array.shape[1]] = torch.from_numpy(
                array[begin : begin + n_times].copy()
            )
        return windows.transpose(1, 2)


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
