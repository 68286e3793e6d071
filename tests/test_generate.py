"""Cached, padded, grouped decoding against recomputing all for every token, and against transformers."""

import copy
import dataclasses

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from nanoladder.checkpoint import save
from nanoladder.generate import encode_pictures, generate, policy_logprobs
from nanoladder.model import Config, Qwen2_5_VL, VisionConfig, mrope_position_ids

IMAGE, VIDEO = 5, 6
TINY = Config(
    VisionConfig(2, 32, 48, 2, 48, patch_size=4, window_size=16, fullatt_block_indexes=(1,)),
    vocab_size=40, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, rope_theta=100.0, mrope_section=(2, 2, 2), max_position_embeddings=512,
    image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=7, vision_end_token_id=8,
    eos_token_id=1, pad_token_id=0,
)  # fmt: skip
EOS, BANNED = [11, 1], [IMAGE, VIDEO]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    model = Qwen2_5_VL(dataclasses.replace(TINY, tie_word_embeddings=False))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def prompt(grids, text):
    ids = torch.randint(10, 40, (text,)).tolist()
    for t, h, w in grids:
        ids += [7, *[IMAGE] * (t * h * w // 4), 8]
    ids += torch.randint(10, 40, (2,)).tolist()
    positions, _ = mrope_position_ids(ids, grids, [], [], TINY)
    pixel_values = torch.randn(sum(t * h * w for t, h, w in grids), 96) if grids else None
    return {"input_ids": ids, "position_ids": positions, "pixel_values": pixel_values, "grid_thw": grids}


@pytest.fixture(scope="module")
def prompts():
    torch.manual_seed(2)
    shapes = [([(1, 4, 6)], 3), ([], 6), ([(1, 8, 8), (1, 2, 2)], 1), ([(1, 4, 6)], 9), ([(1, 6, 2)], 2)]
    return [prompt(grids, text) for grids, text in shapes]


@torch.no_grad()
def second_look(model, prompt, completion, temperature=1.0):
    """policy_logprobs [C + 1, V] of a prompt's completion and of what follows, without a cache or padding."""
    positions, new = prompt["position_ids"], len(completion)
    following = positions.max() + 1 + torch.arange(new).expand(3, -1)
    ids = torch.tensor([prompt["input_ids"] + completion])
    image_embeds = model.visual(prompt["pixel_values"], prompt["grid_thw"]) if prompt["grid_thw"] else None
    hidden = model(ids, torch.cat((positions, following), dim=1)[:, None], image_embeds)[0, -new - 1 :]
    return policy_logprobs(model.lm_head(hidden), temperature, BANNED)


def greedy(model, prompt, number, ends=()):
    """Token by token, everything computed anew."""
    completion = []
    while len(completion) < number and not (completion and completion[-1] in ends):
        completion.append(int(second_look(model, prompt, completion)[-1].argmax()))
    return completion


def test_pictures_that_prompts_share_are_encoded_once(model, prompts, monkeypatch):
    few = [prompts[0], prompts[2], prompts[3]]
    twice = [few[0], few[1], few[0], few[2], few[1]]  # the same tensors, not copies of them
    seen = []
    encode = model.visual.forward
    monkeypatch.setattr(model.visual, "forward", lambda x, grids: seen.append(len(x)) or encode(x, grids))
    embeds = encode_pictures(model, twice, torch.device("cpu"))
    assert sum(seen) == sum(len(prompt["pixel_values"]) for prompt in few)
    torch.testing.assert_close(embeds, [encode(prompt["pixel_values"], prompt["grid_thw"]) for prompt in twice])


def test_greedy_with_cache_and_padding_equals_greedy_without(model, prompts):
    out = generate(model, prompts, 20, EOS, banned_ids=BANNED)
    wanted = [greedy(model, prompt, 20, EOS) for prompt in prompts]
    assert [ids[mask].tolist() for ids, mask in zip(out.ids, out.mask)] == wanted
    assert len({len(completion) for completion in wanted}) >= 3  # some end early: rows are dropped on the way
    for row, (prompt, completion) in enumerate(zip(prompts, wanted)):
        length = len(completion)
        expected = second_look(model, prompt, completion)[:-1].gather(1, torch.tensor(completion)[:, None])
        torch.testing.assert_close(out.logprobs[row, :length], expected[:, 0], atol=1e-4, rtol=1e-4)
        assert (out.logprobs[row, length:] == 0).all() and (out.ids[row, length:] == EOS[0]).all()
    assert out.mask.sum(dim=1).max() == out.ids.shape[1]


def test_prompts_of_one_length_need_no_mask_and_give_the_same(model, prompts):
    out = generate(model, [prompts[0], prompts[0]], 12, EOS, banned_ids=BANNED)
    assert out.ids[0].tolist() == out.ids[1].tolist() == greedy(model, prompts[0], 12, EOS)


def test_greedy_equals_transformers(model, prompts, tmp_path):
    transformers = pytest.importorskip("transformers", minversion="5.3")
    save(tmp_path / "tiny", model)
    theirs = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "tiny")
    out = generate(model, prompts, 16, EOS, banned_ids=BANNED)
    for prompt, ids, mask in zip(prompts, out.ids, out.mask):
        inputs = torch.tensor([prompt["input_ids"]])
        kwargs = {"input_ids": inputs, "mm_token_type_ids": (inputs == IMAGE).int()}
        if prompt["grid_thw"]:
            grids = torch.tensor(prompt["grid_thw"])
            kwargs |= {"pixel_values": prompt["pixel_values"], "image_grid_thw": grids}
        kwargs |= {"max_new_tokens": 16, "do_sample": False, "eos_token_id": EOS, "pad_token_id": 0}
        wanted = theirs.generate(**kwargs, suppress_tokens=BANNED)
        assert ids[mask].tolist() == wanted[0, inputs.shape[1] :].tolist()


def test_groups_lie_together_and_start_from_their_own_prompt(model, prompts):
    grouped, single = generate(model, prompts, 10, EOS, group_size=3), generate(model, prompts, 10, EOS)
    assert torch.equal(grouped.ids, single.ids.repeat_interleave(3, dim=0))
    assert torch.equal(grouped.mask, single.mask.repeat_interleave(3, dim=0))


@torch._dynamo.config.patch(recompile_limit=64)
def test_a_compiled_decoder_serves_answers_of_any_length(model, prompts):
    """What rl.py --compile does: the same answers from a few graphs, none of them for the cache's length."""
    torch._dynamo.reset()
    counter, compiled = CompileCounter(), copy.deepcopy(model)
    compiled.model.compile(backend=counter, dynamic=True)
    for few, group in ((prompts, 4), (prompts[1:], 3)):
        for seed in range(2):
            eager, graphs = (
                generate(m, few, 60, [11, 12, 13, 1], 1.0, BANNED, group, torch.Generator().manual_seed(seed))
                for m in (model, compiled)
            )
            assert torch.equal(eager.ids, graphs.ids) and eager.ids.shape[1] > 10
            torch.testing.assert_close(eager.logprobs, graphs.logprobs)
    assert counter.frame_count < 16
    torch._dynamo.reset()


def test_samples_follow_the_policy_and_repeat_with_their_seed(model, prompts):
    def sample(seed):
        generator = torch.Generator().manual_seed(seed)
        return generate(model, prompts[:1], 1, EOS, 1.5, BANNED, group_size=20000, generator=generator)

    out = sample(0)
    assert torch.equal(out.ids, sample(0).ids) and not torch.equal(out.ids, sample(1).ids)
    expected = second_look(model, prompts[0], [], temperature=1.5)[0]
    torch.testing.assert_close(out.logprobs[:, 0], expected[out.ids[:, 0]], atol=1e-4, rtol=1e-4)
    counted = out.ids[:, 0].bincount(minlength=40) / 20000
    assert (counted - expected.exp()).abs().max() < 0.015
    assert expected.exp().max() < 0.9  # a policy that is worth sampling from


def test_logprobs_of_samples_are_those_of_a_second_look(model, prompts):
    """What the trainer recomputes must be what the sampler drew from: the first ratio of GRPO is 1."""
    generator = torch.Generator().manual_seed(0)
    out = generate(model, prompts, 15, EOS, 1.0, BANNED, group_size=2, generator=generator)
    for row in range(len(out.ids)):
        completion = out.ids[row][out.mask[row]].tolist()
        again = second_look(model, prompts[row // 2], completion)[:-1]
        again = again.gather(1, torch.tensor(completion)[:, None])[:, 0]
        torch.testing.assert_close(out.logprobs[row][out.mask[row]], again, atol=1e-4, rtol=1e-4)


def test_banned_ids_are_never_drawn(model, prompts):
    banned = [i for i in range(40) if i not in (1, 11, 12)]
    generator = torch.Generator().manual_seed(0)
    out = generate(model, prompts, 15, EOS, 1.0, banned, group_size=4, generator=generator)
    assert set(out.ids.unique().tolist()) <= {1, 11, 12}
    logits = torch.randn(2, 40)
    logprobs = policy_logprobs(logits, 2.0, banned)
    assert (logprobs[:, banned] == float("-inf")).all()
    allowed = [1, 11, 12]
    torch.testing.assert_close(logprobs[:, allowed].exp(), (logits[:, allowed] / 2).softmax(dim=-1))


def test_the_end_token_belongs_to_the_completion(model, prompts):
    generator = torch.Generator().manual_seed(0)
    out = generate(model, prompts, 30, EOS, 2.0, BANNED, group_size=4, generator=generator)
    for ids, mask in zip(out.ids.tolist(), out.mask):
        length = next((i + 1 for i, token in enumerate(ids) if token in EOS), len(ids))
        assert mask.tolist() == [True] * length + [False] * (len(ids) - length)
    assert not out.mask.all() and (out.ids[~out.mask] == EOS[0]).all()
