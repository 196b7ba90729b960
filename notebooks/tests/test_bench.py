"""What the benchmarks compute and print, on canned figures and a tiny model; nothing is timed here."""

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch

from grpo_kit.workshop import bench, growth, step_cost

ROOT = Path(__file__).resolve().parents[2]
FIGURES = {  # as `step_cost.measure` and `floors` give them, of two steps
    "step": [1.0, 3.0],
    "generate": [0.5, 0.7],
    "log-probs": [0.2, 0.4],
    "backward": [0.3, 0.3],
    "tokens a completion": [10, 20, 60],
    "threads": [2, 1],
    "peak memory, GB": [2.0],
    "GEMM rate, GFLOP/s": [100.0],
    "floor, prompts once": [0.25, 0.25],
    "floor, prompts each": [0.5, 0.5],
}
OFF = {"log-probs off, mean": [2e-7], "log-probs off, max": [3e-5]}


def row(text, label):
    """The cells of the row called `label`, by column."""
    head, *lines = text.splitlines()
    line = next(line for line in lines if line.startswith(label))
    cells = [line[26 + 12 * i : 38 + 12 * i].strip() for i in range(len(head.split()))]
    return dict(zip(head.split(), cells, strict=True))


# --- bench: figures and table ---


def test_a_summary_joins_the_rounds():
    second = {figure: [2 * value for value in values] for figure, values in (FIGURES | OFF).items()}
    numbers = bench.summary([FIGURES | OFF, second])
    assert numbers["step"] == 2.5 and numbers["steps"] == [1.0, 3.0, 2.0, 6.0]
    assert numbers["tokens a completion"] == 45  # a mean, where the median would be 30
    assert numbers["peak memory, GB"] == 4.0 and numbers["log-probs off, max"] == 6e-5  # the largest
    assert numbers["completions/s"] == 128 / 2.5


def test_the_table_compares_each_configuration_with_what_it_is_to_be_compared_with():
    steps = {"stock": 6.0, "float32": 12.0, "ours": 1.5, "busy": 3.0, "twin": 2.25, "bf16": 1.0}
    results = {name: bench.summary([FIGURES | {"step": [step]} | ({} if step > 5 else OFF)]) for name, step in steps.items()}
    text = bench.table(results)
    assert row(text, "step, s") == {name: f"{step:.2f}" for name, step in steps.items()}
    faster = {"stock": "1.0", "float32": "0.5", "ours": "4.0", "busy": "", "twin": "", "bf16": "6.0"}
    assert row(text, "times faster than stock") == faster
    nothing = dict.fromkeys(steps, "")
    assert row(text, "times its time alone") == nothing | {"busy": "2.00", "twin": "1.50"}
    assert row(text, "log-probs off by, mean") == nothing | {"ours": "2.0e-07", "bf16": "2.0e-07"}
    assert row(text, "log-probs off by, max") == nothing | {"ours": "3.0e-05", "bf16": "3.0e-05"}
    assert row(text, "  step over it")["ours"] == "6.0" and row(text, "floor, prompts once, s")["twin"] == ""


def test_the_table_has_no_bf16_where_the_cpu_has_none():
    results = {name: bench.summary([FIGURES | OFF]) for name in bench.ORDER if name != "bf16"}
    assert "bf16" not in bench.table(results) and bench.table(results).splitlines()[0].split() == list(results)


class Tiny(torch.nn.Module):
    """One attention and one MLP product, 8 to 8 and 8 to 12, an adapter of rank 2 on the first, a head of 10; named as PEFT's."""

    config = types.SimpleNamespace(num_hidden_layers=1, num_attention_heads=2, head_dim=4)

    def __init__(self):
        super().__init__()
        names = {"q_proj.base_layer": (8, 8), "q_proj.lora_A": (8, 2), "q_proj.lora_B": (2, 8), "up_proj": (8, 12), "lm_head": (8, 10)}
        self.q_proj = torch.nn.Module()
        for name, (inner, outer) in names.items():
            owner, _, own = name.rpartition(".")
            self.get_submodule(owner).add_module(own, torch.nn.Linear(inner, outer, bias=False).requires_grad_("lora" in name))

    def get_base_model(self):
        return self


def test_the_layers_counted_are_the_frozen_ones():
    found = [(name, m.in_features, m.out_features) for name, m in step_cost.linear_layers(Tiny())]
    assert sorted(found) == [("lm_head", 8, 10), ("q_proj", 8, 8), ("up_proj", 8, 12)]


def test_a_steps_flops_are_those_counted_by_hand():
    linear, adapter, head = 8 * 8 + 8 * 12, 8 * 2 + 2 * 8, 8 * 10
    # A prompt of 4 tokens and completions of 2 and 3. A completion's token attends to the prompt and half of its completion.
    completions = (4 * 2 + 2 * 2 / 2) + (4 * 3 + 3 * 3 / 2)
    for share, fed, seen in ((True, 4 + 2 + 3, 4 * 4 / 2 + completions), (False, 4 + 4 + 2 + 3, 2 * 4 * 4 / 2 + completions)):
        products = 3 * (linear * fed + head * 5)  # generate, score, and the gradient of the activations
        products += (1 + 2) * adapter * fed  # score, and the gradients of the activations and of the adapter
        attention = (1 + 1 + 2) * (2 * 8 * seen)  # queries by keys, and by values: 8 numbers each; the gradient has two of each
        assert step_cost.step_flops(Tiny(), [(4, [2, 3])], share) == 2 * (products + attention)


# --- bench: processes ---


def wait_for(happened, seconds=10):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def gone(pid):
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"  # ended, and perhaps not waited for


def test_the_busy_process_ends_with_its_parent():
    code = "import time; from grpo_kit.workshop import bench\nwith bench.neighbour('busy', []): print('runs', flush=True); time.sleep(60)"
    env = os.environ | {"PYTHONPATH": str(ROOT / "notebooks")}
    parent = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
    try:
        parent.stdout.readline()
        (busy,) = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        assert not gone(busy) and "while True" in Path(f"/proc/{busy}/cmdline").read_text()
    finally:
        parent.kill()  # no finally runs in it
        parent.wait()
    wait_for(lambda: gone(busy))


def test_the_busy_process_ends_by_its_bound():
    busy = bench.start(bench.BUSY, 1)
    try:
        assert busy.wait(20) == -signal.SIGALRM
    finally:
        busy.kill()


def test_the_neighbour_is_killed_after_its_run_whatever_happens():
    with pytest.raises(KeyboardInterrupt), bench.neighbour("busy", []):
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        busy = next(pid for pid in children if "while True" in Path(f"/proc/{pid}/cmdline").read_text())
        raise KeyboardInterrupt
    assert gone(busy)


def test_alone_nothing_runs_beside():
    before = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    with bench.neighbour("ours", ["nothing that could be run"]):
        assert Path(f"/proc/self/task/{os.getpid()}/children").read_text() == before


def test_the_twin_is_past_its_warm_up_and_its_early_end_is_told():
    code = "import time; time.sleep(0.3); print({'step_time': 1}, flush=True); time.sleep(0.7)"
    began = time.monotonic()
    with pytest.raises(SystemExit, match="(?s)step_time.*'twin' ended too early"):
        with bench.neighbour("twin", [sys.executable, "-c", code]):
            assert time.monotonic() - began > 0.3
            time.sleep(1)


def test_a_failed_run_shows_its_errors():
    with pytest.raises(SystemExit, match="(?s)no such thing.*ended with 3"):
        bench.result([sys.executable, "-c", "import sys; print('no such', 'thing', file=sys.stderr); sys.exit(3)"])
    assert bench.result([sys.executable, "-c", "print('noise'); print([1])"]) == [1]


# --- growth ---


def curve(power, sizes=(32, 64, 128), threads=10**6):
    return [{"size": n, "step": 0.01 * n**power, "memory": 2.0 * n**0.1, "threads": threads, "seconds": 5.0} for n in sizes]


def test_the_exponent_is_the_slope_of_the_logarithms():
    assert growth.exponent(curve(1.5), "step") == pytest.approx(1.5) and growth.exponent(curve(1.5), "memory") == pytest.approx(0.1)
    crooked = [{"size": 1, "step": 1.0}, {"size": 2, "step": 4.0}, {"size": 4, "step": 4.0}]
    assert growth.exponent(crooked, "step") == pytest.approx(1)  # least squares; from end to end too
    crooked[1]["size"] = 1
    assert growth.exponent(crooked, "step") == pytest.approx(0.5)
    assert growth.exponent(curve(1, [32]), "step") is None


def test_a_curve_is_shown_with_its_exponents():
    assert growth.curve_text("completions", curve(1)).splitlines() == [
        "completions a step           32       64      128",
        "  step, s                  0.32     0.64     1.28   grows as completions^1.00",
        "  peak memory, GB          2.83     3.03     3.25   grows as completions^0.10",
    ]
    assert "grows" not in growth.curve_text("completions", curve(1, [32]))


def test_a_curve_steeper_than_linear_is_named_where_linear_is_expected():
    assert "STEEPER THAN LINEAR: step against tokens a completion, exponent 1.20." in growth.curve_text("length", curve(1.2))
    assert "STEEPER" not in growth.curve_text("length", curve(1.09))
    assert "STEEPER" not in growth.curve_text("parameters", curve(1.2))
    wide = [point | {"memory": 1e-3 * point["size"] ** 2} for point in curve(1)]
    assert "STEEPER THAN LINEAR: peak memory against completions a step, exponent 2.00." in growth.curve_text("completions", wide)


def test_a_curve_beside_others_is_called_that():
    assert "Others used the cores" not in growth.curve_text("threads", curve(-1, [1, 2]))
    disturbed = [point | {"threads": 1} for point in curve(-1, [1, 2])]
    assert "Others used the cores" in growth.curve_text("threads", disturbed)
    assert "Others used the cores" not in growth.curve_text("threads", disturbed[:1])


def test_a_point_that_would_take_too_long_is_left_out_with_a_sentence():
    last = curve(1)[-1]  # 128 took 5 s
    assert growth.too_long("completions", 256, last, 10.5) == ""
    expected = "completions: 256 left out, it would take 10 s and 9 s are left."
    assert growth.too_long("completions", 256, last, 9.0) == expected
    assert "it would take 30 s" in growth.too_long("parameters", 256, last, 25, start=20)


def test_points_of_a_process_each_stop_where_the_time_ends(monkeypatch):
    asked = []

    def part(name, sizes, seconds):
        asked.append(sizes[0])
        return [{"size": sizes[0], "seconds": {1: 20, 4: 60}[sizes[0]]}], []

    monkeypatch.setattr(growth, "part", part)
    found, sentences = growth.curve("parameters")
    assert asked == [1, 4] and [point["size"] for point in found] == [1, 4]
    assert len(sentences) == 1 and sentences[0].startswith("parameters: 15 left out")


def test_all_parts_together_fit_into_ten_minutes():
    assert set(growth.SECONDS) == {*growth.SIZES, "long run", "rounds"} and sum(growth.SECONDS.values()) < 600


HELD = [{"threads": 9, "memory": 1.0, "engine": False}] * 3


@pytest.mark.parametrize(
    "memory, rounds, holds, words",
    [
        ([1.0] * 49 + [2.0] * 251, HELD, [True, True], ["2.00 GB after step 50, 2.00 GB after step 300, +0.0 %", "0 engines"]),
        ([2.0] * 299 + [2.11], HELD, [False, True], ["+5.5 % (bar 5 %)", "9 threads and 1.00 GB"]),
        ([2.0] * 299 + [1.5], HELD, [True, True], ["-25.0 %", "0 engines"]),
        ([2.0] * 20, HELD, [True, True], ["after step 20, +0.0 % (bar 5 %). There was no time for 300 steps.", "0 engines"]),
        ([2.0] * 300, [*HELD[:2], HELD[2] | {"threads": 48}], [True, False], ["+0.0 %", "48 threads"]),
        ([2.0] * 300, [HELD[0] | {"engine": True}] * 3, [True, False], ["+0.0 %", "3 engines stayed behind"]),
    ],
)
def test_what_must_hold_is_judged(memory, rounds, holds, words):
    found = growth.held(memory, rounds)
    assert [h for h, _ in found] == holds
    assert all(word in sentence for word, (_, sentence) in zip(words, found, strict=True)), found


def test_the_picture_has_two_panels_a_curve_and_is_whole(tmp_path):
    growth.draw({"completions": curve(1), "threads": curve(-0.5, [1])}, tmp_path / "growth.png")
    assert [file.name for file in tmp_path.iterdir()] == ["growth.png"]
    assert (tmp_path / "growth.png").read_bytes()[:4] == b"\x89PNG"


def test_a_report_says_what_it_was_measured_with(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    bench.save("growth.json", "python -m grpo_kit.workshop.growth", {"curves": {}})
    assert [file.name for file in (tmp_path / "outputs").iterdir()] == ["growth.json"]
    report = json.loads((tmp_path / "outputs/growth.json").read_text())
    assert {"machine", "date", "seed", "versions", "command", "environment", "results"} == set(report)
    assert "cores" in report["machine"] and "torch" in report["versions"]
    assert "saved as outputs/growth.json" in capsys.readouterr().out
