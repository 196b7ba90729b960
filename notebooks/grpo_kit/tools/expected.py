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
        ("of their replies fewer than 20 hold all numbers of the question", text(copied), (copied < 20).all()),
        ("50 calls, then 32 steps of practice: 10 more right from seed 3409 only; in the others over 0.6 of the groups earn the same",
         f"{text(fifty)} more; {', '.join(f'{one:.2f}' for one in agree)}", fifty[2] >= 10 and (fifty[:2] < 10).all() and (agree[:2] > 0.6).all()),
        ("50 calls seen 10 times come within 10 of 50 seen 36 times, on average", f"{text(few)} against {text(many)}", abs(few.mean() - many.mean()) <= 10),
        ("200 ordinary problems beside the calls: over half of the ordinary right, fewer than a tenth call, at most 15 large sums lost",
         f"{text(of('ordinary last'))}; {text(of('ordinary called'))}; {text(alone)} → {text(both)}",
         (of("ordinary last") > 50).all() and (of("ordinary called") < 10).all() and (alone - both <= 15).all()),
        ("32 steps of practice: 10 more large sums from two seeds of three, at most 5 ordinary lost", f"{text(plain)} more; {text(lost)} lost",
         (plain >= 10).sum() >= 2 and (lost <= 5).all()),
        ("400 more steps of SFT gain less than practice's mean of 11.3, on average; ordinary change by at most 5", f"{text(more)} more; {text(changed)}",
         more.mean() < 11.3 and (abs(changed) <= 5).all()),
        ("busy calculator, this notebook's practice: at least 20 answered, 15 right", f"{here['answered']:.0f}, {here['busy right']:.0f}",
         here["answered"] >= 20 and here["busy right"] >= 15),
        ("busy, the two other seeds: 15 more answered, 10 more right", f"{text(gained['answered'])}; {text(gained['busy right'])}",
         (gained["answered"] >= 15).all() and (gained["busy right"] >= 10).all()),
        ("busy, the two others: at least 80 of 100 call twice", text(after["twice"]), (after["twice"] >= 80).all()),
        ("busy, the two others: a larger share of the second calls repeats the first",
         "; ".join(f"{a:.0f} of {b:.0f} → {c:.0f} of {d:.0f}" for a, b, c, d in zip(before["same"], before["twice"], after["same"], after["twice"])),
         (after["same"] / after["twice"] > before["same"] / before["twice"]).all()),
        ("200 ordinary problems alone: as many ordinary right as beside calls, within 5 on average; fewer than 5 large sums; no call",
         f"{text(ordinary)} against {text(of('ordinary last'))}; {text(of('large', '200 ordinary'))}; {text(calls)}",
         abs(ordinary.mean() - of("ordinary last").mean()) <= 5 and (of("large", "200 ordinary") < 5).all() and (calls == 0).all()),
    ]


def expectations(trainings, here):
    """`checked` as an HTML table to display, folded, with how many came true."""
    from IPython.display import HTML

    rows = checked(trainings, here)
    lines = "".join(f"<tr><td style='text-align:left'>{html.escape(wanted)}</td><td>{html.escape(found)}</td><td>{'yes' if true else 'no'}</td></tr>"
                    for wanted, found, true in rows)
    head = "<tr><th style='text-align:left'>expected</th><th>measured, seed by seed</th><th>true?</th></tr>"
    print(f"{sum(bool(true) for *_, true in rows)} of {len(rows)} expectations came true.")
    return HTML(f"<details open><summary>all of them</summary><table>{head}{lines}</table></details>")
