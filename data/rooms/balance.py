"""Which of a split's spatial facts are asked: dealt like cards, so that nothing is gained by guessing.

    rows = balance(rooms, wanted, seed, split)      rooms: spatial.room_facts of all rooms of a split

Shards of rooms are made independently; only this pass sees them all, when prepare.py joins them. It deals facts one by
one: types in equal shares, within a type the answers on which constant answers have earned least, among these the fact
whose categories tell least, and no fact that would lift the best constant answer over its limit. What can still be
guessed is measured by baselines.py.
"""

from collections import Counter

import numpy as np

from data.rooms.scene import SPLITS
from data.rooms.spatial import group, in_words, stratum
from nanoladder.rewards import relative_accuracy

CEILING = 0.34  # MRA of the best constant number in a group of facts
ABOVE_CHANCE = 0.02  # share of the commonest direction over chance, likewise
ALLOWANCE = 1  # rows' worth over these limits, because shares of a few rows mean little
GUESSED = 16  # rooms' worth: how much it matters what the best guesses so far would earn with a fact
LOOK = 32  # facts of a stratum among which the one that tells least is dealt
# What a model learns from may lean where a benchmark may not. As long as one faces any way, neither the place of an
# object nor that of two together tells anything of the answer, and a small model never finds what three tell: after
# 13,000 pictures it still guessed. Where most face ahead, left is left in the picture, and the rest follows from there.
# But GRPO must not be paid for facing ahead: the rows too many of that kind are marked "foothold", and rl.py leaves
# them out. The others face as a benchmark's do.
TURNED = 0.25  # of the training directions in which one faces another way than the first camera, the share that is kept
SHARES = {"easy": 1 / 3, "medium": 1 / 3, "hard": 1 / 3, "one": 1 / 5, "several": 4 / 5}  # within a type
GRID = np.geomspace(0.3, 400, 512)  # constant answers to guard against


def balance(rooms, wanted, seed, split):
    """Rows in SpatialLadder-26k's schema, `wanted[data_type]` of each modality or as many as stay balanced.

    rooms: all of a split's room_facts. Same arguments, same rows.
    """
    rng, marks = (np.random.default_rng([seed, SPLITS.index(split), stream, 5]) for stream in (0, 1))
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
        for number, fact, room in sorted(_deal(facts, most, rng), key=lambda item: item[0]):
            row = in_words(number, fact, room, turns, rng)
            if split == "train" and fact.get("ahead") and marks.random() >= TURNED:
                row["foothold"] = True
            rows.append(row)
    return rows


def tells(fact):
    """What the categories in a choice would give away if it summed up over many rows: {key: weight}; of a number {}.

    For directions how often a category meets an answer; for the nearest object how often a category wins more than
    its share; for an order how far from the middle a category comes.
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
    """The facts of one type and form that wait in piles, one a stratum, and what those dealt so far give away."""

    def __init__(self):
        self.piles, self.dealt = {}, 0
        self.debt = Counter()  # of each pile: facts dealt, and what the leading constants would have earned
        self.lead = Counter()  # tells of choices, summed
        self.scores = {}  # of every constant answer, summed; {category: array}, and over all categories under None
        self.best = {}  # the constant number that scores best, likewise

    def take(self, used):
        """A fact from the pile with the least debt: of its next ones that which tells least, from a room that was
        asked least. None where all piles are empty or offer only what would make a constant answer too good."""
        for key in sorted((key for key in self.piles if self.piles[key]), key=lambda key: (self.debt[key], key)):
            pile = self.piles[key]
            best = min(range(max(0, len(pile) - LOOK), len(pile)), key=lambda i: self._cost(*pile[i][1:], used))
            if not self._refuses(pile[best][1]):
                pile[best], pile[-1] = pile[-1], pile[best]
                self._count(key, pile[-1][1])
                return pile.pop()
        return None

    def _cost(self, fact, room, used):
        cost = used[room["index"]] + sum(self.lead[key] * weight for key, weight in tells(fact).items())
        if "options" in fact:
            return cost
        guesses = np.array([self.best.get(c, np.inf) for c in (None, *fact["asked"])])
        return cost + GUESSED * relative_accuracy(guesses, float(fact["answer"])).mean()

    def _refuses(self, fact):
        payoff, limit = _constants(fact)
        return np.max(self.scores.get(None, 0) + payoff) > limit * (self.dealt + 1) + ALLOWANCE

    def _count(self, key, fact):
        self.dealt += 1
        self.debt[key] += 1
        self.lead.update(tells(fact))
        for category in (None, *fact["asked"]):
            self.scores[category] = self.scores.get(category, 0) + _constants(fact)[0]
        if "options" not in fact:
            for category in (None, *fact["asked"]):
                self.best[category] = GRID[self.scores[category].argmax()]
            for key, pile in self.piles.items():
                if pile:
                    self.debt[key] += relative_accuracy(self.best[None], float(pile[-1][1]["answer"]))


def _constants(fact):
    """What every constant answer would earn with a fact (an array), and how much the best of them may on average."""
    if "options" not in fact:
        return relative_accuracy(GRID, float(fact["answer"])), CEILING
    if fact["question_type"] == "relative direction":
        return np.array([fact["answer"] == o for o in fact["options"]], float), 1 / len(fact["options"]) + ABOVE_CHANCE
    return np.zeros(1), 1.0  # no words are common to such rows, and letters are dealt in turn, see in_words


def _deal(facts, most, rng):
    """Choose up to `most` of (number, fact, room), one by one, always from the group that has the fewest for its
    share; a group that has nothing more to give leaves its share to the others."""
    groups, chosen, used = {}, [], Counter()
    for i in rng.permutation(len(facts)):
        fact = facts[i][1]
        groups.setdefault(group(fact), _Group()).piles.setdefault(stratum(fact), []).append(facts[i])
    while groups and len(chosen) < most:
        key = min(groups, key=lambda key: (groups[key].dealt / SHARES.get(key[1], 1), key))
        item = groups[key].take(used)
        if item is None:
            del groups[key]
        else:
            used[item[2]["index"]] += 1
            chosen.append(item)
    return chosen
