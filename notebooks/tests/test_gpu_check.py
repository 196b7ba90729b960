"""`make gpu-check` as far as it needs no GPU: its parts on small stand-ins, its table from stored figures."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from grpo_kit.workshop import bench, gpu_check, gpu_steps

STORED = json.loads((gpu_check.ROOT / "notebooks/results/gpu_check_nvidia_h100_80gb_hbm3.json").read_text("utf-8"))
SMALL = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, vocab_size=1280)


@pytest.fixture
def out(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_check, "OUT", tmp_path)
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path.parent)
    return tmp_path


# --- the command ---


def test_every_notebook_is_a_part():
    notebooks = sorted(file.name[:2] for file in (gpu_check.ROOT / "notebooks").glob("*.ipynb"))
    assert sorted(set(gpu_check.PARTS) - set(gpu_check.STEPS)) == notebooks


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_stops_with_one_sentence(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu_check"])
    with pytest.raises(SystemExit) as stop:
        gpu_check.main()
    assert str(stop.value).count("\n") == 0 and "CUDA GPU" in str(stop.value) and "run it on one that has" in str(stop.value)


@pytest.mark.parametrize("arguments, code, says", [
    (["--help"], 0, "--minutes"),
    (["--parts", "02", "99"], 2, "invalid choice: '99'"),
    (["--minutes", "ten"], 2, "invalid float value"),
])
def test_arguments(monkeypatch, capsys, arguments, code, says):
    monkeypatch.setattr(sys, "argv", ["gpu_check", *arguments])
    with pytest.raises(SystemExit) as stop:
        gpu_check.main()
    assert stop.value.code == code and says in "".join(capsys.readouterr())


@pytest.mark.parametrize("at_once", [1, 3])
def test_parts_run_in_their_order_the_chapters_beside_each_other_and_each_is_written_down(out, monkeypatch, capsys, at_once):
    began, running, most = [], set(), {"chapters": 0, "others": 0}
    file = out.parent / "notebooks/results/gpu_check_a_card.json"

    def watched(name, seconds, asked):
        began.append(name)
        running.add(name)
        kind = "chapters" if name in gpu_check.CHAPTERS else "others"
        most[kind] = max(most[kind], len(running))
        time.sleep(0.2)
        running.remove(name)
        return {"ended": f"{name} with {asked} at once, {seconds > 50}"}

    monkeypatch.setattr(gpu_check, "watched", watched)
    monkeypatch.setattr(gpu_check, "machine", lambda: {"gpu": "A Card!", "driver": "580"})
    monkeypatch.setattr(gpu_check.metadata, "version", lambda name: "1.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    chosen = ["06", "engine", "02", "00", "03", "vllm"]
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--minutes", "1", "--at-once", str(at_once), "--parts", *chosen])
    gpu_check.main()
    assert began[:3] == ["engine", "00", "vllm"] and sorted(began[3:]) == ["02", "03", "06"]
    assert most == {"chapters": at_once, "others": 1}
    report = json.loads(file.read_text("utf-8"))
    assert report["machine"]["gpu"] == "A Card!" and report["command"] == "make gpu-check ARGS='" + " ".join(sys.argv[1:]) + "'"
    assert list(report["parts"]) == ["00", "engine", "vllm", "02", "03", "06"]
    assert report["parts"]["02"]["ended"] == f"02 with {at_once} at once, True"
    assert "saved as notebooks/results/gpu_check_a_card.json" in capsys.readouterr().out


def test_the_table_of_the_stored_figures():
    text = gpu_check.table(STORED["parts"])
    assert "00        46 of 46 cells, 372 s, 0 errors\n" in text
    assert re.search(r"test +lenient +30\.8 % \[26\.4, 35\.4\] -> +57\.5 %", text)
    assert "planned 13.8 sampling, 4.9 training; measured 13.6, 5.0: the plan is 101%, 96%" in text
    [engine] = re.findall(r"^engine +640 +(.*)$", text, flags=re.M)
    assert engine.split() == ["65.4", "10.5", "8.6", "1.9", "978"]  # 16 completions of 640 tokens in 10.47 s
    assert "vllm      failed: No module named 'flashinfer'" in text


def test_the_table_of_parts_that_were_cut_off():
    parts = {"engine": {"load": 3.0, "ended": "cut off: the minutes were over"}, "02": {"ended": "not begun: no time was left"},
             "03": {"cells": 9, "run": 4, "seconds": 7.0, "errors": {"5": "ValueError: no"}}}
    assert gpu_check.table(parts).splitlines() == [
        "engine    ready after 3 s", "engine    cut off: the minutes were over", "02        not begun: no time was left",
        "03        4 of 9 cells, 7 s, 1 errors; cell 5: ValueError: no"]


# --- a part in its process ---


def stand_in(monkeypatch, code):
    """Makes a part run `code`, with the file of its figures as sys.argv[1]."""
    def start(command, seconds, **options):
        name = command[command.index("--run") + 1]
        return bench.start([sys.executable, "-c", code, str(gpu_check.OUT / f"{name}.json")], seconds, **options)

    monkeypatch.setattr(gpu_check, "start", start)
    monkeypatch.setattr(gpu_check, "LEAST", 0)


WRITE = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text('{\"cells\": 3}')\n"


@pytest.mark.parametrize("code, seconds, ended", [
    (WRITE, 60, None),
    (WRITE + "import time; time.sleep(60)", 1, "cut off: the minutes were over"),
    (WRITE + "raise ValueError('no kernel for this card')", 60, "failed: ValueError: no kernel for this card (all of it: "),
    ("import os; os.kill(os.getpid(), 9)", 60, "failed: "),
])
def test_a_part_that_ends_early_keeps_what_it_had(out, monkeypatch, code, seconds, ended):
    stand_in(monkeypatch, code)
    (out / "02.json").write_text('{"old": 1}')  # of the run before
    figures = gpu_check.watched("02", seconds)
    assert figures.get("cells") == (3 if code.startswith(WRITE) else None) and "old" not in figures
    assert figures["ended"].startswith(ended) if ended else "ended" not in figures


def test_a_part_without_time_is_not_begun(out):
    assert gpu_check.watched("02", gpu_check.LEAST - 1) == {"ended": "not begun: no time was left"}
    assert not list(out.iterdir())


def test_figures_are_added_and_never_half_written(out):
    gpu_check.save("02", {"a": 1})
    gpu_check.save("02", {"b": [2]})
    assert json.loads((out / "02.json").read_text()) == {"a": 1, "b": [2]} and [f.name for f in out.iterdir()] == ["02.json"]


# --- notebooks ---


def notebook(folder, *sources):
    written = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("#"), *map(nbformat.v4.new_code_cell, sources)])
    nbformat.write(written, folder / "source.ipynb")
    return folder / "source.ipynb"


def test_a_notebook_goes_on_after_an_error_and_ends_after_three(tmp_path):
    source = notebook(tmp_path, "import os; print(os.getcwd())", "1 / 0", "print('on')", "x", "y", "print('never')")
    kept = {}
    gpu_check.run_notebook(source, tmp_path / "executed.ipynb", tmp_path / "outputs", kept.update)
    assert kept["cells"] == 6 and kept["run"] == 5
    assert list(kept["errors"]) == [2, 4, 5] and kept["errors"][2] == "ZeroDivisionError: division by zero"
    _, *cells = nbformat.read(tmp_path / "executed.ipynb", 4).cells
    assert cells[0].outputs[0].text == f"{tmp_path / 'outputs'}\n" and cells[2].outputs[0].text == "on\n" and not cells[5].outputs


def test_a_copy_has_its_own_share_and_no_outputs(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_check, "OUT", tmp_path)
    copy = gpu_check.copied("02", 0.1)
    of_copy, here = ((root / "notebooks/grpo_kit/machine/profile.py").read_text("utf-8") for root in (copy, gpu_check.ROOT))
    assert of_copy != here and of_copy.replace('name="embedded", gpu_memory_utilization=0.1, ', 'name="embedded", ') == here  # and no other profile
    assert (copy / "data/tiny-model/model.safetensors").is_file() and not (copy / "notebooks/outputs").exists()
    assert (gpu_check.copied("02") / "notebooks/grpo_kit/machine/profile.py").read_text("utf-8") == here


def test_half_a_copy_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_check, "OUT", tmp_path)
    monkeypatch.setattr(gpu_check.shutil, "copy", lambda *files: 1 / 0)  # killed after the folders
    with pytest.raises(ZeroDivisionError):
        gpu_check.copied("02")
    assert not (tmp_path / "copy-02").exists()


def test_before_and_after_come_from_the_completions(tmp_path):
    for split in ("test", "held_out"):
        for when, right in (("before", [True, False, False]), ("after", [True, True, True])):
            rows = [{"prompt": str(n), "layout": r, "strict": r, "lenient": r, "truncated": False, "length": 4} for n, r in enumerate(right)]
            file = tmp_path / f"grpo_evaluation/{split}_{when}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps({"rows": rows}))
    strict = gpu_check.comparison(tmp_path)["held_out"]["strict"]
    assert strict["before"].startswith("33.3 %") and strict["after"].startswith("100.0 %") and (strict["gained"], strict["lost"]) == (2, 0)


# --- the shape and its steps ---


def test_the_shape_is_made_once_and_can_sample_known_tokens_only(tmp_path):
    (tmp_path / "shape.part").mkdir()  # left by a run that was ended
    gpu_steps.make_shape(tmp_path / "shape", "cpu", SMALL)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path / "shape"), AutoTokenizer.from_pretrained(tmp_path / "shape")
    assert model.config.hidden_size == 64 and model.config.eos_token_id == tokenizer.eos_token_id
    logits = model(**tokenizer("2 + 3 =", return_tensors="pt")).logits[0, -1].float()
    assert logits[len(tokenizer) :].abs().max() == 0 and logits.argmax() < len(tokenizer) < len(logits)
    saved = (tmp_path / "shape/model.safetensors").stat().st_mtime_ns
    gpu_steps.make_shape(tmp_path / "shape", "cpu", SMALL)
    assert (tmp_path / "shape/model.safetensors").stat().st_mtime_ns == saved and not (tmp_path / "shape.part").exists()


def test_training_is_what_a_step_does_beside_the_rollout():
    class Trainer:
        state = SimpleNamespace(log_history=[{"step_time": t, "completions/mean_length": 8.0} for t in (9.0, 5.0, 6.0)] + [{"train_runtime": 1}])
        calls = 0

        def _generate_single_turn(self):
            self.calls += 1

        def _generate_and_score_completions(self):
            self._generate_single_turn()
            time.sleep(0.3)

        def training_step(self):
            self._generate_and_score_completions()

        def train(self):
            for _ in range(3):
                self.training_step()

    figures = gpu_steps.measure(trainer := Trainer())
    assert trainer.calls == 3 and figures["first step"] == 9.0 and figures["step"] == [5.0, 6.0]
    assert len(figures["generate"]) == 2 and figures["training"] == pytest.approx([4.7, 5.7], abs=0.1)
    assert gpu_steps.spread_reward(["a"] * 4) == [0.0, 1.0, 2.0, 0.0]


def test_the_engines_part_on_a_small_shape(tmp_path):
    """All of it with the CPU's engine: what a GPU would change is the classes that Unsloth gives."""
    code = f"""if True:
        import json, sys
        from grpo_kit.workshop import gpu_steps
        kept = {{}}
        gpu_steps.make_shape(sys.argv[1], "cpu", {SMALL})
        gpu_steps.engine(sys.argv[1], kept.update, lengths={{24: 3}}, prompts=[2, 5])
        print("\\n" + json.dumps(kept))"""
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "shape"], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    kept = json.loads(run.stdout.splitlines()[-1])
    assert kept["tokens/s of so many prompts"].keys() == {"2", "5"} and kept["24 tokens"]["tokens a completion"] == 24
    assert kept["24 tokens"]["peak, GB"]["generate"] > 0 and len(kept["24 tokens"]["step"]) == 2
    assert min(kept["24 tokens"]["training"]) > 0 and kept["plan, GB"]["sampling"] > 9.6  # 0.6 of 16 GB, and the rest
