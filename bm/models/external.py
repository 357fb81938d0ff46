"""Encoders of other makers, by import path, behind the interface of ours."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bm.core.messages import check_choice

SIZES = {"n_chans": "n_sensors", "sfreq": "sample_rate"}
"""What braindecode calls our sizes."""


class ExternalEncoder(nn.Module):
    """Any module from brain signals [B, C, T] to the features of the stimulus.

    It may give [B, F, T]; [B, F, K] at another rate, which is interpolated to T; or [B, F], one
    vector for the whole segment (as the classifiers of braindecode), which holds at every sample.

    Parameters
    ----------
    encoder : called with the signals, and with those of ``subject_index`` [B], ``layouts``
        [L, C, n_axes] and ``layout_index`` [B] that its forward method has parameters for.
    n_outputs : F.
    """

    def __init__(self, encoder: nn.Module, n_outputs: int):
        super().__init__()
        self.encoder = encoder
        self.n_outputs = n_outputs
        parameters = inspect.signature(encoder.forward).parameters
        self.context = [
            name for name in ("subject_index", "layouts", "layout_index") if name in parameters
        ]

    def forward(
        self, meg: Tensor, subject_index: Tensor, layouts: Tensor, layout_index: Tensor
    ) -> Tensor:
        """Estimate the stimulus features [B, F, T]; parameters as in `SimpleConv`.

        Raises
        ------
        ValueError : the encoder gave another shape.
        """
        known = {
            "subject_index": subject_index,
            "layouts": layouts,
            "layout_index": layout_index,
        }
        estimate = self.encoder(meg, **{name: known[name] for name in self.context})
        n_segments, n_times = len(meg), meg.shape[-1]
        if estimate.ndim not in (2, 3) or estimate.shape[:2] != (n_segments, self.n_outputs):
            name, shape = type(self.encoder).__name__, list(estimate.shape)
            raise ValueError(
                f"{name} gave {shape} for {n_segments} segments of {n_times} samples. It should "
                f"give [{n_segments}, {self.n_outputs}, {n_times}], or one vector a segment, "
                f"[{n_segments}, {self.n_outputs}]."
            )
        if estimate.ndim == 2:
            return estimate[:, :, None].expand(-1, -1, n_times)
        if estimate.shape[-1] == n_times:
            return estimate
        return nn.functional.interpolate(estimate, n_times, mode="linear")


def build_external(
    target: str, params: Mapping[str, Any], sizes: Mapping[str, float]
) -> ExternalEncoder:
    """Build the encoder that a configuration names.

    Parameters
    ----------
    target : "package.module.Class", a `torch.nn.Module`.
    params : its own parameters.
    sizes : n_sensors, n_times, n_outputs, n_subjects, n_axes, sample_rate; it is given those that
        it has parameters for, also by braindecode's names.

    Raises
    ------
    ValueError : it can't be imported, isn't a module, or has no such parameter.
    """
    kind = _find(target)
    parameters = inspect.signature(kind).parameters
    if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        for name in params:
            check_choice(f"encoder.params of {target}", name, parameters)
    given = {
        name: sizes[SIZES.get(name, name)]
        for name in parameters
        if SIZES.get(name, name) in sizes and name not in params
    }
    missing = [
        name
        for name, one in parameters.items()
        if one.default is one.empty
        and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        and name not in {*given, *params}
    ]
    if missing:
        raise ValueError(f"{target} needs {', '.join(missing)}: set it in encoder.params.")
    return ExternalEncoder(kind(**given, **params), int(sizes["n_outputs"]))


def _find(target: str) -> type[nn.Module]:
    module_name, _, name = target.rpartition(".")
    if not module_name:
        raise ValueError(f"encoder.target={target!r} should be package.module.Class.")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"encoder.target={target!r} can't be imported ({error}). Is it installed, or its "
            "folder on PYTHONPATH? For braindecode: pip install 'bm[encoders]'."
        ) from error
    classes = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, torch.nn.Module)
    }
    check_choice(f"Module in encoder.target={target!r}:", name, classes)
    return classes[name]
