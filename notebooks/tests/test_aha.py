"""The seeds of chapter 11 without a training: what is kept of them, what a killed command does again, what is stored."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from grpo_kit.plots import aha_results
from grpo_kit.workshop import aha, cells
from grpo_kit.workshop.step_cost import SEED


def test_the_chapters_training_cells_define_what_is_used_and_read_nothing_that_is_not_there():
    import ast
    import builtins

    known = set(dir(builtins)) | {"__name__"}
    for _, source in cells.tagged(aha.NOTEBOOK, aha.TAG):
        tree = ast.parse(source)
        known |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        known |= {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))} | {"refused"}
        known |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        known |= {(alias.asname or alias.name).partition(".")[0] for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names}
        read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        assert read - known == set()
    assert {"train", "measured", "curves", "ask", "nats", "works_first", "ask_all", "drawn", "model", "tokenizer", "test", "KEPT", "WAYS", "MEASURES_SEEN"} <= known


def evaluation(texts, right):
    columns = {"layout": False, "strict": False, "lenient": np.array(right, bool), "length": 4}
    return SimpleNamespace(rows=pd.DataFrame({"text": texts, **columns}))


def names(folder):
    """What the cells would define, with a training that is over."""
    (folder / "model").mkdir()
    (folder / "model/cost.json").write_text('{"trained": 8, "optimizer_bytes": 64}')
    told = {way: [{"text": text, "working": text != "5", "lenient": text == "5", "The": 0.25, "<reasoning>": 0.5, "other": 0.125} for text in ("1 + 1 = 2", "5", "1 + 1 = 3", "9 - 9 = 0")] for way in ("sampled", "greedy")}
    lines = [{"step": 0, "answers": told}, {"step": 1, "reward": 0.123456, "step_time": 1.239, "learning_rate": 1e-3}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    runs = {way: evaluation(["1 + 1 = 2", "5"], [True, False]) for way in ("sampled", "greedy", "greedy, begun")}
    curves = pd.DataFrame({(way, "working"): [0.0, 1 / 3] for way in told} | {(way, "right"): [0.0, 1.0] for way in told}, index=[0, 2])
    return {"train": lambda method, seed, **changed: folder, "measured": lambda folder: (runs, {"bare sums": 0.54321}), "curves": lambda folder: curves,
            "works_first": lambda texts: [float("=" in text) for text in texts], "MEASURES_SEEN": {"working": "working", "right": "lenient"}}


def test_what_is_kept_of_a_training(tmp_path):
    kept = aha.record(names(tmp_path), "full", SEED)
    assert kept["reward"] == [0.1235] and kept["seconds"] == [1.24] and kept["moments"] == [0, 2] and kept["learning_rate"] == 1e-3
    assert kept["curves"]["greedy"]["working"] == [0.0, 0.3333] and kept["losses"] == {"bare sums": 0.5432}
    assert kept["seen"]["sampled"] == {"working": ["1011"], "right": ["0100"]} and kept["replies"]["greedy"] == ["1 + 1 = 2", "5", "1 + 1 = 3"]
    assert kept["after"]["sampled"] == {"layout": 0.0, "strict": 0.0, "lenient": 50.0, "working": 50.0, "tokens": 4.0, "right": "10"}
    assert set(kept["after"]) == {"sampled", "greedy", "greedy, begun"}
    json.dumps(kept)


def test_how_replies_begin_is_counted_at_each_moment_and_probabilities_only_where_they_were_logged():
    def line(*texts, **first):
        return {"answers": {way: [{"text": text} | first for text in texts] for way in ("sampled", "greedy")}}

    kept = aha.openings([line("The answer", "12 + 3"), line("<reasoning>", "The answer"), line("<reasoning>", "<reasoning>")])
    assert kept == {"begins": dict.fromkeys(("sampled", "greedy"), {"The": [1, 1, 0], "<reasoning>": [0, 1, 2]})}
    first = {"The": 0.5, "<reasoning>": 0.12344, "other": 0.25}
    assert aha.openings([line("The", **first)])["first"] == {"The": [0.5], "<reasoning>": [0.1234], "other": [0.25]}


@pytest.mark.parametrize("method, call", [
    ("full", ("full", {})), ("slow", ("full", {"rate": 1e-4, "steps": 96})), ("long", ("full", {"steps": 96})), ("kl", ("full", {"beta": 0.04})), ("lora", ("lora", {}))])
def test_a_varied_training_is_a_full_one_with_its_own_rate_and_steps(tmp_path, method, call):
    seen = []
    cells = names(tmp_path)
    cells["train"] = lambda method, seed, **changed: seen.append((method, seed, changed)) or tmp_path
    assert aha.record(cells, method, SEED)["learning_rate"] == 1e-3
    assert seen == [(call[0], SEED, call[1])]


def test_of_the_base_its_answers_and_losses_are_kept(tmp_path):
    base = SimpleNamespace(eval=lambda: "the base")
    cells = names(tmp_path) | {"model": base, "tokenizer": "its tokenizer", "KEPT": {"bare sums": [1, 2]},
                               "nats": lambda model, tokenizer, pairs: float(len(pairs)), "ask_all": lambda model: {"greedy": evaluation(["5"], [model == "the base"])}}
    kept = aha.record(cells, "none", SEED)
    assert kept["losses"] == {"bare sums": 2.0} and kept["after"]["greedy"]["right"] == "1" and set(kept) == {"after", "losses"}


def test_the_stored_results_are_whole():
    stored = json.loads(aha.RESULTS.read_text("utf-8"))
    assert {"machine", "date", "command", "versions", "model", "watched"} <= set(stored)
    assert [(one["method"], one["seed"]) for one in stored["trainings"]] == [
        (method, SEED + number) for method, count in aha.SEEDS.items() for number in range(count)]
    for one in stored["trainings"]:
        assert all(len(answers["right"]) == 400 and 4 * answers["lenient"] == answers["right"].count("1") for answers in one["after"].values())
        for measures in one.get("curves", {}).values():
            assert all(len(curve) == len(one["moments"]) and 0 <= min(curve) <= max(curve) <= 1 for curve in measures.values())
        for way, measures in one.get("seen", {}).items():
            for measure, lines in measures.items():
                assert [line.count("1") / len(stored["watched"]) for line in lines] == pytest.approx(one["curves"][way][measure], abs=1e-4)
        for counts in one.get("begins", {}).values():
            assert all(len(line) == len(one["moments"]) and 0 <= min(line) <= max(line) <= len(stored["watched"]) for line in counts.values())
        assert ("seen" in one) == ("begins" in one) == (one["method"] != "none") and {"sampled, begun", "greedy, begun"} <= set(one["after"])
    assert len(aha.table(stored["trainings"]).splitlines()) == len(stored["trainings"]) + 1


@pytest.mark.parametrize("changed, embedded, own", [
    ({}, True, "3e-4, 32 steps"), ({"learning_rate": 1e-4, "step": 96}, True, "1e-4, 96 steps"), ({"learning_rate": 1e-4}, True, None), ({"kl": 0.1}, True, None),
    ({}, False, None), ({"rewards/format_reward/mean": None}, True, None)])
def test_the_stored_results_say_when_the_readers_training_is_another(tmp_path, capsys, changed, embedded, own):
    line = {"step": 32, "reward": 1.0, "learning_rate": 3e-4} | {f"rewards/{name}/mean": 0.5 for name in aha_results.PAID} | changed
    (tmp_path / "log.jsonl").write_text(json.dumps({name: value for name, value in line.items() if value is not None}) + "\n")
    base, trained = aha_results.read_trainings(tmp_path, embedded)
    assert len(trained) == 16 and base["method"] == "none"
    assert (f"of the kind {own}\n" if own else "OF NONE OF THESE KINDS") in capsys.readouterr().out
    assert [(title, len(those)) for title, those in aha_results.panels(trained).items()] == [
        ("a look every 2 steps (8 trainings)", 8), ("a look every 6 steps (8 trainings)", 8)]


def one(greedy=(0.0, 0.0, 0.75, 1.0), the=(0.75, 0.5, 0.25, 0.0), layout=90.0, lenient=80.0, **more):
    curves = {way: {"working": list(greedy), "right": list(greedy)} for way in aha_results.BOTH_WAYS}
    after = {way + how: {"lenient": lenient, "layout": layout} for way in aha_results.BOTH_WAYS for how in ("", ", begun")}
    return {"curves": curves, "moments": [0, 2, 4, 6], "after": after, "cost": {"trained": 2_000_000},
            "first": {"The": list(the), "other": [1 - chance for chance in the]}} | more


def test_where_the_first_token_is_overtaken_and_where_the_greedy_replies_flip():
    assert aha_results.flip_of(one()) == 2 and aha_results.overtaken(one()) == (2, 0.5)
    assert aha_results.overtaken(one(the=(1.0, 0.625, 0.125, 0.0)))[1] == pytest.approx(0.5)
    without = one()
    del without["first"]
    assert aha_results.overtaken(without) is None
    counted = one(begins={way: {"The": [4, 4, 1, 0]} for way in aha_results.BOTH_WAYS})
    assert aha_results.opening_gap(counted, questions=4) == 0
    assert aha_results.opening_gap(counted | {"begins": {way: {"The": [4, 1, 1, 0]} for way in aha_results.BOTH_WAYS}}, questions=4) == 3


def test_the_tables_by_kind_leave_out_the_begun_replies_of_trainings_without_the_opening_tag():
    trained = {"3e-4, 96 steps: 1": one(lenient=70.0), "3e-4, 96 steps: 2": one(lenient=60.0, layout=0.0), "1e-4, 96 steps: 1": one(lenient=75.5)}
    table = aha_results.right_by_kind(one(lenient=90.0), trained)
    assert aha_results.tagless(trained) == ["3e-4, 96 steps: 2"]
    assert table.loc["3e-4, 96 steps"].tolist() == ["2 (1)", "2.00", "60.0 to 70.0", "70.0", "60.0 to 70.0", "70.0"]
    assert table.loc["untrained"].tolist() == ["", "", *["90.0"] * 4] and aha_results.low_to_high([]) == "-"
    assert aha_results.gains(trained, "3e-4, 96 steps", "1e-4, 96 steps", "greedy") == {"1": 5.5}
    assert aha_results.told({"1": 5.0, "2": 7.0}) == "1 +5.0, 2 +7.0"


def test_the_five_seeds_are_dated_between_looks():
    curve = np.r_[np.zeros(6), np.ones(6)].tolist()
    later = np.r_[np.zeros(8), np.ones(4)].tolist()
    kept = {"moments": list(range(0, 24, 2)), "curves": {way: {"working": curve, "right": later} for way in aha_results.BOTH_WAYS}}
    dates, delays = aha_results.dated({"3e-4: 1": kept, "LoRA: 1": kept}, "3e-4")
    assert dates.index.tolist() == ["3e-4: 1"] and dates.loc["3e-4: 1", "greedy, working"] == "10 to 12" and delays == {way: [4.0] for way in aha_results.BOTH_WAYS}
    assert aha_results.steps_taken(kept, "greedy") == "<4"
    slow = kept | {"curves": {way: {"working": np.linspace(0, 1, 12).tolist()} for way in aha_results.BOTH_WAYS}, "after": {"sampled": {"layout": 90.0}}}
    table = aha_results.rise_table({"3e-4: 1": slow, "3e-4: 2": kept | {"after": {"sampled": {"layout": 0.0}}}})
    assert table.loc["3e-4", "a look every"] == 2 and table.loc["3e-4", "greedy"].endswith(" <4*") and int(table.loc["3e-4", "sampled"].split()[0]) > 4
