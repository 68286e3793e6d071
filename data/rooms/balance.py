"""Choose which spatial facts of a split become questions, so that guessing earns little.

    rows = balance(rooms, wanted, seed, split)    # rooms: spatial.room_facts of a whole split

prepare.py makes the rooms in shards that know nothing of each other. It calls balance() when it
joins them, because only then all facts of a split are known. Facts are chosen one by one:

1. Every question type gets an equal share of the rows.
2. Within a type, the next answer is one on which constant guesses have earned least so far.
3. Among facts with such an answer, the one is chosen whose categories reveal least about it.
4. A fact is never chosen if it would lift the score of the best constant answer above a limit.

baselines.py measures what guessing still earns.
"""

from collections import Counter

import numpy as np

from data.rooms.scene import SPLITS
from data.rooms.spatial import group, in_words, stratum
from nanoladder.rewards import relative_accuracy

CEILING = (
    0.34  # limit of the MRA (see nanoladder/rewards.py) of the best constant number in a group
)
ABOVE_CHANCE = 0.02  # limit of how far the share of the commonest direction may exceed chance
ALLOWANCE = 1  # rows by which both limits may be exceeded, because shares of a few rows mean little
# A fact that a guess would answer with an MRA of 1 costs as much as 16 earlier questions about its
# room: see _Group._cost.
GUESS_WEIGHT = 16
CANDIDATES = 32  # facts of a stratum that are compared before one of them is chosen
# Training rows may be easier than a benchmark's. If the asker may face any way, the answer depends
# on the places of three objects; those of one or two tell nothing. A small model does not find
# this: it still guessed after 13,000 pictures. If the asker mostly faces the way the camera looks,
# what is on the left is on the left of the picture, and the model can learn the rest from there.
# GRPO must not reward this shortcut. So the surplus of such rows is marked "sft_only", and rl.py
# leaves them out. Without them, training rows face the same ways as a benchmark's.
TURNED = 0.25  # share that training keeps of the directions in which the asker does not face ahead
# Shares of the forms of one question type; see spatial.group.
SHARES = {"easy": 1 / 3, "medium": 1 / 3, "hard": 1 / 3, "one": 1 / 5, "several": 4 / 5}
GRID = np.geomspace(0.3, 400, 512)  # the constant numbers that are tried as guesses


def balance(rooms, wanted, seed, split):
    """Rows of spatial.jsonl: wanted[data_type] of each modality, or as many as stay balanced.

    rooms: room_facts of all rooms of the split. The same arguments give the same rows.
    """
    rng, marks = (
        np.random.default_rng([seed, SPLITS.index(split), stream, 5]) for stream in (0, 1)
    )
    rows = []
    for data_type, most in wanted.items():
        facts = [
            (room["index"] * 1000 + number, fact, room)
            for room in rooms
            for number, fact in enumerate(room["facts"])
            if fact["data_type"] == data_type
            and (split != "train" or fact.get("ahead", True) or rng.random() < TURNED)
        ]
        turns = {}
        for number, fact, room in sorted(_choose(facts, most, rng), key=lambda item: item[0]):
            row = in_words(number, fact, room, turns, rng)
            if split == "train" and fact.get("ahead") and marks.random() >= TURNED:
                row["sft_only"] = True
            rows.append(row)
    return rows


def category_bias(fact):
    """What the categories in a choice would reveal if it were the same in many rows: {key: weight}.

    Of a direction: which answer each category goes with. Of the nearest object: how much more often
    than by chance a category is the answer. Of an order: how far from the middle a category comes.
    A number has none: {}.
    """
    kind = fact["question_type"]
    if kind == "relative direction":
        return {(role, o, fact["answer"]): 1.0 for role, o in enumerate(fact["asked"])}
    if kind == "relative distance":
        return {o: (o == fact["answer"]) - 1 / len(fact["options"]) for o in fact["options"]}
    if kind == "appearance order":
        order = fact["answer"].split(", ")
        return {o: place - (len(order) - 1) / 2 for place, o in enumerate(order)}
    return {}


class _Group:
    """The facts of one type and form: those left to choose, and what those chosen let one guess."""

    def __init__(self):
        self.strata = {}  # {stratum: facts left}
        self.chosen = 0
        # {stratum: facts chosen from it, plus what the best constants would have earned with it}.
        self.debt = Counter()
        self.bias = Counter()  # category_bias of the chosen facts, summed
        # {category: summed scores of the numbers in GRID}; None stands for all categories together.
        self.scores = {}
        self.best = {}  # {category: the number of GRID with the best score}

    def take(self, used):
        """A fact from the stratum with the least debt, or from the next one, and so on.

        Of the stratum's next CANDIDATES it is the one with the least cost. used: {room: how often
        it has been asked about}. None where no facts are left, or the cheapest of each stratum
        breaks a limit.
        """
        left = (key for key in self.strata if self.strata[key])
        for key in sorted(left, key=lambda key: (self.debt[key], key)):
            facts = self.strata[key]
            candidates = range(max(0, len(facts) - CANDIDATES), len(facts))
            best = min(candidates, key=lambda i: self._cost(*facts[i][1:], used))
            if not self._refuses(facts[best][1]):
                facts[best], facts[-1] = facts[-1], facts[best]
                self._count(key, facts[-1][1])
                return facts.pop()
        return None

    def _cost(self, fact, room, used):
        """How often the room has been asked about, plus what guessing would earn with the fact."""
        bias = sum(self.bias[key] * weight for key, weight in category_bias(fact).items())
        cost = used[room["index"]] + bias
        if "options" in fact:
            return cost
        guesses = np.array([self.best.get(c, np.inf) for c in (None, *fact["asked"])])
        return cost + GUESS_WEIGHT * relative_accuracy(guesses, float(fact["answer"])).mean()

    def _refuses(self, fact):
        scores, limit = _constants(fact)
        return np.max(self.scores.get(None, 0) + scores) > limit * (self.chosen + 1) + ALLOWANCE

    def _count(self, key, fact):
        """Note that a fact of stratum `key` has been chosen."""
        self.chosen += 1
        self.debt[key] += 1
        self.bias.update(category_bias(fact))
        for category in (None, *fact["asked"]):
            self.scores[category] = self.scores.get(category, 0) + _constants(fact)[0]
        if "options" in fact:
            return
        for category in (None, *fact["asked"]):
            self.best[category] = GRID[self.scores[category].argmax()]
        for other, facts in self.strata.items():
            if facts:
                answer = float(facts[-1][1]["answer"])
                self.debt[other] += relative_accuracy(self.best[None], answer)


def _constants(fact):
    """(scores of every constant answer with a fact, limit of the best one's mean score)."""
    if "options" not in fact:
        return relative_accuracy(GRID, float(fact["answer"])), CEILING
    options = fact["options"]
    if fact["question_type"] == "relative direction":
        limit = 1 / len(options) + ABOVE_CHANCE
        return np.array([fact["answer"] == o for o in options], float), limit
    # Other choices share no words, and in_words() gives every letter to the right answer in turn.
    return np.zeros(1), 1.0


def _choose(facts, most, rng):
    """Up to `most` of the facts, each a (number, fact, room).

    The next fact always comes from the group that is furthest behind its share. A group that has
    nothing left to give leaves its share to the others.
    """
    groups, chosen, used = {}, [], Counter()
    for i in rng.permutation(len(facts)):
        fact = facts[i][1]
        own = groups.setdefault(group(fact), _Group())
        own.strata.setdefault(stratum(fact), []).append(facts[i])
    while groups and len(chosen) < most:
        key = min(groups, key=lambda key: (groups[key].chosen / SHARES.get(key[1], 1), key))
        item = groups[key].take(used)
        if item is None:
            del groups[key]
        else:
            used[item[2]["index"]] += 1
            chosen.append(item)
    return chosen
