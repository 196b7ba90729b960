"""`make variants` without a training: which are planned, in which order, what is kept and resumed; and what the settings say."""

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from trl import GRPOConfig

from grpo_kit.measure import sweep
from grpo_kit.plots import variants as plots
from grpo_kit.training.variants import GENERATIONS, KNOWN, METHODS, TRIES, clipped_share, curve_of, ordered, variant_settings
from grpo_kit.workshop import variants

KIND = {"generations": 40, "model": "ab12"}


def line(job, end=0.5):
    if job["stage"] == "difficulty":
        return job | {"right": [0, 4, 8, 3], "tries": TRIES}
    return job | {"curve": {"strict": [0.0] * 30 + [end] * 10, "lenient": [0.3] * 40}, "clipped": 0.0}


def play(ends=lambda job: 0.5, stop=None):
    """All jobs run one after another, without a file."""
    lines = []
    while left := variants.next_jobs(lines, KIND):
        lines.append(line(left[0], ends(left[0])))
        if stop and len(lines) == stop:
            break
    return lines


def test_all_methods_and_regimes_get_all_seeds():
    lines = play()
    count = {stage: sum(one["stage"] == stage for one in lines) for stage in ("base", "difficulty", "rate", "main", "control", "data", "check", "halves", "later")}
    assert len(METHODS) == 9
    assert count == {"base": 1, "difficulty": 1, "rate": 9 * 2 * 3, "main": 9 * 2 * 10, "control": 2 * 5, "data": 4 * 5, "check": 5 + 10 + 5 + 5, "halves": 2 * 10,
                     "later": 10 + 5}
    main = {(one["method"], one["updates"], one["seed"]) for one in lines if one["stage"] == "main"}
    assert len(main) == 180 and not set(variants.SEEDS) & set(variants.RATE_SEEDS)


def test_a_part_is_useful_already():
    """One update comes whole, seed by seed with its controls; with four, the two methods of a prediction come first."""
    stages = [(one["stage"], one["updates"], one["seed"] if one["stage"] == "main" else 0) for one in play()]
    order = list(dict.fromkeys(stages))
    assert order[:6] == [("base", 1, 0), ("difficulty", 1, 0), ("rate", 1, 0), ("main", 1, 1), ("control", 1, 0), ("main", 1, 2)]
    assert order[13:18] == [("main", 1, 10), ("data", 1, 0), ("check", 1, 0), ("rate", 4, 0), ("main", 4, 1)] and order[-3:] == [("main", 4, 10), ("later", 4, 0), ("halves", 1, 0)]
    four = [one["method"] for one in play() if one["updates"] == 4]
    assert set(four[:26]) == {"GRPO", "GSPO"} and not {"GRPO", "GSPO"} & set(four[26:])


def test_each_method_trains_at_its_own_best_rate_once_all_are_tried():
    best = {method: variants.RATES[1][number % 3] for number, method in enumerate(METHODS)}
    lines = play(lambda job: 0.9 if job["rate"] == best.get(job["method"]) else 0.2)
    assert {one["method"]: one["rate"] for one in lines if one["stage"] == "main" and one["updates"] == 1} == best
    assert variants.best_rates(lines)["GRPO", 4] == min(set(variants.RATES[4]) & {best["GRPO"]} or variants.RATES[4])  # equally good: the lowest
    some = [one for one in lines if one["stage"] == "rate" and one["updates"] == 1][:-1]
    assert set(variants.best_rates(some)) == {(method, 1) for method in list(METHODS)[:-1]}  # the last has a rate untried


def test_a_sweep_gives_each_worker_one_at_a_time_and_goes_on_where_it_was_killed(tmp_path):
    file, begun, now = tmp_path / "runs.jsonl", [], set()

    def worker(name):
        def start(job, right):
            assert name not in now, "two trainings on one core"
            assert (right is not None) == (job["stage"] == "data")
            now.add(name)
            begun.append(job)
            return len(begun) - 1, name

        return start

    def wait(handles):
        number, name = handles[0]
        now.remove(name)
        if len(begun) == 60:
            raise KeyboardInterrupt  # killed, with another training unfinished
        return handles[0], {key: value for key, value in line(begun[number]).items() if key not in begun[number]}

    with pytest.raises(KeyboardInterrupt):
        variants.sweep(file, KIND, [worker("a"), worker("b")], wait)
    file.write_text(file.read_text() + file.read_text()[:99])  # the half of a line
    kept = len(file.read_text().splitlines()) - 1
    assert kept == 58
    now.clear()
    old = line(variants.jobs([], KIND | {"model": "an earlier one"})[2])
    written = variants.sweep(file, KIND, [worker("c")], wait)
    lines = [json.loads(text) for text in file.read_text().splitlines()]
    assert written + kept == len(lines) == len(play()) and old["model"] not in {one["model"] for one in lines}
    assert len({json.dumps({key: one[key] for key in begun[0]}) for one in lines}) == len(lines)
    assert {"machine", "date"} <= set(lines[0])


def test_after_its_minutes_it_begins_none_and_another_models_lines_do_not_count(tmp_path):
    file = tmp_path / "runs.jsonl"
    assert variants.sweep(file, KIND, [None], None, until=time.time() - 1) == 0
    other = [line(job) for job in variants.jobs([], KIND | {"model": "cd34"})]
    assert variants.next_jobs(other, KIND)[0]["stage"] == "base"


def test_questions_are_chosen_and_ordered_by_difficulty():
    dataset, right = Dataset.from_dict({"question": list("abcdefgh"), "answer": ["1"] * 8}), [0, 8, 4, 1, 0, 8, 7, 3]
    measured = dict(zip("abcdefgh", right))

    def rights(data, seed=1, count=8):
        return [measured[question] for question in ordered(dataset, right, data, seed, count)["question"]]

    assert sorted(rights("any")) == sorted(right) and rights("any") != rights("any", seed=2) and rights("any") == rights("any")
    assert rights("easy first") == sorted(right, reverse=True) and rights("hard first") == sorted(right)
    assert sorted(rights("neither all nor none", count=4)) == [1, 3, 4, 7] and len(rights("neither all nor none")) == 8
    assert ordered(dataset, right, "any", 1, 8).column_names == ["question", "answer"]


def test_the_settings_are_those_of_trl_and_an_unknown_method_is_refused():
    for method in KNOWN:
        training_args = GRPOConfig(output_dir="x", use_cpu=True, **variant_settings(method, 4, 1e-3, 1))
        assert training_args.max_steps == 4 * GENERATIONS and training_args.num_iterations == 4 and training_args.steps_per_generation == 1
    with pytest.raises(ValueError, match="no method 'PPO'.*GSPO"):
        variant_settings("PPO", 1, 1e-3, 1)


def test_the_log_is_read_once_a_generation():
    log = [{"rewards/correctness_reward/mean": 1.0, "rewards/lenient_accuracy/mean": 0.6, "clip_ratio/region_mean": 0.0},
           {"clip_ratio/region_mean": 0.3}, {"train_runtime": 1.0}]
    assert curve_of(log) == {"strict": [0.5], "lenient": [0.6]} and clipped_share(log) == 0.15
    assert clipped_share([{"cispo_clip_ratio": 0.2}]) == 0.2


def test_a_sweeps_file_becomes_a_table_and_a_training_that_is_missing_is_named(tmp_path):
    asked = {split: {way: {"strict": strict, "lenient": 50.0, "layout": 1.0, "writes steps": 2.0, "tokens": 3.0} for way in ("sampled", "greedy")}
             for split, strict in (("test", 40.0), ("held_out", 20.0))}
    begun = dict(zip(variants.NAMES, ("main", "GRPO", 1, 3e-3, 2, "full", "any")))
    lines = [begun | {"stage": "difficulty", "right": [1]}, line(begun, 0.25) | {"results": asked, "clipped": 0.5},
             line(begun | {"seed": 1}) | {"results": asked}, line(begun | {"stage": "rate"})]
    file = tmp_path / "runs.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    runs = sweep.read_sweep(file)
    found = sweep.choose(runs, stage="main", method="GRPO", updates=1)
    assert list(found.index) == [1, 2] and list(found["strict"]) == [30, 30] and list(found["end"]) == [50, 25] and found.loc[2, "clipped"] == 50
    assert len(runs) == 3 and np.isnan(sweep.choose(runs, stage="rate")["strict"].iloc[0]) and len(found.loc[1, "curve"]) == 40
    with pytest.raises(LookupError, match="DAPO.*make variants"):
        sweep.choose(runs, stage="main", method="DAPO")


def test_the_chapters_claims_are_asserted_for_the_file_that_stands_here():
    """The claims cell knows it by this hash; another file there would only be told what is not true of it."""
    notebooks = Path(variants.NOTEBOOKS)
    found = hashlib.sha256(variants.RESULTS.read_text("utf-8").encode()).hexdigest()[:12]
    cells = ["".join(cell["source"]) for cell in json.loads((notebooks / "12_variants.ipynb").read_text("utf-8"))["cells"]]
    assert sum(f'== "{found}"' in cell for cell in cells) == 1


def test_the_last_curve_is_dashed_and_names_stand_where_lines_end():
    [axis] = plots.plot_curves({"GRPO": [0, 30, 60, 90], "GSPO": [0, 30, 60, 90], "DAPO": [0, 0, 0, 30]}, 32, "a title").axes
    assert list(axis.lines[0].get_ydata()) == [0, 15, 30, 60] and list(axis.lines[0].get_xdata()) == [32, 64, 96, 128]
    assert [line.get_linestyle() for line in axis.lines] == ["-", "-", "--"]
    labels = {text.get_text(): (text.xy[1], text.get_position()[1], text.get_color()) for text in axis.texts}
    assert labels["DAPO (dashed)"][:2] == (10, 0) and labels["GRPO"][0] == labels["GSPO"][0] == 60
    assert labels["GRPO"][1] > labels["GSPO"][1]  # one above the other, each in the colour of its line
    assert [label[2] for label in labels.values()] == [axis.lines[place].get_color() for place in map(["GRPO", "GSPO", "DAPO (dashed)"].index, labels)]


def test_differences_stand_in_a_row_each_and_a_verdict_has_its_colour():
    seeds = [-9.0, -7.0, -70.0]
    found = {"one": {"GRPO": (seeds, 1.0, 2.0, "equal"), "CISPO": (seeds, -8.0, 2.0, "lower"), "DAPO": (seeds, -8.0, 9.0, "open")},
             "four": {"GRPO": (seeds, 0.5, 1.0, "equal")}}
    figure = plots.plot_differences(found, "TRL's default", 5)
    one, four = figure.axes
    dots = [line for line in one.lines if line.get_marker() == "o"]
    assert [(*dot.get_xdata(), dot.get_markerfacecolor()) for dot in dots] == [(1.0, plots.BLUE), (-8.0, plots.ORANGE), (-8.0, "white")]
    assert [label.get_text() for label in one.get_yticklabels()] == ["GRPO", "CISPO", "DAPO"] and len(four.collections) >= 1
    assert [list(line.get_xdata()) for line in one.lines if line.get_marker() == "."] == [[-9.0, -7.0]] * 3
    assert [text.get_text() for text in one.texts] == ["← -70"] * 3 and one.get_xlim()[0] == -20  # a seed far out does not stretch the axis
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["lower", "equal", "open"]


def test_a_seed_that_never_reaches_the_bar_is_counted_and_has_no_dot():
    never = float("inf")
    [axis] = plots.plot_choice({"one": {"GRPO": [640.0, never, never], "DAPO": [320.0, 640.0, 640.0]}}, 56.2).axes
    dots = [list(line.get_xdata()) for line in axis.lines if line.get_marker() == "o"]
    assert dots == [[640.0], [320.0, 640.0, 640.0]]
    assert [list(line.get_xdata()) for line in axis.lines if line.get_marker() == "None"] == [[640.0, 640.0]]  # the one median
    assert [text.get_text() for text in axis.texts] == ["1 of 3 reach it", "3 of 3 reach it"] and "56 %" in axis.get_xlabel()
