"""The pictures: what they say, not how they look."""

import html
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

import grpo_kit
from grpo_kit import plots
from grpo_kit.measure.score import MEASURES, Evaluation
from grpo_kit.plots import style
from grpo_kit.plots import BLUE, completions_table, draw_tokens, plot_bars, plot_levels, plot_parts, plot_shares, plot_training


def log(step, **more):
    means = {"rewards/correctness_reward/mean": 0.2 * step, "rewards/correctness_reward/std": 0.5}
    rest = {"completions/mean_length": 30.0, "step_time": 2.0, "reward": 0.25 * step, "reward_std": 0.4}
    return {"step": step, "loss": 0.1, **means, **rest, **more}


def evaluation(bits, text="5"):
    rows = pd.DataFrame({name: np.array(bits, bool) for name in MEASURES})
    return Evaluation(rows.assign(prompt=[str(i) for i in range(len(bits))], text=text, length=1))


def titles(figure):
    return [axis.get_title(loc="left") for axis in figure.axes]


def test_training_has_a_panel_for_each_reward_function_and_length():
    figure = plot_training([log(step) for step in range(1, 9)] + [{"step": 8, "train_runtime": 3.0}])
    assert titles(figure) == ["reward", "correctness_reward", "completion length, tokens"]


def test_training_shows_kl_only_where_it_was_logged():
    assert "KL to the base model" in titles(plot_training([log(1, kl=0.1), log(2, kl=0.2)]))
    assert "KL to the base model" not in titles(plot_training([log(1), log(2)]))
    assert "KL to the base model" not in titles(plot_training([log(1, kl=0.0), log(2, kl=0.0)]))  # as a GPU logs it with beta 0


def test_training_draws_the_logged_values_and_the_end():
    axis = plot_training([log(step) for step in range(1, 5)]).axes[0]
    dots, line = axis.lines
    assert dots.get_xdata().tolist() == [1, 2, 3, 4]
    assert dots.get_ydata().tolist() == line.get_ydata().tolist() == [0.25, 0.5, 0.75, 1.0]  # too few to smooth
    assert not axis.collections  # a band would pass the most that can be earned
    assert axis.texts[0].get_text().strip() == "1"
    assert axis.get_ylim()[0] == 0


def test_training_smooths_long_runs_and_shows_negative_rewards():
    logs = [log(step, reward=float((-1) ** step)) for step in range(1, 161)]
    axis = plot_training(logs).axes[0]
    assert np.abs(axis.lines[1].get_ydata()[20:-20]).max() <= 0.1  # a mean of 20 steps
    assert axis.get_ylim()[0] == -1


def test_a_step_in_which_a_reward_function_scored_nothing_leaves_a_gap():
    figure = plot_training([log(1), log(2, **{"rewards/correctness_reward/mean": None}), log(3)])
    assert np.isnan(figure.axes[1].lines[0].get_ydata()).tolist() == [False, True, False]


def test_a_log_without_rewards_is_refused():
    for history in ([], [{"step": 8, "train_runtime": 3.0}]):
        with pytest.raises(ValueError, match="No logged step holds a reward"):
            plot_training(history)


def test_a_figure_is_returned_closed_so_that_a_notebook_shows_it_once():
    already_open = plt.get_fignums()
    assert isinstance(plot_training([log(1)]), Figure)
    assert plt.get_fignums() == already_open


def test_the_style_stays_in_the_pictures():
    before = dict(plt.rcParams)
    plot_training([log(1)])
    assert dict(plt.rcParams) == before


def rows(count):
    return Dataset.from_list([{"question": f"How many is {i} < 9 & 9?", "answer": str(i)} for i in range(count)])


def test_completions_show_question_gold_texts_and_marks():
    text = "<reasoning>\n$5 + $7\n</reasoning>"
    page = completions_table(rows(1), evaluation([0], text), evaluation([1], text)).to_html()
    shown = html.escape(text).replace("\n", "<br>")
    assert f"✗<br>{shown}" in page and f"✓<br>{shown}" in page and "How many is 0 &lt; 9 &amp; 9?" in page
    assert page.index("✗<br>") < page.index("✓<br>")
    assert "mathjax_ignore" in page and "<reasoning>" not in page


def test_completions_are_drawn_by_seed_and_belong_to_their_question():
    dataset, after = rows(50), evaluation([1] * 50)
    after.rows["text"] = [f"text {i}" for i in range(50)]

    def table(seed):
        return completions_table(dataset, after, after, n=4, seed=seed)

    data = table(0).data
    assert len(set(data["row"])) == 4
    for row in data.to_dict("records"):
        assert row["gold"] == str(row["row"]) and row["question"] == f"How many is {row['row']} < 9 & 9?"
        assert row["before"] == row["after"] == f"✓\ntext {row['row']}"
    assert data.equals(table(0).data) and not data.equals(table(1).data)
    assert "4 of 50 questions, drawn by seed 0, not picked" in table(0).to_html()


def test_asking_for_more_completions_than_there_are_shows_them_all():
    table = completions_table(rows(3), evaluation([1] * 3), evaluation([0] * 3), n=9)
    assert sorted(table.data["row"]) == [0, 1, 2]


def test_completions_of_another_dataset_are_refused():
    with pytest.raises(ValueError, match="differ in length"):
        completions_table(rows(3), evaluation([1] * 3), evaluation([1] * 2))


def test_plots_load_neither_torch_nor_transformers():
    heavy = {"torch", "transformers", "vllm", "unsloth"}
    check = f"import sys, grpo_kit.plots; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=Path(grpo_kit.__file__).parents[1])


class TestLiveTable:
    def train(self, capsys, steps, every, max_steps=7):
        from grpo_kit.training.progress import LiveTable

        table = LiveTable(every)
        state = SimpleNamespace(global_step=0, max_steps=max_steps, is_world_process_zero=True)
        for step in range(1, steps + 1):
            state.global_step = step
            table.on_log(None, state, None, logs=log(step))
        table.on_log(None, state, None, logs={"train_runtime": 3.0})
        return capsys.readouterr().out.splitlines()

    def test_a_header_then_a_row_every_few_steps_and_at_the_end(self, capsys):
        header, *rows = self.train(capsys, steps=7, every=3)
        assert header.split() == ["step", "reward", "correctness_reward", "tokens", "step_time", "left"]
        assert [row.split()[1] for row in rows] == ["3/7", "6/7", "7/7"]

    def test_a_row_is_the_mean_of_its_own_steps(self, capsys):
        rows = [row.split()[2:5] for row in self.train(capsys, steps=7, every=3)[1:]]
        assert rows == [["0.50", "0.40", "30.00"], ["1.25", "1.00", "30.00"], ["1.75", "1.40", "30.00"]]

    def test_columns_stand_under_their_names(self, capsys):
        header, row = self.train(capsys, steps=3, every=3, max_steps=60)
        for name, value in [("reward", "0.50"), ("correctness_reward", "0.40"), ("step_time", "2.00")]:
            assert row[: header.index(f"{name}  ") + len(name)].endswith(value)

    def test_the_time_left_is_the_steps_left_times_their_seconds(self, capsys):
        assert self.train(capsys, steps=3, every=3, max_steps=93)[1].endswith("  3 min")

    def test_a_first_step_that_compiles_does_not_count_for_the_time_left(self, capsys):
        from grpo_kit.training.progress import LiveTable

        table, state = LiveTable(5), SimpleNamespace(global_step=0, max_steps=65, is_world_process_zero=True)
        for step in range(1, 6):
            state.global_step = step
            table.on_log(None, state, None, logs=log(step, step_time=60.0 if step == 1 else 1.0))
        assert capsys.readouterr().out.splitlines()[1].endswith("  1 min")

    def test_the_bar_is_full_at_the_end(self, capsys):
        assert self.train(capsys, steps=7, every=7)[1].startswith("█" * 12 + " ")

    def test_a_trainer_calls_it_for_every_event(self, capsys):
        from grpo_kit.training.progress import LiveTable
        from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback, TrainerControl, TrainerState

        state, control = TrainerState(max_steps=1, global_step=1), TrainerControl()
        args = SimpleNamespace(logging_first_step=False, logging_strategy="no", eval_strategy="no", save_strategy="no", logging_dir=None)
        handler = CallbackHandler([DefaultFlowCallback(), LiveTable(1)], None, None, None, None)
        for event in ("on_init_end", "on_train_begin", "on_step_begin", "on_substep_end", "on_step_end", "on_train_end"):
            assert getattr(handler, event)(args, state, control) is control
        handler.on_log(args, state, control, logs=log(1))
        assert "1/1" in capsys.readouterr().out

    def test_it_can_be_loaded_before_unsloth(self):
        check = "import sys, grpo_kit.training.progress; assert not {'torch', 'transformers', 'unsloth'} & set(sys.modules)"
        subprocess.run([sys.executable, "-c", check], check=True, cwd=Path(grpo_kit.__file__).parents[1])


class TestShowSome:
    TEXT = "<reasoning>\n2 + 3 = 5\n</reasoning>\n<answer>\n5\n</answer>"

    def run(self, every, step, first=True):
        from grpo_kit.measure.score import lenient_accuracy
        from grpo_kit.training.progress import show_some

        reward = show_some(lenient_accuracy, every)
        chats = [[{"role": "assistant", "content": self.TEXT}], [{"role": "assistant", "content": "6"}]]
        prompts = [[{"role": "system", "content": "Think."}, {"role": "user", "content": f"Question {n}"}] for n in range(2)]
        state = SimpleNamespace(global_step=step, is_world_process_zero=first)
        assert reward.__name__ == "lenient_accuracy"
        return reward(prompts=prompts, completions=chats, answer=["5", "7"], trainer_state=state, completion_ids=[[1], [1]])

    @pytest.mark.parametrize("every, step, first, shown", [(25, 0, True, True), (25, 50, True, True), (25, 51, True, False),
                                                           (0, 0, True, False), (25, 50, False, False)])
    def test_question_answer_response_and_what_is_extracted_every_so_many_steps(self, capsys, every, step, first, shown):
        assert self.run(every, step, first) == [1.0, 0.0]
        said = capsys.readouterr().out
        parts = [f"after {step} steps", "Question:  Question 0", "Answer:    5", f"Response:  {self.TEXT}", "Extracted: 5"]
        assert all(part in said for part in parts) if shown else said == ""


def words(figure):
    return [text.get_text().strip() for text in figure.axes[0].texts]


def test_parts_are_laid_end_to_end_and_named_once():
    figure = plot_parts({"a": {"x": 1, "y": 2}, "b": {"x": 3}}, "T", "GB")
    starts = [bar.get_x() for bar in figure.axes[0].patches]
    assert starts == [0, 0, 1, 3] and words(figure) == ["3.0", "3.0"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["x", "y"]
    assert words(plot_parts({"a": {"x": 1}}, "T", "GB", ends=["1 of 2"])) == ["1 of 2"]
    assert "16 GB" in words(plot_parts({"a": {"x": 1}}, "T", "GB", marks={"16 GB": 16}))
    limited = plot_parts({"a": {"x": 0, "y": 1}}, "T", "GB", limit=2).axes[0]
    assert list(limited.lines[0].get_xdata()) == [2, 2] and limited.get_xlim()[1] > 2
    assert [bar.get_label() for bar in limited.containers] == ["y"]  # a part that no bar has is not named


def test_bars_carry_their_numbers_and_the_chosen_one_its_colour():
    figure = plot_bars({"a": 2.0, "b": 1.0}, "T", "%", chosen="b")
    assert words(figure) == ["2.0", "1.0"]
    assert [bar.get_facecolor() for bar in figure.axes[0].patches][1] == to_rgba(BLUE)


def test_levels_stand_below_the_weights_one_row_a_grid():
    figure = plot_levels(np.linspace(-1, 1, 50), {"NF4": ([-1, 1], BLUE), "equal": ([-1, 0, 1], "red")}, "x")
    assert words(figure) == ["NF4", "equal"]
    assert [len(lines.get_segments()) for lines in figure.axes[0].collections] == [2, 3]


def test_shares_show_each_run_with_its_value():
    figure = plot_shares({"one": evaluation([1, 0]), "two": evaluation([1, 1])}, "T")
    assert words(figure) == ["50.0 %", "100.0 %"] and figure.axes[0].get_xlim()[1] >= 100


def test_every_token_has_a_box_its_text_and_its_id():
    figure = draw_tokens([(4, "<s>", "system"), (7, " two\n", "system"), (8, "x", "user"), (9, "y", "generation prompt")], [4])
    assert words(figure)[:4] == ["<s>", "4", "·two↵", "7"] and len(figure.axes[0].patches) == 4
    assert figure.axes[0].texts[0].get_weight() == "bold" and figure.axes[0].texts[2].get_weight() == "normal"
    two = draw_tokens([(8, "x", "prompt"), (9, "y", "reply")])  # fewer parts than colours are fine, more are not
    assert [text.get_text() for text in two.axes[0].texts][-2:] == ["prompt", "reply"]
    with pytest.raises(ValueError):
        draw_tokens([(number, "x", str(number)) for number in range(4)])


def test_a_log_is_drawn_with_a_panel_a_title_and_a_label_where_there_are_several():
    steps = range(1, 17)
    figure = plots.plot_log({"share": {"a": pd.Series([0.5] * 16, steps), "b": pd.Series([1.0] * 16, steps)}, "length": {"": pd.Series([7.0] * 16, steps)}})
    assert titles(figure) == ["share", "length"]
    assert [text.get_text() for text in figure.axes[0].get_legend().texts] == ["a", "b"] and figure.axes[1].get_legend() is None
    assert [text.get_text().strip() for axis in figure.axes for text in axis.texts] == ["0.5", "1", "7"]
    assert figure.axes[0].get_ylim()[1] > 1 and figure.axes[0].get_ylim()[0] == 0  # the higher curve is not cut off


class TestTools:
    """The pictures of chapter 13."""

    def test_each_seed_has_its_marker_and_a_missing_training_none(self):
        figure = plots.plot_seeds({"large": {"nothing": {1: 0.0, 2: 0.0}, "calls": {2: 40.0}}}, [1, 2], "T")
        lines = figure.axes[0].lines
        assert [(line.get_marker(), list(line.get_xdata())) for line in lines] == [("o", [0.0]), ("s", [0.0]), ("s", [40.0])]
        assert lines[0].get_ydata()[0] != lines[1].get_ydata()[0]  # equal shares do not cover each other
        assert [text.get_text() for text in figure.legends[0].texts] == ["seed 1", "seed 2"]

    def test_pairs_are_two_bars_with_their_values(self):
        axis = plots.plot_pairs({"answered": {"seed 1": (5.0, 31.0), "seed 2": (0.0, 16.0)}}, "T").axes[0]
        assert [bar.get_height() for bar in axis.patches] == [5, 0, 31, 16]
        assert [text.get_text() for text in axis.texts] == ["5", "0", "31", "16"]

    def test_each_panel_of_pairs_has_a_scale_of_its_own(self):
        small, large = plots.plot_pairs({"right": {"seed 1": (1.0, 10.0)}, "layout": {"seed 1": (50.0, 32.0)}}, "T", columns=2).axes
        assert 10 < small.get_ylim()[1] < 20 and 50 < large.get_ylim()[1] < 100


class TestBaseAndAdapter:
    """The pictures of chapters 06 and 07."""

    def test_a_box_for_each_answer_and_none_written_where_there_was_no_number(self):
        axis = plots.plot_answers({"base": [3, None, 7], "adapter": [3, 3, 3]}, 3, "Q").axes[0]
        assert [text.get_text() for text in axis.texts] == ["3", "", "7", "3", "3", "3"]
        assert [label.get_text() for label in axis.get_yticklabels()] == ["base, 1 right", "adapter, 3 right"]

    def test_trainings_are_dots_and_the_first_has_its_interval_over_questions(self):
        figure = plots.plot_trainings({(way, reward): [40.0, 50.0] if reward == "full" else [5.0] for way in ("greedy", "sampled")
                                       for reward in ("none", "full")}, questions=400)
        assert titles(figure) == ["greedy", "sampled"]
        ends, dots, first = figure.axes[0].lines[3:6]
        assert list(dots.get_xdata()) == [40.0, 50.0] and list(first.get_xdata()) == [40.0]
        assert list(dots.get_ydata()) == pytest.approx([1, 0.88]) and list(first.get_ydata()) == [1]  # the first on its row, the others about it
        assert list(ends.get_xdata()) == pytest.approx([35.3, 44.9], abs=0.1)  # Wilson's, of 160 in 400
        assert [text.get_text() for text in figure.legends[0].texts][1:] == ["a training", "the first", "none"]

    def test_the_trainings_of_a_pair_are_joined_seed_by_seed(self):
        found = {("greedy", "none"): [5.0], ("greedy", "full"): [40.0, 50.0], ("greedy", "more"): [45.0, 48.0]}
        figure = plots.plot_trainings(found, questions=400, first_is="seed 1", joined=[("full", "more")])
        lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[0].lines[9:11]]
        assert lines == [([40.0, 45.0], [1, 2]), ([50.0, 48.0], pytest.approx([0.88, 1.88]))]
        assert figure.legends[0].texts[2].get_text() == "seed 1"

    def test_small_groups_of_steps_are_left_out(self):
        base, adapter = evaluation([0] * 25), evaluation([1] * 25)
        axis = plots.plot_by_steps({"test": (base, adapter, [1] * 12 + [2] * 10 + [3] * 3)}).axes[0]
        assert [label.get_text() for label in axis.get_xticklabels()] == ["1\n(12)", "2\n(10)"]
        assert [line.get_ydata().tolist() for line in axis.lines] == [[0, 0], [100, 100]]

    def test_temperatures_have_a_panel_for_each_measure(self):
        runs = {(name, t): evaluation([name == "adapter"] * 400) for name in ("base", "adapter") for t in (0.0, 1.0)}
        figure = plots.plot_temperatures(runs, [0.0, 1.0])
        assert titles(figure) == ["right, lenient", "writes a calculation"]
        assert [line.get_ydata().tolist() for line in figure.axes[0].lines] == [[0, 0], [100, 100]]
        assert [line.get_ydata().tolist() for line in figure.axes[1].lines] == [[0, 0], [0, 0]]  # "5" is none

    def test_curves_are_drawn_with_luck_in_the_first_panel_only(self):
        curve = {"base": [(10, 5, 15), (20, 15, 25)], "adapter": [(50, 45, 55), (60, 55, 65)]}
        figure = plots.plot_curves({"a": curve, "b": curve}, {"base": [1, 2]}, "%")
        assert [len(axis.lines) for axis in figure.axes] == [3, 2]

    def test_a_form_without_a_surprise_has_no_bar_for_it(self):
        formats = pd.DataFrame({"MB": [3.4, 7.4], "strict": [70, 69], "low": [65, 64], "high": [75, 74], "nats": [np.nan, 0.05]},
                               index=["4-bit", "GGUF f16"])
        figure = plots.plot_formats(formats)
        assert [[text.get_text().strip() for text in axis.texts] for axis in figure.axes] == [["3.4", "7.4"], [], ["50.00"]]
        assert [axis.get_xlim()[0] for axis in figure.axes] == [0, 60, 0]
        formats.loc["GGUF f16", "nats"] = -0.05
        assert plots.plot_formats(formats).axes[2].get_xlim()[0] < -50  # the bar is not cut off


@pytest.mark.parametrize("title", ["训练前后", "before 。", "学习率", "Lernrate, größer", "taux d'apprentissage · ½"])
def test_a_text_that_no_font_can_draw_asks_for_one(monkeypatch, title):
    monkeypatch.setattr(style, "CHINESE", [])
    if not any(sign >= "\u2e80" for sign in title):
        assert plot_bars({"a": 1.0}, title, "x").axes[0].get_title(loc="left") == title
        return
    for values, text in [({"a": 1.0}, title), ({title: 1.0}, "bars")]:
        with pytest.raises(ValueError, match="install fonts-noto-cjk"):
            plot_bars(values, text, "x")
    monkeypatch.setattr(style, "CHINESE", ["a font that has it"])
    assert plot_bars({"a": 1.0}, title, "x").axes[0].get_title(loc="left") == title


SOLVED = "<reasoning>\n3 + 4 = 7 pens\n7 * 2 = 15 pens\n</reasoning>\n<answer>\n15\n</answer>"


def test_the_film_strip_colours_tags_and_equations_and_marks_what_held():
    from grpo_kit.plots.moments import inks

    colours = inks(SOLVED)
    assert {colours[SOLVED.index(part)] for part in plots.moments.TAGS} == {BLUE}
    assert colours[SOLVED.index("3 + 4")] == style.GREEN and colours[SOLVED.index("7 * 2")] == style.ORANGE and colours[SOLVED.index("pens")] == "#222222"
    marks = {"layout": True, "working": True, "right": False}
    [axis] = plots.film_strip([("step 0", "12", dict.fromkeys(marks, False)), ("step 10", SOLVED, marks)], "How many pens?").axes
    assert [line.get_fillstyle() for line in axis.lines] == ["none"] * 3 + ["full", "full", "none"]
    assert {"step 0", "step 10", "layout", "working", "right", "a false equation"} <= {text.get_text() for text in axis.texts}
    [begun] = plots.film_strip([("step 0", "12", marks | {"layout": None})], "?").axes
    assert [line.get_marker() for line in begun.lines] == ["_", "o", "o"]
    assert {line.get_color() for line in axis.lines} == {"#222222"}  # the colours are the text's alone
    assert axis.get_title(loc="left") == "How many pens?"


def test_a_long_completion_is_cut_at_two_lines_and_says_so():
    from grpo_kit.plots.moments import STRIP_WIDTH as WIDTH, lines_of

    text = "many words and " * 40
    lines = lines_of(text)
    assert len(lines) == 2 and lines[0][0] == 0 and lines[0][1] == lines[1][0] and all(end - start <= WIDTH for start, end in lines)
    assert lines_of("x" * 300) == [(0, WIDTH), (WIDTH, 2 * WIDTH)] and lines_of("42") == [(0, 2)] and lines_of("") == []
    figure = plots.film_strip([("step 0", text, dict(layout=False, working=False, right=False))], "?")
    assert sum(drawn.get_text().endswith("…") for drawn in figure.axes[0].texts) == 1


def rising(middle):
    from grpo_kit.training.change_point import find_rise

    moments = np.arange(0, 50, 2)
    curve = pd.Series((moments > middle) * 0.8 + 0.01 * (moments % 3), index=moments)
    return curve, find_rise(curve.index, curve, draws=20)


def test_rises_are_drawn_where_they_were_found_and_a_curve_without_one_as_dots():
    curve, rise = rising(20)
    figure = plots.plot_rises({"sampled": {"working": (curve, rise)}, "greedy": {"working": (curve, None)}})
    found, none = figure.axes
    assert titles(figure) == ["sampled", "greedy"]
    bars, no_bars = ([list(line.get_xdata()) for line in axis.lines if line.get_linewidth() == 5] for axis in (found, none))
    assert bars == [[20, 22]] and 20 <= rise.low <= rise.high <= 22  # the looks around it, not what the fit puts between them
    assert no_bars == [] and none.lines[0].get_ydata().max() == pytest.approx(100 * curve.max())


def test_a_frame_lasts_as_long_as_its_reply_stays_the_same():
    def look(step, text, begun):
        return {"step": step, "answers": {way: [{"text": "another"}, {"text": told, "layout": True, "lenient": told == "b"}]
                                          for way, told in {"sampled": text, "sampled, begun": begun}.items()}}

    frames = plots.film_frames([look(0, "a", "a"), look(2, "a", "b"), look(4, "b", "a")], 1, {"layout": "layout", "right": "lenient"})
    yes, no, given = {"layout": True, "right": True}, {"layout": True, "right": False}, {"layout": None, "right": False}
    assert frames == [("sampled 0 to 2", "a", no), ("sampled 4", "b", yes), ("begun 0", "a", given), ("begun 2", "b", given | {"right": True}), ("begun 4", "a", given)]


def test_the_first_tokens_are_curves_and_the_flip_a_band_between_its_two_looks():
    steps = [0, 2, 4, 6]
    chances = pd.DataFrame({"The": [0.7, 0.6, 0.3, 0.1], "<reasoning>": [0.1, 0.2, 0.6, 0.9], "other": [0.2, 0.2, 0.1, 0.0]}, steps)
    greedy = pd.Series([0.0, 0.0, 0.8, 1.0], steps)
    [axis] = plots.plot_first_token(chances, greedy).axes
    assert [list(line.get_ydata()) for line in axis.lines] == [list(100 * curve) for curve in (*(chances[name] for name in chances), greedy)]
    assert {"The", "<reasoning>", "other", "greedy replies with working, %"} <= {text.get_text() for text in axis.texts}
    [band] = axis.patches
    assert (band.get_x(), band.get_width()) == (2, 2)
    assert plots.plot_first_token(chances, 0 * greedy).axes[0].patches[:] == []  # never: no band
    [axis] = plots.plot_first_token(chances, greedy, {"The": pd.DataFrame({"low": chances["The"] - 0.1, "high": chances["The"] + 0.1})}).axes
    [pale] = axis.collections
    assert pale.get_paths()[0].get_extents().extents.tolist() == pytest.approx([0, 0, 6, 80])


def test_the_begun_and_the_asked_replies_are_two_curves_named_where_they_start():
    asked, begun = pd.Series([0.25, 0.5, 0.75], [0, 2, 4]), pd.Series([0.9, 0.6, 0.8], [0, 2, 4])
    [axis] = plots.plot_begun({"as asked": asked, "begun": begun}, "it falls").axes
    assert [list(line.get_ydata()) for line in axis.lines] == [list(100 * asked), list(100 * begun)]
    assert [(text.get_text(), text.xy) for text in axis.texts] == [("as asked", (0, 25.0)), ("begun", (0, 90.0))]


def test_trainings_are_laid_upon_each_other_where_their_greedy_replies_flip():
    early, late = (pd.DataFrame({"sampled": [0.2, 0.3, 0.5, 0.9], "greedy": greedy}, [0, 6, 12, 18]) for greedy in ([0, 0.5, 1, 1], [0, 0, 0, 0.9]))
    [axis] = plots.plot_aligned({"a look every 6 steps": {"a": early, "b": late}}, dashed=["b"]).axes
    *curves, half = axis.lines
    assert [list(line.get_xdata()) for line in curves] == [[-6, 0, 6, 12]] * 2 + [[-18, -12, -6, 0]] * 2
    assert [line.get_color() for line in curves] == [BLUE, style.ORANGE] * 2 and [line.get_linestyle() for line in curves] == ["-", "-", "--", "--"]
    assert list(half.get_ydata()) == [50, 50]
    noted = plots.plot_aligned({"a": {"b": late}}, title="a jump", note="dashed: so")
    assert noted.get_suptitle() == "a jump" and "dashed: so" in [text.get_text() for text in noted.axes[0].texts]


def test_two_losses_with_their_epochs_and_the_step_that_is_kept():
    training, validation = pd.Series({5: 2.0, 10: 1.0}), pd.Series({0: 2.5, 5: 1.5, 10: 1.7})
    figure = plots.plot_losses(training, validation, 5, "a title", [pd.Series({0: 2.4, 5: 1.9, 15: 1.6})], epoch=5)
    shown = {text.get_text().strip() for text in figure.axes[0].texts}
    assert titles(figure) == ["a title"] and shown == {"validation", "training", "kept", "epoch 1", "epoch 2", "epoch 3"}
    lowest = {(float(x), float(y)) for line in figure.axes[0].lines if line.get_color() == style.ORANGE for x, y in [*zip(line.get_xdata(), line.get_ydata())]}
    assert lowest == {(5.0, 1.5), (15.0, 1.6)}


def test_marks_have_a_bar_for_each_way_and_a_circle_for_each_training():
    figure = plots.plot_marks({"opens": {"before": [(1, 4), (2, 4)], "after": [(4, 4), (3, 4)]}, "right": {"after": [(1, 2), (0, 2)]}}, "a title", "after")
    opens, right = figure.axes
    assert titles(figure) == ["opens", "right"] and [bar.get_width() for bar in opens.patches] == [37.5, 87.5]
    assert [text.get_text() for text in opens.texts] == ["3 of 8", "7 of 8"] and [text.get_text() for text in right.texts] == ["1 of 4", "does not apply"]
    assert right.patches[0].get_y() == opens.patches[1].get_y() and right.patches[0].get_facecolor() == to_rgba(BLUE)
    assert [list(line.get_xdata()) for line in opens.lines] == [[25, 50], [100, 75]]


def test_stages_have_a_line_through_the_means_and_a_dot_for_each_seed():
    figure = plots.plot_stages({"easy": {"greedy": [[1], [2, 4]], "sampled": [[0], [1, 1]]}}, ["before", "after"], "a title", "right, %")
    [axis] = figure.axes
    means = [list(line.get_ydata()) for line in axis.lines if line.get_marker() == "None"]
    dots = [list(line.get_ydata()) for line in axis.lines if line.get_marker() == "o"]
    assert means == [[1, 3], [0, 1]] and dots == [[1], [2, 4], [0], [1, 1]]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["before", "after"]
