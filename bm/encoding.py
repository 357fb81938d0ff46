"""The other way round: predict the brain signal from the sound that was heard.

Enter: the features of a segment, and the first moments of its brain signal as a prompt. Leaves: the
rest of the brain signal, at every sensor. Retrieval has no meaning here, as no two listeners give
the same signal: what is tested is how well each sensor's course is predicted.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import julius
import torch
from torch import Tensor

from bm.core.layout import SensorMap
from bm.core.messages import DataError
from bm.evaluation import Retrieval, SegmentFeatures, Watch
from bm.metrics import OnlineCorrelation, OnlineErrors
from bm.segments import Prediction, SegmentBatch, SegmentLoader
from bm.solver import Solver

NOTHING_TOLD = (
    "task.type=encode predicts brain signals, so segments can't be retrieved: its test metrics are "
    "in history.json."
)


class EncodingSolver(Solver):
    """Trains a model that predicts the brain signal (``task.type=encode``).

    Parameters
    ----------
    args, options : as those of `Solver`.
    meg_init : seconds of the brain signal that are given; loss and test begin after them.
    lowpass : Hz; faster changes are taken out of what is predicted, so that they needn't be; 0: no.
    lowpass_gt, lowpass_gt_test : take them out of the true signal, too, for the loss and for the
        test.

    Raises
    ------
    ValueError : `meg_init` is all of a segment, or less than nothing; `lowpass` isn't below half
        the sample rate.
    DataError : recordings differ in their sensors.
    """

    def __init__(
        self,
        *args: Any,
        meg_init: float,
        lowpass: float = 0.0,
        lowpass_gt: bool = True,
        lowpass_gt_test: bool = False,
        **options: Any,
    ):
        super().__init__(*args, **options)
        training = self.training
        n_times = self.splits.datasets["train"].n_times - int(training.delay * training.sample_rate)
        self.n_given = int(meg_init * training.sample_rate)
        if not 0 <= self.n_given < n_times:
            raise ValueError(
                f"task.meg_init={meg_init} s is {self.n_given} samples, but there are {n_times} to "
                f"predict. Choose 0 to {(n_times - 1) / training.sample_rate:.2f} s."
            )
        if not 0 <= lowpass < training.sample_rate / 2:
            raise ValueError(
                f"task.lowpass={lowpass} must be below half of dset.sample_rate="
                f"{training.sample_rate}, or 0 for none."
            )
        self.lowpass = lowpass
        self.lowpass_gt, self.lowpass_gt_test = lowpass_gt, lowpass_gt_test
        self.is_testing = False
        first, *others = self.splits.prepared
        for one in others:
            if one.signal.sensors.names != first.signal.sensors.names:
                raise DataError(
                    f"{one.recording} has other sensors than {first.recording}: task.type=encode "
                    "predicts each sensor, so all recordings must have the same. Choose one study."
                )

    def test(self) -> dict[str, float]:
        """How well the best state predicts the brain signal of the test split."""
        with self._testing() as batches:
            return signal_metrics(batches, self.predict)

    def sensor_map(self) -> SensorMap:
        """Correlation of each sensor's predicted and true course, over the test split.

        Returns
        -------
        To be drawn by `bm.viz.plot_sensor_map`; NaN for a sensor that never changes.
        """
        correlation = OnlineCorrelation()
        with self._testing() as batches, torch.no_grad():
            for batch in batches:
                prediction = self.predict(batch)
                correlation.update(prediction.estimate, prediction.target)
        sensors = self.splits.prepared[0].signal.sensors
        values = correlation.compute().cpu().numpy()
        return SensorMap(
            "correlation of predicted and true signal", sensors.names, sensors.positions, values
        )

    @contextmanager
    def _testing(self) -> Iterator[Iterable[SegmentBatch]]:
        """All batches of the test split; within this context the best state predicts them."""
        training = self.training
        whole = SegmentLoader(  # each rank looks at all of it
            self.splits.datasets["test"], training.batch_size, training.device, training.seed
        )
        self.is_testing = True
        try:
            with self.best():
                yield whole.in_order()
        finally:
            self.is_testing = False

    def estimate(self, batch: SegmentBatch) -> SegmentFeatures:
        """The brain signal is what is predicted, not what features are told from.

        Raises
        ------
        ValueError : always.
        """
        raise ValueError(NOTHING_TOLD)

    def retrieve(self, split: str = "test", watch: Watch | None = None) -> Retrieval:
        """Segments can't be retrieved from predicted brain signals.

        Raises
        ------
        ValueError : always.
        """
        raise ValueError(NOTHING_TOLD)

    def _forward(self, batch: SegmentBatch) -> tuple[Prediction, Tensor | None]:
        meg, features = self._aligned(batch)
        features = self._target(features)
        prompt = meg.clone()
        prompt[..., self.n_given :] = 0
        with self.training.autocast():
            estimate = self.model(
                prompt, batch.subject_index, self.layouts, batch.layout_index, features
            )
        estimate = self._slow(estimate.float())[..., self.n_given :]
        filters_truth = self.lowpass_gt_test if self.is_testing else self.lowpass_gt
        target = (self._slow(meg) if filters_truth else meg)[..., self.n_given :]
        return Prediction(estimate, target, batch.row), self._mask(batch, target)

    def _slow(self, signal: Tensor) -> Tensor:
        """What is slower than the low-pass lets through, without shift in time."""
        if not self.lowpass:
            return signal
        cutoff = self.lowpass / self.training.sample_rate
        filtered: Tensor = julius.lowpass_filter(signal.contiguous(), cutoff)
        return filtered

    def _mask(self, batch: SegmentBatch, target: Tensor) -> Tensor | None:
        if not self.training.mask_loss:
            return None
        return batch.mask[..., self.n_given :][..., : target.shape[-1]].to(target.dtype)


@torch.no_grad()
def signal_metrics(
    batches: Iterable[SegmentBatch], predict: Callable[[SegmentBatch], Prediction]
) -> dict[str, float]:
    """Agreement of predicted and true brain signals, over all samples of all segments.

    Parameters
    ----------
    batches : of a split.
    predict : estimates and targets [B, C, T] of a batch, scaled.

    Returns
    -------
    ``correlation``: Pearson's, mean over sensors that ever change; ``l1``, ``l2``: mean absolute
    and squared difference.

    Raises
    ------
    ValueError : there are no segments.
    """
    correlation, errors = OnlineCorrelation(), OnlineErrors()
    for batch in batches:
        prediction = predict(batch)
        correlation.update(prediction.estimate, prediction.target)
        errors.update(prediction.estimate, prediction.target)
    absolute, squared = errors.compute()
    return {
        "correlation": correlation.compute().nanmean().item(),
        "l1": absolute.mean().item(),
        "l2": squared.mean().item(),
    }
