"""Chapter 09's trainings that were run before (results/prefix_seeds.json), put beside those of the reader's own run."""

import json
from pathlib import Path

import pandas as pd


def read_stored(file, profile, made_with, steps):
    """The stored trainings made with just these settings and supervised steps: a list of dicts. Empty, with a printed sentence, where there are none."""
    entry = json.loads(Path(file).read_text("utf-8"))["profiles"].get(profile, {})
    lines = entry.get("trainings", {}).get("lines", [])
    if entry.get("made with") != made_with or any(line["steps"] != steps for line in lines if line["training"] == "supervised"):
        print(f"{Path(file).name} was made with other settings than yours: what is shown is your own run alone.")
        return []
    longer = [{"training": "longer", "greedy": line["asked"], "sampled": []} for line in entry.get("longer", {}).values()]
    recipe = [{"training": f"recipe, {name}", "greedy": line["asked"], "loss": line["training"][-1]} for name, line in entry.get("recipe", {}).items()]
    return lines + longer + recipe


def with_stored(live, stored, own_seed=3407):
    """{row: {panel: counts, one a training}}, for `plot_solved`. `live`: {row: (greedy, sampled)}, pairs (in the layout, right).

    The stored twin of the live prefix, of `own_seed`, is left out.
    """
    pairs = {name: [pair] for name, pair in live.items()}
    for line in stored:
        if line["training"] == "longer":
            name = "prefix, 400 steps"
        elif line["training"] != "supervised" or (line["rows"], line["start"], line["seed"]) == (300, "random", own_seed):
            continue
        else:
            plain = line.get("adapter", "plain prefix")
            name = "prefix, fresh rows" if line["rows"] > 300 else "prefix, from a text" if line["start"] == "text" else plain
        pairs.setdefault(name, []).append((line["greedy"], (line["sampled"] or [None])[0]))
    panels = {"solved, greedy": (0, 1), "solved, sampled": (1, 1)}
    return {name: {panel: [int(pair[way][what]) for pair in found if pair[way]] for panel, (way, what) in panels.items()}
            for name, found in pairs.items()}


def grpo_table(stored):
    """What GRPO made of each start: a DataFrame, a row a training; the rewards are means of the first and the last five steps, the counts of sampled replies."""
    start = next((line for line in stored if line["training"] == "supervised"), None)
    rows = []
    for line in stored:
        if line["training"] == "GRPO":
            rows.append(("prefix of 240 steps", line, start["sampled"][line["seed"] - start["seed"]]))
        elif line["training"].startswith("GRPO, "):
            rows.append((line["training"].removeprefix("GRPO, "), line, line["before"]["sampled"][0]))
    return pd.DataFrame([
        {"start": name, "seed": line["seed"], "reward, first and last 5 steps": f"{pd.Series(line['seen']['reward'][:5]).mean():.2f} -> {pd.Series(line['seen']['reward'][-5:]).mean():.2f}",
         "layout kept": f"{before[0]} -> {line['sampled'][0][0]}", "solved": f"{before[1]} -> {line['sampled'][0][1]}"}
        for name, line, before in rows])
