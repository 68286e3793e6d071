"""Muon against torch.optim.Muon, which runs the same iteration in bf16, and against the SVD."""

import copy

import torch

from nanoladder.muon import Muon, orthogonalize

SHAPES = [(32, 32), (16, 48), (48, 16), (32, 32)]


def test_singular_values_come_near_one_and_directions_stay():
    torch.manual_seed(0)
    for shape in SHAPES:
        m = torch.randn(2, *shape)
        u, _, vh = torch.linalg.svd(m, full_matrices=False)
        done = orthogonalize(m)
        values = torch.linalg.svdvals(done)
        assert values.max() < 1.25 and values.median() > 0.7
        cosine = torch.nn.functional.cosine_similarity(done.flatten(1), (u @ vh).flatten(1))
        assert cosine.min() > 0.95


def test_same_path_as_torch():
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    optimizers = [
        Muon(ours, lr=0.02, momentum=0.9, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.02, momentum=0.9, weight_decay=0.1),
    ]
    for _ in range(5):
        for a, b in zip(ours, theirs):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(ours, theirs):
        assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.9999
        torch.testing.assert_close(a, b, atol=0.01, rtol=0)  # bf16: five steps of 0.02, each good to a few percent


def test_state_survives_saving():
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.randn(8, 8))
    first = Muon([p], lr=0.1)
    p.grad = torch.randn(8, 8)
    first.step()
    q = torch.nn.Parameter(p.detach().clone())
    second = Muon([q], lr=0.1)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    p.grad = q.grad = torch.randn(8, 8)
    first.step()
    second.step()
    assert torch.equal(p, q)
