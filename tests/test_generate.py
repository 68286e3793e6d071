"""Decoding with cache, padding and groups, against plain recomputation and transformers.

The command `python -m nanoladder.ask` is tested here too.
"""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from test_attention import IMAGE, TINY

from nanoladder import ask
from nanoladder.batches import encode_prompt
from nanoladder.checkpoint import BASE, Policy, save
from nanoladder.command import UserError
from nanoladder.generate import draw, encode_pictures, generate, policy_logprobs, prefill
from nanoladder.model import Qwen2_5_VL, mrope_position_ids
from nanoladder.schema import Row, check_images

EOS, BANNED = [11, 1], [IMAGE, TINY.video_token_id]


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
    return {
        "input_ids": ids,
        "position_ids": positions,
        "pixel_values": pixel_values,
        "grid_thw": grids,
    }


@pytest.fixture(scope="module")
def prompts():
    torch.manual_seed(2)
    grids = [[(1, 4, 6)], [], [(1, 8, 8), (1, 2, 2)], [(1, 4, 6)], [(1, 6, 2)]]
    return [prompt(*shape) for shape in zip(grids, (3, 6, 1, 9, 2))]


@torch.no_grad()
def second_look(model, prompt, completion, temperature=1.0):
    """policy_logprobs [C + 1, V] of a prompt's completion and of the token after it.

    Everything is computed at once, without a cache or padding.
    """
    positions, new, grids = prompt["position_ids"], len(completion), prompt["grid_thw"]
    following = positions.max() + 1 + torch.arange(new).expand(3, -1)
    positions = torch.cat((positions, following), dim=1)[:, None]
    ids = torch.tensor([prompt["input_ids"] + completion])
    image_embeds = model.visual(prompt["pixel_values"], grids) if grids else None
    hidden = model(ids, positions, image_embeds)[0, -new - 1 :]
    return policy_logprobs(model.lm_head(hidden), temperature, BANNED)


def greedy(model, prompt, number, ends=()):
    """A greedy completion, for which everything is computed anew for every token."""
    completion = []
    while len(completion) < number and not (completion and completion[-1] in ends):
        completion.append(int(second_look(model, prompt, completion)[-1].argmax()))
    return completion


def test_pictures_that_prompts_share_are_encoded_once(model, prompts, monkeypatch):
    few = [prompts[0], prompts[2], prompts[3]]
    twice = [few[0], few[1], few[0], few[2], few[1]]  # the same tensors, not copies of them
    seen, encode = [], model.visual.forward

    def counted(pixel_values, grids):
        seen.append(len(pixel_values))
        return encode(pixel_values, grids)

    monkeypatch.setattr(model.visual, "forward", counted)
    embeds = encode_pictures(model, twice, torch.device("cpu"))
    assert sum(seen) == sum(len(prompt["pixel_values"]) for prompt in few)
    wanted = [encode(prompt["pixel_values"], prompt["grid_thw"]) for prompt in twice]
    torch.testing.assert_close(embeds, wanted)


def test_prefill_ends_where_each_prompt_ends(model, prompts):
    cpu = torch.device("cpu")
    with torch.no_grad():
        cache, hidden, position, seen = prefill(model, prompts, 0, cpu)
        logprobs = policy_logprobs(model.lm_head(hidden), 1.0, BANNED)
        *_, nothing = prefill(model, prompts[:1], 0, cpu)
    lengths = [len(prompt["input_ids"]) for prompt in prompts]
    assert cache.length == max(lengths) and seen.sum(dim=-1).flatten().tolist() == lengths
    assert position.tolist() == [int(prompt["position_ids"].max()) + 1 for prompt in prompts]
    wanted = torch.stack([second_look(model, prompt, [])[0] for prompt in prompts])
    torch.testing.assert_close(logprobs, wanted, atol=1e-4, rtol=1e-4)
    assert nothing is None  # one prompt has no padding to mask


def test_draw_takes_the_likeliest_token_at_temperature_zero():
    logprobs = torch.randn(5, 40).log_softmax(dim=-1)
    assert torch.equal(draw(logprobs, 0.0, None)[:, 0], logprobs.argmax(dim=-1))
    certain = torch.full((5, 40), float("-inf"))
    certain[range(5), [0, 3, 39, 3, 1]] = 0.0
    assert draw(certain, 1.0, None)[:, 0].tolist() == [0, 3, 39, 3, 1]


def test_greedy_with_cache_and_padding_equals_greedy_without(model, prompts):
    out = generate(model, prompts, 20, EOS, banned_ids=BANNED)
    wanted = [greedy(model, prompt, 20, EOS) for prompt in prompts]
    assert [ids[mask].tolist() for ids, mask in zip(out.ids, out.mask)] == wanted
    # Some completions end early, so rows are dropped on the way.
    assert len({len(completion) for completion in wanted}) >= 3
    for row, (prompt, completion) in enumerate(zip(prompts, wanted)):
        length = len(completion)
        expected = second_look(model, prompt, completion)[range(length), completion]
        torch.testing.assert_close(out.logprobs[row, :length], expected, atol=1e-4, rtol=1e-4)
        assert (out.logprobs[row, length:] == 0).all() and (out.ids[row, length:] == EOS[0]).all()
    assert out.mask.sum(dim=1).max() == out.ids.shape[1]


def test_every_new_token_is_told_on_the_way(model, prompts):
    told = []
    out = generate(
        model, prompts[:1], 20, EOS, banned_ids=BANNED, on_token=lambda new: told.extend(new)
    )
    assert torch.stack(told).tolist() == out.ids[0][out.mask[0]].tolist()
    told = []
    out = generate(model, prompts, 20, EOS, banned_ids=BANNED, on_token=told.append)
    assert len(told) == out.ids.shape[1] and len(told[0]) == len(prompts) > len(told[-1])


def test_prompts_of_one_length_need_no_mask_and_give_the_same(model, prompts):
    out = generate(model, [prompts[0], prompts[0]], 12, EOS, banned_ids=BANNED)
    assert out.ids[0].tolist() == out.ids[1].tolist() == greedy(model, prompts[0], 12, EOS)


@pytest.fixture(scope="module")
def theirs(model, tmp_path_factory):
    """The same model in transformers."""
    transformers = pytest.importorskip("transformers", minversion="5.3")
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(folder, model)
    return transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)


@pytest.mark.parametrize("ends, penalty", [(EOS, 1.0), ([11, 1, 23, 34], 1.05), (EOS, 1.3)])
def test_greedy_equals_transformers(model, theirs, prompts, ends, penalty):
    out = generate(model, prompts, 16, ends, banned_ids=BANNED, repetition_penalty=penalty)
    free = generate(model, prompts, 16, ends, banned_ids=BANNED)
    assert penalty < 1.3 or out.ids.tolist() != free.ids.tolist()
    for prompt, ids, mask, cut in zip(prompts, out.ids, out.mask, out.cut(ends)):
        inputs = torch.tensor([prompt["input_ids"]])
        kwargs = {"input_ids": inputs, "mm_token_type_ids": (inputs == IMAGE).int()}
        if prompt["grid_thw"]:
            grids = torch.tensor(prompt["grid_thw"])
            kwargs |= {"pixel_values": prompt["pixel_values"], "image_grid_thw": grids}
        kwargs |= {"max_new_tokens": 16, "do_sample": False, "eos_token_id": ends}
        kwargs |= {"pad_token_id": 0, "repetition_penalty": penalty, "suppress_tokens": BANNED}
        wanted = theirs.generate(**kwargs)[0, inputs.shape[1] :].tolist()
        assert ids[mask].tolist() == wanted and cut == (wanted[-1] not in ends)


def test_groups_lie_together_and_start_from_their_own_prompt(model, prompts):
    grouped = generate(model, prompts, 10, EOS, group_size=3)
    single = generate(model, prompts, 10, EOS)
    assert torch.equal(grouped.ids, single.ids.repeat_interleave(3, dim=0))
    assert torch.equal(grouped.mask, single.mask.repeat_interleave(3, dim=0))


def test_samples_follow_the_policy_and_repeat_with_their_seed(model, prompts):
    def sample(seed):
        generator = torch.Generator().manual_seed(seed)
        return generate(model, prompts[:1], 1, EOS, 1.5, BANNED, 20000, generator)

    out = sample(0)
    assert torch.equal(out.ids, sample(0).ids) and not torch.equal(out.ids, sample(1).ids)
    expected = second_look(model, prompts[0], [], temperature=1.5)[0]
    torch.testing.assert_close(out.logprobs[:, 0], expected[out.ids[:, 0]], atol=1e-4, rtol=1e-4)
    counted = out.ids[:, 0].bincount(minlength=40) / 20000
    assert (counted - expected.exp()).abs().max() < 0.015
    assert expected.exp().max() < 0.9  # a policy that is worth sampling from


def test_logprobs_of_samples_are_those_of_a_second_look(model, prompts):
    """The trainer must recompute what the sampler drew from, so that GRPO's first ratio is 1."""
    generator = torch.Generator().manual_seed(0)
    out = generate(model, prompts, 15, EOS, 1.0, BANNED, group_size=2, generator=generator)
    for row in range(len(out.ids)):
        completion = out.ids[row][out.mask[row]].tolist()
        again = second_look(model, prompts[row // 2], completion)
        again = again[range(len(completion)), completion]
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


# ---------------------------------------------------------------- the command


@pytest.fixture
def pictures(tmp_path):
    """Two pictures of different sizes."""
    rng = np.random.default_rng(0)
    paths = []
    for number, shape in enumerate([(96, 96, 3), (60, 90, 3)]):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(paths[-1])
    return paths


def expected_answer(question, paths, data_type, tokens):
    """The shipped base's greedy answer to a question about pictures."""
    row = Row(1, question, "", tuple(paths), data_type, data_type, "text", "here")
    check_images([row])
    model, tokenizer, image_config, _ = Policy.load(BASE)
    prompt = encode_prompt(row, tokenizer, image_config, model.config, ask=True)
    banned = tokenizer.vision_ids
    out = generate(model, [prompt], tokens, tokenizer.eos_ids, banned_ids=banned)
    return out.texts(tokenizer)[0]


def test_command_prints_the_answer(pictures, capsys):
    question = "What is in the picture?"
    ask.main(["--image", str(pictures[0]), question])
    assert capsys.readouterr().out == (
        expected_answer(question, pictures[:1], "single_image", 256) + "\n"
    )


def test_command_draws_the_boxes_of_the_answer(pictures, tmp_path, capsys, monkeypatch):
    tokenizer, path = Policy.load(BASE).tokenizer, tmp_path / "boxes.png"
    answer = '[{"label":"chaïr","bbox_2d":[10,20,60,70]}]'  # ï is more than one token

    def answer_with_a_box(model, prompts, *_, on_token, **__):
        for token in tokenizer.answer(answer):
            on_token(torch.tensor([token]))

    monkeypatch.setattr(ask, "generate", answer_with_a_box)
    ask.main(["--image", str(pictures[0]), "--out", str(path), "Locate the chair."])
    assert capsys.readouterr().out == f"{answer}\n{path}: 1 box(es)\n"
    with Image.open(path) as drawn, Image.open(pictures[0]) as picture:
        assert drawn.format == "PNG" and drawn.size == (768, 768)
        plain = np.asarray(picture.resize(drawn.size), dtype=int)
        changed = (np.asarray(drawn, dtype=int) != plain).any(axis=-1)
    rows, columns = changed.nonzero()
    assert abs(columns.min() - 80) < 3 and abs(columns.max() - 480) < 3  # 768 / 96 pixels a pixel
    assert abs(rows.min() - 160) < 3 and abs(rows.max() - 560) < 3
    assert not changed[200:500, 200:400].any()  # the inside of the box is the picture


@pytest.mark.parametrize("flag, data_type", [((), "multi_view"), (("--video",), "video")])
def test_command_takes_several_pictures(pictures, capsys, flag, data_type):
    paths = pictures if data_type == "multi_view" else [pictures[0], pictures[0]]
    question = "How many chairs are there?"
    ask.main(["--max-new-tokens", "8", "--image", *map(str, paths), *flag, question])
    assert capsys.readouterr().out == expected_answer(question, paths, data_type, 8) + "\n"


def test_command_names_what_is_missing(pictures, tmp_path):
    with pytest.raises(UserError, match="gone.png: no such image"):
        ask.main(["--image", str(pictures[0]), str(tmp_path / "gone.png"), "Where is it?"])
    for argv in ([], ["--think", "Locate the chair."]):
        with pytest.raises(UserError, match="name pictures with --image"):
            ask.main(argv)
    command = [sys.executable, "-m", "nanoladder.ask", "--image", "gone.png", "Where is it?"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 2 and not done.stdout and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "error: --image: gone.png: no such image file"
