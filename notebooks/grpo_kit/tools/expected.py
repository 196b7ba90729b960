"""What was expected of chapter 13's trainings before they ran, beside what they gave: computed from the stored trainings."""

import html

import numpy as np

BOTH = "200 calls + 200 ordinary"


def checked(trainings, here):
    """[(expected, measured, whether it came true)], from `stored`'s rows and `here`, this notebook's busy practice as `asked_here` gives it."""

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
        ("200 sums worked out without a call: fewer than 5 of 100 large sums right", text(worked), (worked < 5).all()),
        ("200 sums worked out without a call: fewer than 20 replies hold all numbers of the question", text(copied), (copied < 20).all()),
        ("50 calls, 32 steps of practice: 10 more large sums from seed 3409 only; for the others over 0.6 of the groups earn the same",
         f"{text(fifty)} more; groups that earn the same: {', '.join(f'{one:.2f}' for one in agree)}",
         fifty[2] >= 10 and (fifty[:2] < 10).all() and (agree[:2] > 0.6).all()),
        ("50 calls, each seen 10 times instead of 36: within 10 large sums of those, on average", f"{text(few)}; seen 36 times: {text(many)}",
         abs(few.mean() - many.mean()) <= 10),
        ("200 ordinary rows beside 200 calls: over half of the ordinary problems right; fewer than a tenth get a call; at most 15 large sums lost",
         f"ordinary right: {text(of('ordinary last'))}; with a call: {text(of('ordinary called'))}; large sums lost: {text(alone - both)}",
         (of("ordinary last") > 50).all() and (of("ordinary called") < 10).all() and (alone - both <= 15).all()),
        ("200 ordinary rows alone: ordinary right within 5 of the mixture, on average; fewer than 5 large sums; no call",
         f"ordinary right: {text(ordinary)}, the mixture {text(of('ordinary last'))}; large sums: {text(of('large', '200 ordinary'))}; calls: {text(calls)}",
         abs(ordinary.mean() - of("ordinary last").mean()) <= 5 and (of("large", "200 ordinary") < 5).all() and (calls == 0).all()),
        ("mixture, 32 steps of practice: 10 more large sums from two seeds of three; at most 5 ordinary lost", f"{text(plain)} more; {text(lost)} lost",
         (plain >= 10).sum() >= 2 and (lost <= 5).all()),
        ("mixture, 400 more steps of SFT: fewer large sums gained than by practice (11.3), on average; at most 5 ordinary won or lost",
         f"{text(more)} more; ordinary: {text(changed)}", more.mean() < 11.3 and (abs(changed) <= 5).all()),
        ("busy calculator, this notebook's practice: at least 20 answered; at least 15 right", f"{here['answered']:.0f} answered; {here['busy right']:.0f} right",
         here["answered"] >= 20 and here["busy right"] >= 15),
        ("busy calculator, the two other seeds: 15 more answered; 10 more right", f"{text(gained['answered'])} more; {text(gained['busy right'])} more",
         (gained["answered"] >= 15).all() and (gained["busy right"] >= 10).all()),
        ("busy calculator, the two other seeds: at least 80 of 100 call twice", text(after["twice"]), (after["twice"] >= 80).all()),
        ("busy calculator, the two other seeds: a larger share of the second calls repeats the first",
         "; ".join(f"{a:.0f} of {b:.0f} → {c:.0f} of {d:.0f}" for a, b, c, d in zip(before["same"], before["twice"], after["same"], after["twice"])),
         (after["same"] / after["twice"] > before["same"] / before["twice"]).all()),
    ]


def expectations(trainings, here):
    """`checked` as an HTML table to display, folded, with how many came true."""
    from IPython.display import HTML

    rows = checked(trainings, here)
    lines = "".join(f"<tr>{_cell(wanted)}{_cell(found)}<td>{'yes' if true else 'no'}</td></tr>"
                    for wanted, found, true in rows)
    head = "<tr><th style='text-align:left'>expected</th><th style='text-align:left'>measured, seed by seed</th><th>true?</th></tr>"
    print(f"{sum(bool(true) for *_, true in rows)} of {len(rows)} expectations came true.")
    return HTML(f"<details open><summary>all of them</summary><table>{head}{lines}</table></details>")


def _cell(text):
    """A table's cell, its parts one under another."""
    return f"<td style='text-align:left'>{';<br>'.join(map(html.escape, text.split('; ')))}</td>"
