"""PyTorch modules behind the common door: right numbers, and the user's module left as it was."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest

from holdfast.core.errors import AccessDenied, Inconclusive, InvalidData, InvalidModel
from holdfast.core.oracle import Access
from holdfast.core.target import Model
from holdfast.models.answers import Context
from holdfast.models.python import PythonModel
from holdfast.models.torch import TorchModel, module_with_weights, read_program, read_weights

torch = pytest.importorskip("torch")
nn = torch.nn
CLASSES = ("a", "b", "c")


@pytest.fixture
def pictures() -> Any:
    return torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> Any:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3)
    ).train()


def wrapped(module: Any, x: Any, **options: Any) -> TorchModel:
    return TorchModel(module, Context(sample=x[:8].numpy(), **{"labels": CLASSES, **options}))


def test_numbers_are_the_modules_own(pictures: Any) -> None:
    net = network()
    model: Model = wrapped(net, pictures)
    with torch.no_grad():
        expected = net.eval()(pictures)
    assert model.access == Access.GRADIENTS
    assert model.classes == CLASSES
    assert torch.allclose(model.scores(pictures).float(), expected, atol=1e-6)
    assert isinstance(model.scores(pictures.numpy()), np.ndarray)
    assert (model.labels(pictures.numpy()) == expected.argmax(dim=1).numpy()).all()


def test_gradients_agree_with_finite_differences() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    model = wrapped(net, x)

    def loss(logits: Any) -> Any:
        return logits[:, 0] - logits[:, 2]

    value, gradient = model.value_and_gradient(x, loss)
    assert torch.allclose(value, loss(net(x)).detach())
    step = 1e-6
    for column in range(4):
        moved = x.clone()
        moved[:, column] += step
        assert torch.allclose((loss(net(moved)) - loss(net(x))) / step, gradient[:, column], atol=1e-5)


@pytest.mark.claim("loop-7")
def test_the_users_module_is_left_as_it_was(pictures: Any) -> None:
    net = network()
    net[3].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [part.training for part in net.modules()]
    random = torch.get_rng_state()
    numpy_random = np.random.get_state()[1].copy()  # noqa: NPY002
    given = pictures.clone()
    model = wrapped(net, pictures)
    model.scores(pictures)
    model.labels(pictures)
    model.value_and_gradient(pictures, lambda logits: logits.sum(dim=1))
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert [part.training for part in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert (np.random.get_state()[1] == numpy_random).all()  # noqa: NPY002
    assert torch.equal(pictures, given)
    assert not pictures.requires_grad


@pytest.mark.claim("loop-7")
def test_gradients_that_the_user_collected_stay(pictures: Any) -> None:
    net = network()
    net(pictures).sum().backward()
    collected = [parameter.grad.clone() for parameter in net.parameters()]
    wrapped(net, pictures).value_and_gradient(pictures, lambda logits: logits.sum(dim=1))
    assert all(torch.equal(parameter.grad, kept) for parameter, kept in zip(net.parameters(), collected, strict=True))


def test_modes_come_back_after_a_failure(pictures: Any) -> None:
    net = network()
    model = wrapped(net, pictures)
    with pytest.raises(InvalidModel, match="shape"):
        model.labels(torch.rand(2, 5))
    assert net.training


class Noisy(nn.Module):
    """A defence by randomness."""

    def forward(self, x: Any) -> Any:
        return x.flatten(1)[:, :3] + torch.randn(len(x), 3)


def test_a_random_model_stays_random_and_leaves_the_users_stream(pictures: Any) -> None:
    model, twin = wrapped(Noisy(), pictures), wrapped(Noisy(), pictures)
    random = torch.get_rng_state()
    first, second = model.scores(pictures), model.scores(pictures)
    assert not torch.equal(first, second)
    assert torch.equal(twin.scores(pictures), first)
    assert torch.equal(torch.get_rng_state(), random)


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x: Any) -> Any:
        return self.inner(x).detach()


class Rounded(Detached):
    def forward(self, x: Any) -> Any:
        return self.inner(x).round()


class Labels(Detached):
    def forward(self, x: Any) -> Any:
        return self.inner(x).argmax(dim=1)


@pytest.mark.parametrize(("module", "access"), [(Detached, Access.SCORES), (Rounded, Access.SCORES), (Labels, Access.LABELS)])
def test_models_without_gradients_are_noticed(module: Any, access: Access, pictures: Any) -> None:
    model = wrapped(module(), pictures, output="logits" if access else None)
    assert model.access == access
    with pytest.raises(AccessDenied):
        model.value_and_gradient(pictures, lambda logits: logits.sum(dim=1))


def test_logits_a_thousand_times_larger_stay_differentiable(pictures: Any) -> None:
    class Scaled(Detached):
        def forward(self, x: Any) -> Any:
            return self.inner(x) * 1000

    assert wrapped(Scaled(), pictures).access == Access.GRADIENTS


def test_probabilities_become_log_probabilities(pictures: Any) -> None:
    model = wrapped(nn.Sequential(network(), nn.Softmax(dim=1)), pictures)
    assert model.output == "probabilities"
    assert np.allclose(np.exp(model.scores(pictures.numpy())).sum(axis=1), 1, atol=1e-6)
    value, _ = model.value_and_gradient(pictures, lambda logits: logits[:, 0])
    assert np.allclose(value.numpy(), model.scores(pictures.numpy())[:, 0], atol=1e-5)


def test_one_output_is_two_classes() -> None:
    x = torch.randn(20, 4) * 4
    net = nn.Linear(4, 1)
    model = wrapped(net, x, labels=("0", "1"), output="logits")
    assert np.allclose(model.scores(x.numpy())[:, 1], net(x)[:, 0].detach().numpy(), atol=1e-6)
    assert (model.scores(x.numpy())[:, 0] == 0).all()
    sigmoid = wrapped(nn.Sequential(net, nn.Sigmoid()), x, labels=("0", "1"))
    assert sigmoid.output == "probabilities"
    assert (sigmoid.labels(x) == model.labels(x)).all()
    assert wrapped(nn.Sequential(net, nn.Flatten(0)), x, labels=("0", "1"), output="logits").scores(x).shape == (20, 2)


def test_one_number_that_may_be_either_is_asked_about() -> None:
    class Small(nn.Module):
        def forward(self, x: Any) -> Any:
            return x[:, :1].sigmoid() * 0.5

    with pytest.raises(InvalidModel, match=r"logit"):
        wrapped(Small(), torch.randn(20, 4), labels=("0", "1"))


def test_integers_doubles_and_tables_are_cast() -> None:
    x = torch.randn(20, 3)
    model = wrapped(nn.Linear(3, 3), x)
    assert np.allclose(model.scores(x.double().numpy()), model.scores(x.numpy()), atol=1e-6)
    _, gradient = model.value_and_gradient(x.double(), lambda logits: logits[:, 0])
    assert gradient.dtype == torch.float64
    assert model.labels(np.ones((2, 3), dtype=np.int64)).shape == (2,)
    frame = pd.DataFrame(x.numpy(), columns=list("pqr"))
    assert (model.labels(frame) == model.labels(x)).all()
    with pytest.raises(InvalidData, match="'p'"):
        model.labels(frame.assign(p="text"))


@pytest.mark.claim("loop-2")
def test_nan_answers_are_inconclusive(pictures: Any) -> None:
    class Nan(Detached):
        def forward(self, x: Any) -> Any:
            return self.inner(x) * float("nan")

    with pytest.raises(Inconclusive):
        wrapped(Nan(), pictures)


def test_nan_answers_to_missing_values_name_their_columns() -> None:
    whole = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [0.5, 0.1, 0.2]})
    missing = whole.assign(b=[0.5, np.nan, 0.2])
    module = torch.nn.Linear(2, 2)
    question = "'b' holds missing values; does the model's pipeline fill them?"

    def answer(x: Any) -> Any:
        return np.stack([x["a"], x["b"] - 10], axis=1)

    for made in (
        lambda x: TorchModel(module, Context(sample=x, labels=("0", "1"))),
        lambda x: PythonModel(answer, Context(sample=x, labels=("0", "1"))),
    ):
        model = made(whole)
        for ask in (made, model.labels, model.scores):
            with pytest.raises(Inconclusive) as refused:
                ask(missing)
            assert str(refused.value).count(question) == 1
    with pytest.raises(Inconclusive) as refused:
        TorchModel(module, Context(sample=whole, labels=("0", "1"))).labels(whole.to_numpy() * np.nan)
    assert "missing values" not in str(refused.value)


def test_a_large_batch_in_parts_gives_the_same(pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrapped(network(), pictures)
    whole = model.scores(pictures)
    monkeypatch.setattr("holdfast.models.torch.ELEMENTS_A_CALL", 64 * 3)
    assert torch.allclose(model.scores(pictures), whole, atol=1e-6)


def test_programs_answer_as_the_module_does(pictures: Any) -> None:
    net = network().eval()
    expected = wrapped(net, pictures).scores(pictures)
    scripted, exported = io.BytesIO(), io.BytesIO()
    torch.jit.save(torch.jit.script(net), scripted)
    torch.export.save(torch.export.export(net, (pictures,), dynamic_shapes=({0: torch.export.Dim("n")},)), exported)
    for content, kind in ((scripted, "torchscript"), (exported, "torch-export")):
        model = wrapped(read_program(content.getvalue(), kind, "m"), pictures)
        assert model.access == Access.GRADIENTS
        assert torch.allclose(model.scores(pictures), expected, atol=1e-5)


def test_state_dicts_find_their_module(pictures: Any) -> None:
    net = network()
    for value in (net.state_dict(), {"state_dict": net.state_dict(), "epoch": 3}):
        stream = io.BytesIO()
        torch.save(value, stream)
        built = module_with_weights(network(), read_weights(stream.getvalue(), "m"), "m")
        assert torch.equal(built[0].weight, net[0].weight)
    with pytest.raises(InvalidModel, match="does not fit"):
        module_with_weights(nn.Linear(2, 2), net.state_dict(), "m")
    with pytest.raises(InvalidModel, match="no state dict"):
        module_with_weights(network(), torch.zeros(3), "m")
    with pytest.raises(InvalidModel, match="factory"):
        module_with_weights(3, net.state_dict(), "m")
