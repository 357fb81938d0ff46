"""Layers over time: short-time Fourier transform, dual-path recurrent network, transformer."""

import math

import numpy as np
import pytest
import torch
from small_models import CLIP_CONV, make_layouts

from bm.models import SimpleConv
from bm.models.context import DualPathRNN, TransformerHead
from bm.models.spectral import SpectralInput


@pytest.mark.parametrize("n_times", [24, 23, 343])
@pytest.mark.parametrize("is_complex", [True, False])
def test_spectrum_is_that_of_the_formula(n_times, is_complex):
    torch.manual_seed(0)
    x = torch.randn(2, 3, n_times, dtype=torch.float64)
    spectrum = SpectralInput(8, is_complex)(x).numpy()
    n_frames = math.ceil(n_times / 4) + 1
    assert spectrum.shape == (2, 3 * (10 if is_complex else 5), n_frames)
    padded = np.pad(x.numpy(), [(0, 0), (0, 0), (4, 12)])
    window = np.array([0.5 - 0.5 * math.cos(2 * math.pi * k / 8) for k in range(8)])
    channels = spectrum.reshape(2, 3, -1, n_frames)
    for frame in range(n_frames):
        piece = padded[..., 4 * frame : 4 * frame + 8] * window  # centred at sample 4 * frame
        for frequency in range(5):
            wave = np.exp(-2j * math.pi * frequency * np.arange(8) / 8)
            expected = (piece * wave).sum(axis=-1) / math.sqrt(8)
            if is_complex:
                ours = channels[:, :, frequency, frame] + 1j * channels[:, :, 5 + frequency, frame]
            else:
                ours, expected = channels[:, :, frequency, frame], np.abs(expected)
            np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_spectrum_of_the_last_samples_counts():
    # As published, the padded signal was thrown away.
    torch.manual_seed(0)
    options = {**CLIP_CONV, "n_fft": 8, "depth": 2, "glu": 0}
    model = SimpleConv(9, 4, 2, **options).double().eval()
    meg = torch.randn(1, 9, 50, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.long)
    output = model(meg, zero, make_layouts(1, 9).double(), zero)
    assert output.shape == (1, 4, 50)
    reach = []
    for time in (0, 25, 49):
        (gradient,) = torch.autograd.grad(output[..., time].sum(), meg, retain_graph=True)
        seen = gradient.abs().sum(dim=1)[0].nonzero()[:, 0]
        reach.append((seen.min().item() - time, seen.max().item() - time))
    assert reach[0][0] == 0
    assert reach[2][1] == 0
    before, after = reach[1]
    assert before < 0 < after
    assert abs(before + after) <= 4  # it looks about equally far back and ahead


@pytest.mark.parametrize("n_times", [16, 23])
def test_both_paths_run_along_pieces_and_across_them(n_times):
    torch.manual_seed(0)
    model = DualPathRNN(3, 2).double()
    x = torch.randn(2, 3, n_times, dtype=torch.float64)
    length = math.ceil(math.sqrt(n_times))
    n_pieces = math.ceil(n_times / length)
    for segment in range(2):
        grid = torch.zeros(n_pieces * length, 3, dtype=torch.float64)
        grid[:n_times] = x[segment].T
        grid = grid.view(n_pieces, length, 3)
        for within, across in zip(model.within, model.across, strict=True):
            for layer, pieces in ((within, grid), (across, grid.transpose(0, 1))):
                for piece in pieces:  # a view of the grid
                    steps, _ = layer.lstm(layer.norm(piece))
                    piece.data += layer.linear(steps)
        expected = grid.reshape(-1, 3)[:n_times].T
        torch.testing.assert_close(model(x)[segment], expected)


def test_attention_is_that_of_the_formula():
    torch.manual_seed(0)
    model = TransformerHead(4, 1, 2).double().eval()
    layer = model.layers[0]
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    time = torch.arange(6, dtype=torch.float64)
    waves = [time, time / 10_000**0.5]
    z = x[0].T + torch.stack([w.sin() for w in waves] + [w.cos() for w in waves], dim=1)
    query, key, value = layer.to_heads(layer.norm(z)).chunk(3, dim=1)
    heads = []
    for head in (slice(0, 2), slice(2, 4)):
        scores = query[:, head] @ key[:, head].T / math.sqrt(2)
        weights = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
        heads.append(weights @ value[:, head])
    z = z + layer.from_heads(torch.cat(heads, dim=1))
    z = z + layer.widen(z)
    torch.testing.assert_close(model(x)[0], z.T)


def test_transformer_relates_samples_beyond_the_reach_of_the_convolutions():
    torch.manual_seed(0)
    zero = torch.zeros(1, dtype=torch.long)
    reached = []
    for n_layers in (0, 1):
        options = {**CLIP_CONV, "transformer": n_layers}
        model = SimpleConv(9, 4, 2, **options).double().eval()
        meg = torch.randn(1, 9, 343, dtype=torch.float64, requires_grad=True)
        model(meg, zero, make_layouts(1, 9).double(), zero)[..., 0].sum().backward()
        reached.append((meg.grad[..., -1] != 0).any().item())
    assert reached == [False, True]


def test_transformer_tells_samples_apart_by_their_time():
    torch.manual_seed(0)
    head = TransformerHead(8, 1, 2).eval()
    x = torch.randn(1, 8, 1).expand(-1, -1, 12)
    assert head(x).std(dim=-1).min() > 1e-3
