"""What a model did with a set of questions, measure by measure, with Wilson intervals.

Strict counts the answer in the tag, lenient the last number in the text: a model that only learned
the layout gains on the first and not on the second.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from grpo_kit.rewards.answers import gold_number, last_number
from grpo_kit.rewards.functions import completion_text

MEASURES = ["layout", "strict", "lenient", "truncated"]


def lenient_accuracy(completions, answer, **columns):
    """1.0 where the last number in the text is the gold one, else 0.0.

    In TRL's form, so that a training can watch it: give it to the trainer with the weight 0.0.
    """
    scores = []
    for completion, gold in zip(completions, answer, strict=True):
        number = last_number(completion_text(completion))
        scores.append(float(number is not None and number == gold_number(gold)))
    return scores


def as_bools(values):
    """`values`, True or False or 1 or 0, as an array of bools. ValueError for none at all, and for a NaN, which would count as True."""
    values = np.asarray(values)
    if not values.size or pd.isna(values).any() or not np.isin(values, [0, 1]).all():
        raise ValueError("A share needs at least one row, each of them True or False: look for gaps in the rows.")
    return values.astype(bool)


def wilson_shares(hits):
    """A row for each bool column of the DataFrame `hits`: its share in % with its Wilson 95 % interval (value, low, high)."""
    hits = pd.DataFrame({name: as_bools(column) for name, column in hits.items()})
    low, high = proportion_confint(hits.sum(), len(hits), method="wilson")
    share = hits.mean()  # the clips: rounding would leave 100 % outside its own interval
    return 100 * pd.DataFrame({"value": share, "low": low.clip(upper=share), "high": high.clip(lower=share)})


@dataclass
class Evaluation:
    """What one model did with every question of a set; prints as a table.

    `rows` is a DataFrame with one row a question, in the dataset's order: the `prompt` as the model
    saw it, the completion's `text`, its `length` in tokens, and a bool for each of `MEASURES`.
    """

    rows: pd.DataFrame

    def summary(self):
        """DataFrame: share of the questions in % with its Wilson 95 % interval, and the mean length.

        Index: `MEASURES`, then "mean tokens", which has no interval. Columns: value, low, high.
        """
        table = wilson_shares(self.rows[MEASURES])
        table.loc["mean tokens", "value"] = self.rows["length"].mean(skipna=False)
        return table.rename_axis(f"% of {len(self.rows)} questions")

    def __repr__(self):
        return self.summary().to_string(float_format="{:.1f}".format, na_rep="")

    def save(self, path):
        """Write questions, summary (in %) and rows as JSON; an interrupted save leaves the old file."""
        summary = json.loads(self.summary().to_json(orient="index"))
        report = {"questions": len(self.rows), "summary": summary, "rows": self.rows.to_dict("records")}
        temporary = Path(f"{path}.tmp")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
        temporary.replace(path)
