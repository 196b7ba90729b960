"""Word problems whose sums are too large to be done in one's head: the small model's own scenes, other numbers.

A problem opens with a number of five digits, or with a product of two numbers of three, and changes it once or twice by
four digits. The row format is `problems`'; the solution is one line with the whole sum, which is what a calculator is asked.
"""

import random

from .problems import OBJECT_FORM, OWNER_FORM, shown
from .scenes import NAMES, SCENES

STORIES = ("collection", "bakery", "money", "garden", "town")  # scenes in which groups, more and fewer make sense


def _tell(rng):
    name = rng.choice(STORIES)
    scene, (a, she), (b, _) = SCENES[name], *rng.sample(NAMES, 2)
    unit = rng.choice(scene["unit"])
    words = {"A": a, "B": b, "x": unit, "she": she, "She": she.capitalize(), "her": OBJECT_FORM[she], "hers": OWNER_FORM[she]}
    if rng.random() < 0.6:
        j, n = rng.randint(101, 999), rng.randint(101, 999)
        value, expression, opening = j * n, f"{j} * {n}", "groups"
        told = [rng.choice(scene["groups"]).format(**words, j=j, n=n)]
    else:
        value = n = rng.randint(10_000, 99_999)
        expression, opening = shown(n), "start"
        told = [rng.choice(scene["start"]).format(**words, n=shown(n))]
    for operation in rng.sample(["plus", "minus"], rng.choice([1, 2] if opening == "start" else [0, 1])):
        k = rng.randint(1_001, 9_999)
        sign = "+" if operation == "plus" else "-"
        value = value + k if sign == "+" else value - k
        expression += f" {sign} {shown(k)}"
        told.append(rng.choice(scene[operation]).format(**words, k=shown(k)))
    left = " - " in expression
    told.append(rng.choice([s for s in scene["ask"] if left or "left" not in s]).format(**words))
    return {"question": " ".join(told), "answer": f"{expression} = {shown(value)} {unit}\n#### {shown(value)}", "expression": expression}


def large_sums(count, seed, avoid=frozenset()):
    """`count` rows (``question``, ``answer``, ``expression``), all different and none of their questions in `avoid`.

    The same arguments give the same rows on every machine.
    """
    rng, rows, seen = random.Random(f"large sums {seed}"), [], set(avoid)
    while len(rows) < count:
        row = _tell(rng)
        if "-" not in row["answer"].rpartition("#")[2] and row["question"] not in seen:  # nobody gives away more than there is
            seen.add(row["question"])
            rows.append(row)
    return rows
