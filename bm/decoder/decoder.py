"""A trained model, and all that it takes to decode a recording that it has never met.

Enters: the state that a checkpoint or an exported folder holds. Leaves: estimates of what was
heard, window by window, their likeness to candidates, and layers for a new subject.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mne
import numpy as np
import torch
from torch import Tensor, nn

from bm.build import build_features, build_rules, build_windows, choose_device
from bm.calibration import Calibration, draw, fit
from bm.config import Config, from_dict
from bm.core.cache import Cache
from bm.core.layout import NO_POSITION
from bm.core.messages import did_you_mean
from bm.decoder.outcome import Embedding, Ranking, nearest
from bm.decoder.reading import Reading, Window, read
from bm.decoder.stimulus import Stimulus
from bm.decoder.weights import build_with_newcomer, count_outputs, count_room
from bm.features import Feature, build_table
from bm.losses import ClipLoss, RegressionLoss, Similarity
from bm.recordings import Preprocessing
from bm.recordings.montage import Montage
from bm.training import choose_precision

AT_ONCE = 64
"""Windows that the model sees in one batch."""
STRIDE = 0.5
"""Seconds from window to window in calibration."""


class Decoder:
    """A trained model on its own.

    The model has one more place for a subject than it was trained with, that of a newcomer, which
    begins as the mean of the learned subjects and can be calibrated.

    Parameters
    ----------
    state : what `bm.decoder.load_state` gives.
    device : where to compute; None: as configured, or the CPU where there is no such device.

    Raises
    ------
    ValueError : the model predicts brain signals, or the weights don't fit the configuration.
    """

    def __init__(self, state: Mapping[str, Any], device: str | None = None):
        self.config: Config = from_dict(state["config"])
        if self.config.task.type != "decode":
            raise ValueError(
                "This model predicts brain signals from speech (task.type=encode): there is "
                "nothing to decode with it. Use play.get_solver_from_checkpoint."
            )
        self.device = choose_device(device or self.config.device)
        self.precision = choose_precision(self.config.optim.precision, self.device)
        self.about = state
        self.subjects: list[str] = list(state["subjects"] or [])
        self.montages = [Montage.from_dict(one) for one in state.get("montages") or []]
        self._scaler = state["scaler"]
        self.models = build_with_newcomer(self.config, state).to(self.device).eval()
        self._features: list[Feature] = []

    @property
    def window(self) -> Window:
        """What the model sees at once."""
        dset = self.config.dset
        rule, rate = build_windows(dset)["train"], dset.sample_rate
        has_baseline = dset.apply_baseline and rule.tmin <= 0
        n_baseline = round(-rule.tmin * rate) + 1 if has_baseline else 0
        n_delay = int(self.config.task.offset_meg_ms / 1000 * rate)
        return Window(rule.n_times(rate), n_baseline, n_delay, rate)

    @property
    def similarity(self) -> Similarity:
        """Scores of estimates and candidates, as in training."""
        loss = self.models["loss"] if "loss" in self.models else None
        return loss.similarity if isinstance(loss, ClipLoss) else Similarity()

    def read(self, raw: "str | Path | mne.io.BaseRaw", warm_up: float | None = None) -> Reading:
        """Read a recording as those of training were, in the sensors of the model.

        Parameters
        ----------
        raw : file that MNE can read, or the raw itself.
        warm_up : the scale of each sensor follows from the first so many seconds only, so that what
            comes later is decoded without knowing the end; None: from the whole recording.

        Raises
        ------
        DataError : the file can't be read, is too short, or has other sensors.
        """
        signals, _ = build_rules(self.config.dset)
        how = Preprocessing(**vars(signals))
        n_windows = self._scaler["n_samples_per_recording"]
        n_dimensions = self.config.dset.sensor_dimensions
        return read(raw, how, self.montages, n_dimensions, self.window, n_windows, warm_up)

    @torch.no_grad()
    def estimate(
        self, reading: Reading, begins: Sequence[float], subject: str | None = None
    ) -> Tensor:
        """[B, F, T] features of what was heard in windows that begin at these seconds.

        Parameters
        ----------
        reading : a recording.
        begins : seconds of the recording, at which the stimulus of a window begins.
        subject : who it is, if the model has learned them; None: a newcomer.

        Raises
        ------
        ValueError : no window, or one isn't wholly within the recording; or an unknown subject.
        """
        if not len(begins):
            raise ValueError(f"{reading.name}: no window to decode.")
        index = self._subject_index(subject)
        parts = [
            self._estimate(reading, begins[first : first + AT_ONCE], index).cpu()
            for first in range(0, len(begins), AT_ONCE)
        ]
        return torch.cat(parts)

    def embed(
        self,
        reading: Reading,
        step: float = 0.5,
        causal: bool = False,
        subject: str | None = None,
    ) -> Embedding:
        """Features of what was heard, all along a recording, from a sliding window.

        Parameters
        ----------
        reading : a recording.
        step : seconds from window to window.
        causal : keep the last moments of each window, and so use nothing later than the latency;
            otherwise those in the middle of the window, which know what comes after.
        subject : see `estimate`.

        Raises
        ------
        ValueError : the step isn't within a window; or causal, and something looks ahead: filters,
            or a scale of the whole recording (see `read`).
        """
        window = self.window
        n_step = round(step * window.sample_rate)
        if not 1 <= n_step <= window.n_heard:
            raise ValueError(
                f"step={step} s: choose {1 / window.sample_rate:.3f} to {window.duration:.2f} s."
            )
        start = 0.0
        if causal:
            start = self._check_causal(reading)
        first_sample = round(start * window.sample_rate)
        last_sample = len(reading.signal) - window.n_times
        first = np.arange(first_sample, max(last_sample, first_sample) + 1, n_step)
        estimates = self.estimate(reading, (first / window.sample_rate).tolist(), subject)
        skip = window.n_heard - n_step if causal else (window.n_heard - n_step) // 2
        values = estimates[..., skip : skip + n_step].transpose(0, 1).flatten(1)
        n_latency = window.n_times - skip
        return Embedding(
            values.numpy(),
            (int(first[0]) + skip) / window.sample_rate,
            window.sample_rate,
            self.names,
            n_latency / window.sample_rate + reading.reach,
        )

    def rank(
        self,
        reading: Reading,
        stimulus: Stimulus,
        begins: Sequence[float],
        subject: str | None = None,
        onset: float | None = None,
    ) -> Ranking:
        """How probable each candidate is in windows that begin at these seconds.

        Parameters
        ----------
        reading, begins, subject : see `estimate`.
        stimulus : the candidates.
        onset : second of the recording at which the stimulus began, if it was this one.

        Raises
        ------
        ValueError : see `estimate`.
        DataError : the features of the model can't be computed from this stimulus.
        """
        estimates = self.estimate(reading, begins, subject)
        at = stimulus.candidates["begin"].to_numpy(float)
        targets = self.targets(stimulus, at.tolist())
        with torch.no_grad():
            embedded = self.similarity.embed_candidates(targets.to(self.device))
            parts = [
                self.similarity.compare(
                    self.similarity.embed_estimates(part.to(self.device)), *embedded
                )
                for part in estimates.split(AT_ONCE)
            ]
        probability = torch.cat(parts).softmax(dim=1).cpu().numpy()
        moments = np.asarray(begins, float)
        truth = None if onset is None else nearest(moments - onset, at)
        return Ranking(moments, probability, stimulus.candidates, truth)

    def targets(self, stimulus: Stimulus, begins: Sequence[float]) -> Tensor:
        """[V, F, T] features of a stimulus from these moments of its events on, scaled."""
        rate, n_heard = self.window.sample_rate, self.window.n_heard
        n_samples = int(np.ceil(stimulus.end * rate)) + n_heard  # silence after the end
        first = np.round(np.asarray(begins, float) * rate).astype(int)
        samples = (first[:, None] + np.arange(n_heard)).clip(0, n_samples - 1)
        cache = Cache(self.config.cache)
        parts = []
        for feature in self.features:
            table = build_table(feature, [stimulus.events], [n_samples], rate, cache)
            parts.append(torch.from_numpy(table.rows[table.timelines[0][samples]]))
        joined = torch.cat(parts, dim=-1).transpose(1, 2)
        centre, scale = self._scaler["feature_centre"], self._scaler["feature_scale"]
        targets = (joined - centre[:, None]) / scale[:, None]
        if "features" not in self.models:
            return targets
        with torch.no_grad():
            found = [
                self.models["features"](part.to(self.device)).cpu()
                for part in targets.split(AT_ONCE)
            ]
        return torch.cat(found)

    def calibrate(
        self,
        reading: Reading,
        stimulus: Stimulus,
        onset: float,
        minutes: float = 3.0,
        settings: Calibration | None = None,
    ) -> list[float]:
        """Fit what the model has for each subject to the newcomer; all else stays.

        Parameters
        ----------
        reading : recording of the newcomer.
        stimulus : what they heard; its candidates don't matter.
        onset : second of the recording at which it began.
        minutes : use windows that end within so many minutes from there.
        settings : how to fit.

        Returns
        -------
        Loss before each step.

        Raises
        ------
        ValueError : there is nothing to fit, or nothing to fit it on.
        """
        end = min(60 * minutes, stimulus.end) - self.window.n_times / self.window.sample_rate
        moments = STRIDE * np.arange(max(0, int(end / STRIDE) + 1))
        moments = moments[(moments + onset >= 0) & (moments + onset <= reading.last_begin)]
        if len(moments) < 2:
            raise ValueError(
                f"{reading.name}: only {len(moments)} windows lie within {minutes} minutes from "
                f"second {onset} on: nothing to calibrate on."
            )
        targets = self.targets(stimulus, moments.tolist()).to(self.device)
        begins, index, loss = moments + onset, self._subject_index(None), self._loss()
        settings = settings or Calibration()

        def loss_of(rows: Tensor) -> Tensor:
            estimates = self._estimate(reading, begins[rows.numpy()].tolist(), index)
            value: Tensor = loss(estimates, targets[rows])
            return value

        return fit(self.models, draw(len(moments), settings), loss_of, settings)

    @property
    def names(self) -> list[str]:
        """[F] names of what is estimated."""
        widths = [(one["name"], int(one["dimension"])) for one in self.about["features"]]
        n_outputs = count_outputs(self.config, self.about)
        if sum(n for _, n in widths) != n_outputs:  # a model stands between features and targets
            widths = [("target", n_outputs)]
        return [f"{name} {k}" for name, n in widths for k in range(n)]

    @property
    def features(self) -> list[Feature]:
        """What the model is matched with; built when first asked for."""
        if not self._features:
            self._features = build_features(self.config)
        return self._features

    def _estimate(self, reading: Reading, begins: Sequence[float], index: int) -> Tensor:
        meg = (reading.windows(begins) - reading.centre[:, None]) / reading.scale[:, None]
        limit = float(self._scaler["max_scale"])
        meg = meg.clamp(-limit, limit)[..., self.window.n_delay :]
        n_more = self._scaler["centre"].shape[1] - meg.shape[1]
        layout = torch.from_numpy(reading.matching.positions)
        if self.montages and n_more > 0:  # training padded smaller montages
            meg = nn.functional.pad(meg, (0, 0, 0, n_more))
            layout = nn.functional.pad(layout, (0, 0, 0, n_more), value=NO_POSITION)
        zeros = torch.zeros(len(meg), dtype=torch.long, device=self.device)
        device = torch.device(self.device)
        is_half = self.precision == "bf16"
        with torch.autocast(device.type, torch.bfloat16, enabled=is_half):
            estimate: Tensor = self.models["meg"](
                meg.to(device), zeros + index, layout[None].to(device), zeros
            )
        return estimate.float()

    def _loss(self) -> nn.Module:
        if "loss" in self.models:
            return self.models["loss"]
        name = self.config.optim.loss
        if name not in ("l1", "mse"):
            raise ValueError(f"A model of optim.loss={name} can't be calibrated on its own.")
        return RegressionLoss(1 if name == "l1" else 2)

    def _subject_index(self, subject: str | None) -> int:
        if subject is None:
            return count_room(self.config, self.about)
        if subject not in self.subjects:
            raise ValueError(
                f"The model doesn't know {subject!r}. {did_you_mean(subject, self.subjects)} Leave "
                "subject out to decode a newcomer."
            )
        return self.subjects.index(subject)

    def _check_causal(self, reading: Reading) -> float:
        """Seconds from which on nothing later is known."""
        dset = self.config.dset
        ahead = [key for key in ("highpass", "bandpass", "notch") if getattr(dset, key)]
        if ahead:
            raise ValueError(
                f"The model was trained on signals with dset.{ahead[0]}, a filter that looks "
                "ahead: it can't decode causally."
            )
        if reading.warm_up is None:
            raise ValueError(
                "Causal decoding needs a scale that doesn't know the end: read(raw, warm_up=60)."
            )
        return min(reading.warm_up, reading.last_begin)
