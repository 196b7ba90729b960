"""`make laptop`: the rows that are shown, and that a killed command goes on without losing or repeating anything."""

import json

import pytest

from grpo_kit.data import shown_solution
from grpo_kit.workshop import laptop
from grpo_kit.workshop.step_cost import SEED

JOBS = [{"stage": "SFT", "split": "test", "way": way} for way in ("sampled", "greedy")]


def test_a_solution_is_shown_in_the_asked_layout():
    row = {"prompt": ["p"], "solution": "3 * 4 = <<3*4=12>>12 pens\n12 - 5 = <<12-5=7>>7 pens\n#### 7", "answer": "7"}
    shown = shown_solution(row)
    assert shown["prompt"] == ["p"]
    assert shown["completion"][0]["content"] == "<reasoning>\n3 * 4 = 12 pens\n12 - 5 = 7 pens\n</reasoning>\n<answer>\n7\n</answer>"


def test_what_is_shown_is_paid_in_full():
    from grpo_kit.rewards import correctness_reward, format_reward, integer_reward, tag_reward

    row = {"prompt": [], "solution": "1,000 - 5 = <<1000-5=995>>995 pens\n#### 995", "answer": "995"}
    completions, columns = [shown_solution(row)["completion"]], {"prompts": [[]], "answer": ["995"]}
    assert all(reward(completions=completions, **columns)[0] > 0 for reward in (correctness_reward, format_reward, tag_reward, integer_reward))


def test_a_question_that_was_asked_is_not_asked_again(tmp_path):
    asked, file = [], tmp_path / "asked.jsonl"

    def ask(job):
        asked.append(job["way"])
        if len(asked) == 2:
            raise KeyboardInterrupt
        return {"lenient": 1.5}

    with pytest.raises(KeyboardInterrupt):
        laptop.ask_left(file, JOBS, ask)
    with open(file, "a") as lines:
        lines.write('{"stage": "SFT", "sp')  # killed while it wrote
    laptop.ask_left(file, JOBS, ask)
    assert asked == ["sampled", "greedy", "greedy"]
    assert [json.loads(line) for line in file.read_text().splitlines()] == [job | {"lenient": 1.5} for job in JOBS]


def test_what_the_seeds_found_is_collected_and_shown(tmp_path):
    for number, share in enumerate((10.0, 20.0)):
        folder = tmp_path / str(SEED + number)
        folder.mkdir()
        lines = [{"stage": stage, "split": "test", "way": "greedy", "lenient": share} for stage in laptop.STAGES[number:]]
        (folder / "asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        log = [{"step": 0, "answers": None}, {"step": 1} | dict.fromkeys(laptop.LOGGED, 0.123456)]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    asked, logs = laptop.collected(tmp_path, [SEED, SEED + 1])
    assert len(asked) == 5 and [(line["seed"], line["reward"]) for line in logs] == [(SEED, 0.1235), (SEED + 1, 0.1235)]
    shown = laptop.table(asked).splitlines()
    assert shown[1].split() == ["test,", "greedy"]
    assert [" ".join(line.split()) for line in shown[2:]] == ["before 10.0 (10.0)", "SFT 15.0 (10.0, 20.0)", "GRPO 15.0 (10.0, 20.0)"]
