"""What is found out about a model once: inside a scope, and no longer."""

import torch
from torch import nn

from assay.attacks.network import open_network
from assay.models.calls import calling
from assay.runtime import hooked
from assay.runtime.sharing import once, unchanged_models

IMAGES = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def convolution():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()


def test_once_remembers_inside_a_scope_and_nowhere_else():
    found = []

    def find():
        found.append(len(found))
        return found[-1]

    assert [once("key", find), once("key", find)] == [0, 1]
    with unchanged_models():
        assert [once("key", find), once("other", find)] == [2, 3]
        with unchanged_models():  # the same scope
            assert once("key", find) == 2
        assert once("key", find) == 2
    with unchanged_models():
        assert once("key", find) == 4


def test_a_model_is_tried_out_and_folded_once_in_a_scope():
    model, calls = convolution(), []

    def opened():
        calls.clear()
        with open_network(model, IMAGES) as network:
            return network.search.model, len(calls)

    with hooked(model.register_forward_pre_hook(lambda module, args: calls.append(1))):
        (first, costly), (again, _) = opened(), opened()
        assert first is not again
        with unchanged_models():
            (first, same), (again, free) = opened(), opened()
    assert first is again
    assert first is not model
    assert costly == same > 0
    assert free == 0


def test_each_block_may_change_how_it_calls_the_model_for_itself():
    with unchanged_models():
        with calling(convolution(), IMAGES) as network:
            network.largest = 1
        model = convolution()
        with calling(model, IMAGES) as network:
            network.largest = 1
        with calling(model, IMAGES) as network:
            assert network.largest is None
        with calling(model, IMAGES, classes=3) as network:
            assert network.classes == 3


def test_new_weights_are_searched_after_the_scope():
    model = convolution()
    with unchanged_models(), open_network(model, IMAGES) as network:
        before = network.search(IMAGES)
    with torch.no_grad():
        model[0].weight.data.mul_(2)
    with unchanged_models(), open_network(model, IMAGES) as network:
        assert torch.allclose(network.search(IMAGES), network.original(IMAGES), atol=1e-5)
        assert not torch.allclose(network.search(IMAGES), before, atol=1e-3)
