"""Windowed-sinc interpolation (julius) of a recording, stretch by stretch.

Enters: stretches at the old rate. Leaves: them at the new rate, time first. The filter is julius's;
as products of matrices it takes a fraction of the time of a convolution, and stretches fit together
without seams.
"""

from fractions import Fraction

import julius
import numpy as np
import torch
from torch.nn.functional import pad

N_COLUMNS = 48
"""New samples that one product makes of each sensor, or a few more or less."""
TINY = torch.finfo(torch.float32).eps ** 2
"""Weights that change no sum in single precision."""


class Resampler:
    """Resamples stretches of a recording.

    Parameters
    ----------
    ratio : old rate over new.

    Attributes
    ----------
    period : old samples that stretches are multiples of.
    reach : old samples that it looks back and ahead.
    """

    def __init__(self, ratio: Fraction):
        old, new = ratio.numerator, ratio.denominator
        kernel = torch.ones(1, 1)
        if ratio != 1:
            kernel = julius.ResampleFrac(old, new).get_buffer("kernel")[:, 0]
        # Next to nothing times a magnetic field (1e-13 T) is denormal, and many times slower.
        kernel = kernel.where(kernel.abs() > TINY, 0.0)
        self.reach = (kernel.shape[1] - old) // 2
        n_steps = max(1, N_COLUMNS // new)
        self.period = n_steps * old
        places = [(step * old, (n_steps - 1 - step) * old) for step in range(n_steps)]
        self._matrix = torch.cat([pad(kernel, place) for place in places]).T.contiguous()

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """[n, C] float32 new samples.

        Parameters
        ----------
        values : [C, t] float32, whole periods with `reach` samples before and after them.
        """
        width = len(self._matrix)
        stretch = torch.from_numpy(values)
        begins = range(0, values.shape[1] - width + 1, self.period)
        parts = [(stretch[:, begin : begin + width] @ self._matrix).T for begin in begins]
        return torch.cat(parts).numpy()
