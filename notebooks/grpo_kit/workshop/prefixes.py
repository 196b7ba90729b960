"""Other seeds, rows and starts of a prefix, and GRPO on one: the trainings that chapter 09 compares. `python -m grpo_kit.workshop.prefixes`

Nothing is written twice: the notebook's cells tagged "prefixes" are run here as they stand, and then their `train_adapter`
and `train_by_grpo`. A finished training is a line of notebooks/outputs/09_prefixes/trainings.jsonl, and not run again while
those cells and the model stay the same; killed, the command goes on when it is called again. After each one it writes all into
notebooks/results/prefix_seeds.json, whole, beside what an earlier edition of the chapter stored there.

Expected before they ran, of 200 test problems: (1) a fresh row at each step instead of 300 repeated ones brings the prefix from
about 183 right to at least 188; (2) the start from a text has a lower loss at step 0 than the random one, 0.131, and ends less than
5 problems from it; (3) GRPO raises the mean reward, last five steps against first five, from all three seeds, and the problems
solved by sampled replies by at least 10 on average over the seeds; (4) the three supervised seeds lie within 8 problems;
(5) from a prefix of 80 supervised steps only, the same loop at the same rate raises them by at least 20; (6) on the LoRA of 240
steps, at a tenth of its rate, by less than 10; (7) two more seeds of the LoRA end within four problems of its first, 191, so above
every prefix; (8) asked by sampling, every LoRA solves at least 165 and every prefix at most 145.
"""

import argparse
import datetime
import json
import os
import shutil
import time

from . import bench, cells
from .controls import NOTEBOOKS, fingerprint
from .gpu_check import write
from .prices import code_hash
from .step_cost import ROOT, SEED

CHAPTER, TAG = NOTEBOOKS / "09_sft_prefix.ipynb", "prefixes"
FOLDER, RESULTS = NOTEBOOKS / "outputs/09_prefixes", NOTEBOOKS / "results/prefix_seeds.json"
KIND, SEEDS = "plain prefix", 3
PARTS = [20, 5, 2]  # GRPO's rates that are tried: the supervised rate divided by these
TRIAL, TRIAL_SEED = 8, SEED + 10  # their steps; a seed, and so problems, of their own
TEXT_RATES = [0.01, 0.03, 0.1]  # tried for the prefix that starts from a text
EARLY, LORA_PART = 80, 10  # supervised steps of an early start of GRPO; what GRPO's rate on the LoRA is the supervised one divided by


def jobs_of(steps, trial, grpo_steps):
    """The trainings in their order, dicts without the rates that are chosen on the way."""
    supervised = [{"training": "supervised", "start": "random", "rows": 300, "seed": SEED + number, "steps": steps} for number in range(SEEDS)]
    fresh = [{"training": "supervised", "start": "random", "rows": 8 * steps, "seed": SEED, "steps": steps}]
    text = [{"training": "supervised", "start": "text", "rows": 300, "seed": SEED, "steps": steps}]
    tried = [{"training": "rate, text", "rate": rate, "seed": SEED, "steps": trial} for rate in TEXT_RATES]
    tried_grpo = [{"training": "rate, GRPO", "part": part, "seed": TRIAL_SEED, "steps": TRIAL} for part in PARTS]
    grpo = [{"training": "GRPO", "seed": SEED + number, "steps": grpo_steps} for number in range(1, SEEDS)]  # the chapter trains the first
    controls = [{"training": f"GRPO, {start}", "seed": SEED, "steps": grpo_steps} for start in ("early prefix", "small LoRA")]
    lora = [{"training": "supervised", "adapter": "small LoRA"} | {name: line[name] for name in ("start", "rows", "seed", "steps")}
            for line in supervised[1:]]  # the chapter trains the first
    return supervised[:1] + tried_grpo + fresh + grpo[:1] + tried + text + grpo[1:] + supervised[1:] + controls + lora


def best(lines, training, key, figure):
    """The value of `key` of the finished trial with the best `figure`: RuntimeError where none is finished."""
    found = [line for line in lines if line["training"] == training]
    if not found:
        raise RuntimeError(f"No trial {training!r} is finished: run the whole list.")
    return max(found, key=figure)[key]


def score(names, model, seeds):
    """{"greedy": [in the layout, right], "sampled": the same for each seed, "right": who was right greedily, a digit a problem}."""
    greedy = names["asked"](model, names["test_dataset"])
    drawn = [names["evaluate_with_generate"](model, names["test_dataset"], names["tokenizer"], names["profile"].max_completion_length,
                                             1.0, seed, batch_size=200).rows for seed in seeds]
    pairs = [[int(rows["layout"].sum()), int(rows["lenient"].sum())] for rows in (greedy, *drawn)]
    return {"greedy": pairs[0], "sampled": pairs[1:], "right": "".join("01"[bool(one)] for one in greedy["lenient"])}


def supervised(names, job, rate, ask=True):
    """One supervised training: its losses by step and what its best checkpoint says. The first is kept for GRPO."""
    rows = names["jobs"]["layout"]
    start, few = None, rows[0]
    if job.get("start") == "text":  # of a prompt, the first tokens, as many as the prefix has
        prompt = names["tokenizer"].apply_chat_template(names["dataset"][0]["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        start = names["prefix_of_text"](names["load_base"](), names["tokenizer"].decode(prompt[: names["VIRTUAL"]]))
        if len(start) != names["VIRTUAL"]:
            raise RuntimeError("The text's tokens, written out and read again, are others: choose another text.")
    if job.get("rows", 300) > len(few):
        more = names["dataset"].select(range(340, 340 + job["rows"] - len(few)))
        rows[0] = names["Dataset"].from_list([*few, *map(names["shown_solution"], more)])
    steps = job["steps"]
    every = min(names["SETTINGS"]["every"], steps) if ask else steps
    try:
        state = names["train_adapter"]("layout", job.get("adapter", KIND), rate, steps, every, (), job["seed"], "linear" if ask else "constant_with_warmup", start).state
    finally:
        rows[0] = few
    found = {"rate": rate, "validation": {int(step): round(loss, 4) for step, loss in names["loss_curves"](state.log_history)[1].items()}}
    if not ask:
        return found
    plainly = job["start"] == "random" and job["rows"] == 300
    first = plainly and job["seed"] == SEED
    if first:
        shutil.copytree(state.best_model_checkpoint, names["FOLDER"] / "start", dirs_exist_ok=True)
    return found | score(names, names["load_adapter"](state.best_model_checkpoint), range(SEED, SEED + SEEDS if first else SEED + plainly))


def start_of(names, job):
    """What GRPO goes on from: the first supervised prefix, or a control's start, which is trained here."""
    from peft import PeftModel
    from safetensors.torch import load_file

    if "," not in job["training"] or job["training"].startswith("rate"):
        folder = names["FOLDER"] / "start"
    elif "LoRA" in job["training"]:
        steps, every = names["SETTINGS"]["steps"]["layout"], names["SETTINGS"]["every"]
        state = names["train_adapter"]("layout", "small LoRA", names["rates"]["layout", "small LoRA"], steps, every).state
        return PeftModel.from_pretrained(names["load_base"](), state.best_model_checkpoint, is_trainable=True).eval()
    else:
        folder = names["train_adapter"]("layout", KIND, names["rates"]["layout", KIND], EARLY, EARLY).state.best_model_checkpoint
    return names["plain_prefix"](names["load_base"](), load_file(f"{folder}/adapter_model.safetensors")["prompt_embeddings"]).eval()


def by_grpo(names, job, rate):
    """One training by GRPO: its rewards by step, how far the adapter moved (a share of its norm) and, of a whole one, what it says."""
    policy = start_of(names, job)
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    old = [parameter.detach().clone() for parameter in trained]
    found = {"before": score(names, policy, [job["seed"]])} if job["training"].startswith("GRPO,") else {}
    seen = names["train_by_grpo"](policy, rate, job["seed"], job["steps"])
    moved = sum((new - was).detach().pow(2).sum() for new, was in zip(trained, old)) / sum(was.pow(2).sum() for was in old)
    found |= {"rate": rate, "moved": round(moved.sqrt().item(), 4), "seen": {name: seen[name].round(3).tolist() for name in seen}}
    return found if job["training"].startswith("rate") else found | score(names, policy, [job["seed"]])


def run(names, job, lines):
    """What is kept of one training, a dict for JSON; `lines`: those that are finished."""
    began = time.process_time()
    if job["training"] == "supervised":
        rate = names["rates"]["layout", job.get("adapter", KIND)]
        if job["start"] == "text":
            rate = best(lines, "rate, text", "rate", lambda line: -list(line["validation"].values())[-1])
        found = supervised(names, job, rate)
    elif job["training"] == "rate, text":
        found = supervised(names, job | {"start": "text"}, job["rate"], ask=False)
    else:
        part = job.get("part") or best(lines, "rate, GRPO", "part", lambda line: sum(line["seen"]["reward"][-4:]))
        lora = "LoRA" in job["training"]
        found = by_grpo(names, job, names["rates"]["layout", "small LoRA" if lora else KIND] / (LORA_PART if lora else part))
    return found | {"date": datetime.date.today().isoformat(), "cpu seconds": round(time.process_time() - began)}


def in_order(jobs, lines):
    """The finished ones of the jobs, in the jobs' order, whenever they were run."""
    same = [[line for line in lines if job.items() <= line.items() and line.get("adapter") == job.get("adapter")] for job in jobs]
    return [found[0] for found in same if found]


def store(profile, kind, lines):
    """Writes the finished trainings into the results, whole."""
    stored = json.loads(RESULTS.read_text("utf-8"))
    stored["profiles"][profile]["trainings"] = {
        "command": "python -m grpo_kit.workshop.prefixes", "machine": bench.machine(), **kind,
        "lines": [{name: line[name] for name in line if name not in kind} for line in lines]}
    write(RESULTS, stored)


def main():
    parser = argparse.ArgumentParser(prog="python -m grpo_kit.workshop.prefixes", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, help="other than the chapter's, of every training, and few questions: a trial, which leaves results/ as it is")
    options = parser.parse_args()
    from grpo_kit import FastLanguageModel  # noqa: F401  before trl and transformers

    from grpo_kit.training.resume import only_one, read_log
    from .laptop import ask_left

    os.chdir(NOTEBOOKS)  # the profile names its folders from there
    names = cells.run(CHAPTER, TAG)
    settings, folder = names["SETTINGS"], FOLDER / "trial" if options.steps else FOLDER
    names["FOLDER"], file = folder, folder / "trainings.jsonl"  # the checkpoints lie beside the lines
    kind = {"code": code_hash(source for _, source in cells.tagged(CHAPTER, TAG)), "model": fingerprint(names["profile"].model)}
    jobs = jobs_of(settings["steps"]["layout"], settings["trial"], settings["grpo"][0])
    if options.steps:
        jobs, names["test_dataset"] = [job | {"steps": options.steps} for job in jobs], names["test_dataset"].select(range(8))
    with only_one(folder):
        for job in jobs:
            ask_left(file, [kind | job], lambda job: run(names, job, [line for line in read_log(file) if kind.items() <= line.items()]))
            if not options.steps:
                store(names["profile"].name, kind, in_order(jobs, [line for line in read_log(file) if kind.items() <= line.items()]))
    print(f"{len(jobs)} trainings are in {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
