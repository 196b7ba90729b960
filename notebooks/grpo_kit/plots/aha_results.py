"""What the stored trainings of chapter 11 say: they are read from notebooks/results/aha.json, and laid side by side.

A training is a dict as `grpo_kit.workshop.aha` keeps it; its name here is "kind: seed".
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from grpo_kit.measure import over_seeds
from grpo_kit.training.change_point import find_rise
from grpo_kit.training.resume import read_log

AHA_FILE = Path(__file__).resolve().parents[2] / "results/aha.json"
AHA_KINDS = {"full": "3e-4, 32 steps", "slow": "1e-4, 96 steps", "long": "3e-4, 96 steps", "kl": "3e-4, 32 steps, KL", "lora": "LoRA 1.5e-3, 32 steps"}
BOTH_WAYS = ("sampled", "greedy")
PAID = ("correctness_reward", "format_reward", "tag_reward", "integer_reward")  # the rewards of all of them


def kind_of(folder):
    """Of which stored kind the training in `folder` is, read from its log: one of `AHA_KINDS`' texts, or None."""
    last = [line for line in read_log(folder / "log.jsonl") if "reward" in line][-1]
    paid = all(f"rewards/{name}/mean" in last for name in PAID)
    known = {(3e-4, 32): "full", (1e-4, 96): "slow", (3e-4, 96): "long"}
    return AHA_KINDS.get(known.get((last["learning_rate"], last["step"]))) if paid and not last.get("kl") else None


def read_trainings(folder, embedded):
    """(the untrained model's answers, {"kind: seed": training}); prints what they are, and of which kind the reader's own training is.

    `folder`: of the reader's training; `embedded`: did it train the embedded model?
    """
    stored = json.loads(AHA_FILE.read_text("utf-8"))
    base = next(one for one in stored["trainings"] if one["method"] == "none")
    trained = {f"{AHA_KINDS[one['method']]}: {one['seed']}": one for one in stored["trainings"] if one is not base}
    own = kind_of(folder) if embedded else None
    minutes = sum(sum(one["seconds"]) for one in trained.values()) / 60
    print(f"{len(trained)} stored trainings of the embedded model, {minutes:.0f} minutes of steps, {stored['date']}, {stored['machine']}")
    print(f"section 4's training is of the kind {own}" if own else "SECTION 4'S TRAINING IS OF NONE OF THESE KINDS: do not compare it with them")
    return base, trained


def panels(trained):
    """{"a look every … steps": {name: DataFrame of the shares with working, a row a look, a column a way}}, for `plot_aligned`."""
    found = {}
    for name, one in trained.items():
        shares = pd.DataFrame({way: one["curves"][way]["working"] for way in BOTH_WAYS}, index=one["moments"])
        found.setdefault(f"a look every {one['moments'][1]} steps", {})[name] = shares
    return {f"{title} ({len(those)} trainings)": those for title, those in found.items()}


def tagless(trained):
    """The names of the trainings that, at the end, leave out the opening tag: fewer than 5 % of their samples keep the layout."""
    return [name for name, one in trained.items() if one["after"]["sampled"]["layout"] < 5]


def flip_of(one):
    """The number of the first look at which half of the greedy replies have working."""
    return int((np.array(one["curves"]["greedy"]["working"]) >= 0.5).argmax())


def overtaken(one):
    """(number of the first look at which another first token is likelier than The; how likely both are where straight lines cross), or None."""
    if "first" not in one:
        return None
    the = np.array(one["first"]["The"])
    lead = the - np.max([chances for token, chances in one["first"].items() if token != "The"], axis=0)
    after = int((lead < 0).argmax())
    part = lead[after - 1] / (lead[after - 1] - lead[after])
    return after, float(the[after - 1] * (1 - part) + the[after] * part)


def opening_gap(one, questions=48):
    """How far the number of replies with working is, at most, from the number of those that do not begin with The."""
    return max(abs(questions * (working - 1) + the) for way in BOTH_WAYS
               for working, the in zip(one["curves"][way]["working"], one["begins"][way]["The"]))


def steps_taken(one, way):
    """How many steps lie between a tenth and nine tenths of the rise of working, in the fitted slope, as text; "<4" if under two looks of 2 steps."""
    gap, steps = one["moments"][1], find_rise(one["moments"], one["curves"][way]["working"]).takes[0]
    return f"<{2 * gap}" if steps < 2 * gap else f"{steps:.0f}"


def rise_table(trained):
    """How many steps the rise of working takes, a row a kind, a training after the other: a DataFrame of texts; * leaves out the opening tag."""
    rows, without = {}, tagless(trained)
    for name, one in trained.items():
        row = rows.setdefault(name.partition(": ")[0], {"a look every": one["moments"][1]} | dict.fromkeys(BOTH_WAYS, ""))
        for way in BOTH_WAYS:
            row[way] += " " * bool(row[way]) + steps_taken(one, way) + "*" * (name in without)
    return pd.DataFrame(rows).T


def print_openings(trained):
    """Prints how far the first token decides in the stored trainings, and what the replies look like that leave out the opening tag."""
    crossed = [(overtaken(one)[0], flip_of(one)) for one in trained.values() if overtaken(one)]
    print(f"The is overtaken between the same two looks as the greedy replies flip, in {sum(after == flip for after, flip in crossed)} "
          f"of the {len(crossed)} trainings that logged its probability")
    print("the number of replies with working, and of replies that do not begin with The, differ by at most "
          f"{max(map(opening_gap, trained.values())):.0f} of 48, at any look")
    for name in tagless(trained):
        print(f"no opening tag: {name}, as {trained[name]['replies']['greedy'][0]!r}")


def dated(trained, kind):
    """Between which looks working and right rise, a row a training of that kind; and {way: steps from the one to the other, a list}."""
    dates, delays = {}, {way: [] for way in BOTH_WAYS}
    for name, one in trained.items():
        if name.startswith(f"{kind}: "):
            rises = {(way, measure): find_rise(one["moments"], one["curves"][way][measure]) for way in BOTH_WAYS for measure in ("working", "right")}
            dates[name] = {f"{way}, {measure}": "{} to {}".format(*rise.between(one["moments"])) for (way, measure), rise in rises.items()}
            for way in BOTH_WAYS:
                delays[way].append(rises[way, "right"].step - rises[way, "working"].step)
    return pd.DataFrame(dates).T, delays


def low_to_high(values):
    """The lowest and the highest, as text: "73.8 to 90.2"; of one value itself, of none a dash."""
    ends = dict.fromkeys(f"{end:.1f}" for end in (min(values), max(values))) if values else ["-"]
    return " to ".join(ends)


def right_by_kind(base, trained):
    """% right of the test set, a row a kind: a DataFrame of texts. Without an opening tag a training counts only as asked, not begun; in brackets: how many count begun."""
    rows = {"untrained": [("", base)]}
    for name, one in trained.items():
        rows.setdefault(name.partition(":")[0], []).append((name, one))
    without, table = tagless(trained), {}
    for kind, ones in rows.items():
        table[kind] = {"trainings": "" if kind == "untrained" else f"{len(ones)} ({sum(name not in without for name, _ in ones)})",
                       "million trained": "" if kind == "untrained" else f"{ones[0][1]['cost']['trained'] / 1e6:.2f}"}
        for way in BOTH_WAYS:
            table[kind][way] = low_to_high([one["after"][way]["lenient"] for _, one in ones])
            table[kind][f"{way}, begun"] = low_to_high([one["after"][f"{way}, begun"]["lenient"] for name, one in ones if name not in without])
    return pd.DataFrame(table).T


def gains(trained, first, second, way):
    """How many points more the second kind is right than the first, for each seed that both have: {seed: points}."""
    pairs = {name.partition(": ")[2]: (one, trained.get(name.replace(first, second, 1))) for name, one in trained.items() if name.startswith(f"{first}: ")}
    return {seed: other["after"][way]["lenient"] - one["after"][way]["lenient"] for seed, (one, other) in pairs.items() if other}


def told(points):
    """{seed: points} as a line."""
    return ", ".join(f"{seed} {gain:+.1f}" for seed, gain in points.items())


def print_expected(base, trained):
    """Prints what came of the four expectations in the head of `grpo_kit.workshop.aha`, a line or two each."""
    way = "sampled, begun"
    found = gains(trained, AHA_KINDS["long"], AHA_KINDS["slow"], way)
    print("1.", told(found) + "; mean {:+.1f} ± {:.1f}".format(*over_seeds(list(found.values()))))
    falls = [100 * np.array(one["curves"][way]["right"]) for name, one in trained.items() if name.startswith(AHA_KINDS["long"]) and way in one["curves"]]
    print("2. % of the 48 watched questions right, at the start, lowest, at the end:", ", ".join(f"{curve[0]:.0f} {curve.min():.0f} {curve[-1]:.0f}" for curve in falls))
    changes = [trained[f"{AHA_KINDS[kind]}: 3407"]["after"][way]["lenient"] - base["after"][way]["lenient"] for kind in ("kl", "full", "slow")]
    print("3. points of % right, less the untrained model's: with KL {:+.1f}, 3e-4 without {:+.1f}, 1e-4 {:+.1f}".format(*changes))
    crossed = [(overtaken(one), flip_of(one)) for one in trained.values() if "first" in one]
    shares = [share for (_, share), _ in crossed]
    print(f"4. the same two looks in {sum(after == flip for (after, _), flip in crossed)} of {len(crossed)}, at {min(shares):.2f} to {max(shares):.2f}")
