"""Which training example comes when, for a small model that learns from nothing.

Where only one object is asked about, its name tells nothing, and a model that sees many such
pictures learns to ignore names. So stage 1 leaves these pictures out, and rooms with few objects
come first. Views and videos cost more time than single pictures and ask for more, so they come
later.
"""

from collections import Counter

import numpy as np

from nanoladder.batches import shuffled_passes, take_turns


def asked_objects(rows):
    """{pictures: number of different objects that localization rows about them ask for}."""
    labels = {}
    for row in rows:
        if row.form == "boxes":
            asked = labels.setdefault(row.images, set())
            asked |= {item["label"] for item in row.answer}
    return {images: len(asked) for images, asked in labels.items()}


def plan_order(levels, total, easy_first_share, seed):
    """(epoch, index) of `total` examples: shuffled passes, the easier levels first.

    levels: each example's level. The first easy_first_share of the order comes from all levels but
    the highest, the rest from all levels.
    """
    levels = np.asarray(levels)
    easy = np.flatnonzero(levels < levels.max())
    order = shuffled_passes(easy, int(total * easy_first_share), seed)
    epoch = order[-1][0] + 1 if order else 0
    rest = shuffled_passes(np.arange(len(levels)), total - len(order), seed, epoch)
    return order + rest


def plan_curriculum(
    groups, shares, total, seed, easy_first_share=0.0, multi_image_from=0.0, multi_image_share=None
):
    """(epoch, group index) of `total` examples, mixed by shares {kind: weight}.

    Each kind goes from easy to hard by itself (plan_order). Groups about several pictures join
    after the share multi_image_from of the run. They are then the share multi_image_share of those
    kinds that also ask about single pictures; None leaves that share as it is in the data.
    """
    piles = {}  # group indices by (kind, whether the groups show several pictures)
    for i, group in enumerate(groups):
        if group[0].kind in shares:
            piles.setdefault((group[0].kind, len(group[0].images) > 1), []).append(i)
    sizes = Counter()
    for (kind, _), own in piles.items():
        sizes[kind] += len(own)
    weights = {}
    for (kind, several), own in piles.items():
        part = len(own) / sizes[kind]
        if multi_image_share is not None and part < 1:
            part = multi_image_share if several else 1 - multi_image_share
        weights[kind, several] = shares[kind] * part
    start = {pile: multi_image_from * total for pile in piles if pile[1]}
    turns, orders = take_turns(weights, total, start), {}
    for pile, count in Counter(turns).items():
        levels = [groups[i][0].level for i in piles[pile]]
        planned = plan_order(levels, count, easy_first_share, seed)
        orders[pile] = iter([(epoch, piles[pile][i]) for epoch, i in planned])
    return [next(orders[pile]) for pile in turns]
