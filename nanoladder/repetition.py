"""The repetition penalty of CTRL (Keskar et al. 2019, arXiv 1909.05858), as transformers has it.

Published Qwen2.5-VL folders ask for 1.05 in their generation_config.json, and so the published
scores were measured with it. Evaluation follows the folder. Training samples without a penalty,
because its log-probabilities must be those of the model alone.
"""

import torch
from torch import Tensor


def said_in(prompts: list[dict], vocab_size: int) -> Tensor:
    """bool [B, V], true for the ids that each prompt holds, image placeholders among them."""
    said = torch.zeros(len(prompts), vocab_size, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        said[row, torch.as_tensor(prompt["input_ids"])] = True
    return said


def penalize(logits: Tensor, said: Tensor, penalty: float) -> Tensor:
    """Logits [rows, V] with those of the `said` ids made smaller, in fp32; a penalty of 1 is off.

    said: bool [rows, V], true for ids of a row's prompt and of its answer so far. A positive logit
    is divided by the penalty, and a negative one is multiplied by it.

    >>> penalize(torch.tensor([[3.0, -2.0, 3.0]]), torch.tensor([[True, True, False]]), 1.5)
    tensor([[ 2., -3.,  3.]])
    """
    if penalty == 1:
        return logits
    logits = logits.float()
    return torch.where(said, torch.where(logits < 0, logits * penalty, logits / penalty), logits)
