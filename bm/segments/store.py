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
    signals : preprocessed recordings; `arrays` are their data.
    residency : "device" (all signals in the memory of `device`), "host" (RAM), "disk" (mapped
        files), or "auto": the first of these with room to spare.
    device : where training happens.

    Attributes
    ----------
    lengths : samples of each recording.
    """

    def __init__(self, signals: Sequence[Stored], residency: str = "auto", device: str = "cpu"):
        check_choice("dset.residency", residency, RESIDENCIES)
        self.n_sensors = max(signal.data.shape[1] for signal in signals)
        self.lengths = lengths = [len(signal.data) for signal in signals]
        n_bytes = sum(lengths) * self.n_sensors * 4
        self.residency = choose_residency(n_bytes, device) if residency == "auto" else residency
        self.device = device
        self.home = device if self.residency == "device" else "cpu"
        self.first_row = torch.tensor(np.cumsum([0, *lengths[:-1]]), device=self.home)
        self.arrays = [signal.data for signal in signals]
        self._flat: Tensor | None = None
        if self.residency != "disk":
            flat = torch.zeros(sum(lengths), self.n_sensors)
            for first, array in zip(self.first_row.tolist(), self.arrays, strict=True):
                flat[first : first + len(array), : array.shape[1]] = torch.from_numpy(array.copy())
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


def choose_residency(n_bytes: int, device: str) -> str:
    """Fastest place with room for `n_bytes`."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        if n_bytes < DEVICE_SHARE * free:
            return "device"
    return "host" if n_bytes < HOST_SHARE * available_memory() else "disk"


def _describe(residency: str, device: str) -> str:
    return {"device": device, "host": "the host's memory", "disk": "disk (mapped files)"}[residency]
