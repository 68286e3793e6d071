"""Muon against torch.optim.Muon, which iterates in bf16, and against the SVD; who gets it."""

import copy

import torch
from test_model import TINY

from nanoladder.model import Qwen2_5_VL
from nanoladder.muon import Muon, make_optimizers, orthogonalize

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
        # In bf16 each of the five steps of 0.02 is good to a few percent.
        torch.testing.assert_close(a, b, atol=0.01, rtol=0)


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


def test_muon_gets_hidden_matrices_and_adamw_the_rest():
    model = Qwen2_5_VL(TINY)
    names = {p: name for name, p in model.named_parameters()}
    adamw, muon = make_optimizers(model, 1e-3, 5e-3)
    decayed, plain = ([names[p] for p in group["params"]] for group in adamw.param_groups)
    hidden = [names[p] for group in muon.param_groups for p in group["params"]]
    assert sorted(decayed + plain + hidden) == sorted(names.values())
    assert not decayed and all(model.get_parameter(name).ndim == 2 for name in hidden)
    others = ("visual.patch_embed.proj.weight", "model.embed_tokens.weight", "model.norm.weight")
    assert set(others) <= set(plain)
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.05, 0.0]
    assert muon.param_groups[0]["lr"] == 5e-3 and muon.param_groups[0]["weight_decay"] == 0.05


def test_without_muon_adamw_gets_all_that_is_trained():
    model = Qwen2_5_VL(TINY)
    model.visual.requires_grad_(False)
    (adamw,) = make_optimizers(model, 1e-3, 0, weight_decay=0.1)
    decayed, plain = (set(group["params"]) for group in adamw.param_groups)
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.1, 0.0]
    assert decayed | plain == {p for p in model.parameters() if p.requires_grad}
    assert all(p.ndim == 2 for p in decayed) and model.lm_head.weight in plain
