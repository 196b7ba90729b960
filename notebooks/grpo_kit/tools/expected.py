"""What was expected of chapter 13's trainings before they ran, beside what they gave: computed from the stored trainings."""

import html

import numpy as np

BOTH = "200 calls + 200 ordinary"


def checked(trainings, here):
    """[(number of the expectation, a claim of it, measured, whether it came true)].

    `trainings`: `stored`'s rows; `here`: this notebook's busy practice, as `asked_here` gives it.
    """

    def of(column, shown=BOTH, stage="SFT", steps=None):
        rows = trainings[(trainings["shown"] == shown) & (trainings["stage"] == stage)]
        return np.array((rows if steps is None else rows[rows["steps"] == steps]).sort_values("seed")[column], float)

    def text(values):
        return ", ".join(f"{value:.0f}" for value in values)

    fifty = of("large", "50 calls", "practice", 32) - of("large", "50 calls")
    agree = of("agree", "50 calls", "practice", 32)
    few, many = of("large", "50 calls, few steps"), of("large", "50 calls")
    alone, both = of("large", "200 calls"), of("large")
    worked, copied = of("large", "200 worked out"), of("copied", "200 worked out")
    plain, lost = of("large", BOTH, "practice") - both, of("ordinary last") - of("ordinary last", BOTH, "practice")
    more, changed = of("large", BOTH, "more SFT") - both, of("ordinary last", BOTH, "more SFT") - of("ordinary last")
    before = {name: of(name)[1:] for name in ("twice", "same", "answered", "busy right")}  # the chapter itself trains the first seed
    after = {name: of(name, BOTH, "busy practice") for name in before}
    gained = {name: after[name] - before[name] for name in before}
    ordinary, calls = of("ordinary last", "200 ordinary"), of("large called", "200 ordinary") + of("ordinary called", "200 ordinary")
    return [
        (1, "200 sums worked out without a call: fewer than 5 of 100 large sums right", text(worked), (worked < 5).all()),
        (2, "the same: fewer than 20 replies hold all numbers of the question", text(copied), (copied < 20).all()),
        (3, "50 calls, 32 steps of practice: 10 more large sums from seed 3409", text(fifty[2:]), fifty[2] >= 10),
        (3, "the same: fewer than 10 more from the two other seeds", text(fifty[:2]), (fifty[:2] < 10).all()),
        (3, "the same, the two other seeds: over 0.6 of the groups earn the same", ", ".join(f"{one:.2f}" for one in agree[:2]), (agree[:2] > 0.6).all()),
        (4, "50 calls, each seen 10 times: large sums within 10 of those seen 36 times, on average", f"{text(few)} and {text(many)}",
         abs(few.mean() - many.mean()) <= 10),
        (5, "200 ordinary rows beside 200 calls: over half of the ordinary problems right", text(of("ordinary last")), (of("ordinary last") > 50).all()),
        (5, "the same: fewer than 10 of 100 ordinary problems get a call", text(of("ordinary called")), (of("ordinary called") < 10).all()),
        (5, "the same: at most 15 large sums lost", text(alone - both), (alone - both <= 15).all()),
        (6, "200 ordinary rows alone: ordinary right within 5 of the mixture, on average", f"{text(ordinary)} and {text(of('ordinary last'))}",
         abs(ordinary.mean() - of("ordinary last").mean()) <= 5),
        (6, "the same: fewer than 5 large sums right", text(of("large", "200 ordinary")), (of("large", "200 ordinary") < 5).all()),
        (6, "the same: no call", text(calls), (calls == 0).all()),
        (7, "mixture, 32 steps of practice: 10 more large sums from two seeds of three", text(plain), (plain >= 10).sum() >= 2),
        (7, "the same: at most 5 ordinary problems lost", text(lost), (lost <= 5).all()),
        (8, "mixture, 400 more steps of SFT: fewer large sums gained than by practice (11.3), on average", text(more), more.mean() < 11.3),
        (8, "the same: at most 5 ordinary problems won or lost", text(changed), (abs(changed) <= 5).all()),
        (9, "busy calculator, this notebook's practice: at least 20 answered", f"{here['answered']:.0f}", here["answered"] >= 20),
        (9, "the same: at least 15 right", f"{here['busy right']:.0f}", here["busy right"] >= 15),
        (10, "busy calculator, the two other seeds: 15 more answered", text(gained["answered"]), (gained["answered"] >= 15).all()),
        (10, "the same: 10 more right", text(gained["busy right"]), (gained["busy right"] >= 10).all()),
        (11, "the same: at least 80 of 100 call twice", text(after["twice"]), (after["twice"] >= 80).all()),
        (12, "the same: a larger share of the second calls repeats the first",
         ", ".join(f"{a:.0f} of {b:.0f} → {c:.0f} of {d:.0f}" for a, b, c, d in zip(before["same"], before["twice"], after["same"], after["twice"])),
         (after["same"] / after["twice"] > before["same"] / before["twice"]).all()),
    ]


def expectations(trainings, here):
    """`checked` as an HTML table to display, folded, with how many came true."""
    from IPython.display import HTML

    rows = checked(trainings, here)
    lines = "".join(f"<tr><td>{number}</td>{_cell(claim)}{_cell(found)}<td>{'yes' if true else '<b>no</b>'}</td></tr>"
                    for number, claim, found, true in rows)
    head = "<tr><th></th>" + "".join(f"<th style='text-align:left'>{name}</th>" for name in ("expected", "measured, seed by seed", "true?")) + "</tr>"
    numbers, failed = {number for number, *_ in rows}, {number for number, *_, true in rows if not true}
    print(f"{len(numbers - failed)} of {len(numbers)} expectations came true in every claim; of the {len(rows)} claims {sum(bool(true) for *_, true in rows)}.")
    return HTML(f"<details open><summary>all of them</summary><table>{head}{lines}</table></details>")


def _cell(text):
    """A table's cell."""
    return f"<td style='text-align:left'>{html.escape(text)}</td>"
