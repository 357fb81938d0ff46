"""What holds for every model: shapes, gradients, sensors, states, precisions, compilation."""

import io
import shutil
import warnings

import pytest
import torch
from small_models import CASES, Case, Inputs
from torch import nn

from bm.core.layout import NO_POSITION

ATTENDING = [name for name, case in CASES.items() if case.attends]
COMPILED = ["shallow", "transformer"]
every_model = pytest.mark.parametrize("name", CASES)


def built(name: str, seed: int = 0) -> tuple[Case, nn.Module]:
    torch.manual_seed(seed)
    return CASES[name], CASES[name].build()


@every_model
@pytest.mark.parametrize(("n_segments", "n_times"), [(3, 40), (1, 40), (2, 37)])
def test_output_has_a_value_for_every_output_and_sample(name, n_segments, n_times):
    case, model = built(name)
    n_times = 40 if case.needs_40 else n_times
    output = Inputs(case, n_segments, n_times).run(model.eval())
    assert output.shape == (n_segments, case.n_outputs, n_times)
    assert output.isfinite().all()
    assert output.dtype == torch.float32


@every_model
def test_gradient_reaches_every_parameter(name):
    case, model = built(name)
    Inputs(case, 3).run(model.train()).square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


@every_model
def test_segments_come_out_together_as_alone(name):
    case, model = built(name)
    inputs = Inputs(case, 5)
    together = inputs.run(model.eval())
    for index in range(5):
        alone = inputs.select([index]).run(model)
        torch.testing.assert_close(together[index][None], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ATTENDING)
def test_order_of_the_sensors_does_not_matter(name):
    case, model = built(name)
    inputs = Inputs(case, 3)
    before = inputs.run(model.eval())
    order = torch.randperm(case.n_sensors, generator=torch.Generator().manual_seed(1))
    inputs.meg, inputs.layouts = inputs.meg[:, order], inputs.layouts[:, order]
    torch.testing.assert_close(inputs.run(model), before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ATTENDING)
def test_sensor_without_position_has_no_influence(name):
    case, model = built(name)
    inputs = Inputs(case, 3)
    masked = (inputs.layouts == NO_POSITION).all(dim=-1)[inputs.layout_index]
    assert 0 < masked.sum() < masked.numel()
    before = inputs.run(model.eval())
    inputs.meg = inputs.meg.masked_fill(masked[:, :, None], 1e6)
    assert torch.equal(inputs.run(model), before)


@every_model
def test_every_sensor_with_a_position_has_influence(name):
    case, model = built(name)
    inputs = Inputs(case, 3)
    meg = inputs.meg.clone().requires_grad_()
    inputs.meg = meg
    inputs.run(model.eval()).square().sum().backward()
    present = ~(inputs.layouts == NO_POSITION).all(dim=-1)[inputs.layout_index]
    seen = (meg.grad != 0).any(dim=-1)
    assert seen[present].float().mean() == case.share_seen


@every_model
def test_state_makes_the_same_model_of_another(name):
    case, model = built(name)
    inputs = Inputs(case, 3)
    inputs.run(model.train())  # moves running statistics
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    _, other = built(name, seed=1)
    before = inputs.run(other.eval())
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    expected = inputs.run(model.eval())
    assert torch.equal(inputs.run(other), expected)
    assert not torch.equal(before, expected)


@every_model
def test_bf16_gives_the_same_to_its_precision(name):
    case, model = built(name)
    inputs = Inputs(case, 3)
    with torch.no_grad():
        expected = inputs.run(model.eval())
        with torch.autocast("cpu", torch.bfloat16):
            output = inputs.run(model).float()
    error = (output - expected).norm() / expected.norm()
    assert 0 < error < 0.03  # bf16 keeps 8 bits: 0.4 % a number


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_model_gives_the_same(name):
    case, model = built(name)
    inputs = Inputs(case, 3)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own, about its version of Python
        expected = inputs.run(model.eval())
        output = inputs.run(torch.compile(model))
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-4)
