"""Which GRPO? `make variants`: the methods of grpo_kit.training.variants over seeds, in two regimes, for chapter 12.

Each training is short and belongs to one of these stages:

- rate: each method at three learning rates, on a seed of their own. The rate with the most right and paid answers in the last
  quarter of its curve is the method's own from there on; nothing is asked of the test sets.
- main: each method at that rate, ten seeds, with one update on a generation and with four.
- control: one method again, paid by a coin (random), or for the layout alone (layout).
- data: the same method on questions chosen or ordered by how often the untrained model got them right (difficulty: one line).
- check: what the first results asked for, and nobody planned: two methods at the rate that their one seed of "rate" put second,
  and two at a rate below the three that "rate" tried, since the lowest of those had been chosen for most.
- halves: TRL's default with half of GRPO's divisor, to see which half keeps GRPO from learning the layout.
- later: what the results with four updates asked for. Each reward alone at the rate of all others; TRL's default without a clip.

A seed sets the adapter's first weights, the order of the questions and the sampled tokens. Adapters of all stages but "rate" are
asked 200 questions of each test set, sampled at temperature 1, from the same seeds for all, and greedily.

Ray schedules the trainings, each on a core, in workers that load model and engine once. `--address` names a Ray cluster that is
running already; its machines need this repository at the same path, with its .venv. A finished training is a line of
notebooks/results/variants.jsonl, written at once; the same command goes on with those that have none.
"""

import argparse
import datetime
import json
import os
import time

from grpo_kit.machine.profile import choose_profile
from grpo_kit.machine.threads import cores
from grpo_kit.training.variants import GENERATIONS, HALVES, METHODS, UNCLIPPED
from . import bench
from .controls import fingerprint
from .step_cost import ROOT, SEED
from .trainings import Trainings

NOTEBOOKS = ROOT / "notebooks"
FOLDER, RESULTS = NOTEBOOKS / "outputs/variants", NOTEBOOKS / "results/variants.jsonl"
RATES = {1: [3e-3, 6e-3, 1.2e-2], 4: [1.5e-3, 3e-3, 6e-3]}  # by the number of updates on each generation
SEEDS, FEW_SEEDS, RATE_SEEDS = range(1, 11), range(1, 6), [101]  # of main; of control and data; of rate
PLAIN = "no deviation"  # the method of the controls and of the questions chosen by difficulty: the quickstart's
CONTROLS, DATA = ["random", "layout"], ["any", "neither all nor none", "easy first", "hard first"]
CLOSEST = ["GRPO", "GSPO"]  # with four updates these two come first: a prediction of the chapter is about them
CHECKS = [("GRPO", 6e-3, FEW_SEEDS), (PLAIN, 3e-3, SEEDS),  # is GRPO's rate to blame? and no deviation at the rate of its neighbours
          ("GRPO", 1.5e-3, FEW_SEEDS), ("TRL's default", 1.5e-3, FEW_SEEDS)]  # was the ladder of rates too high?
LATER = [("each reward alone", 4, 1.5e-3, SEEDS), *[(method, 4, 1.5e-3, FEW_SEEDS) for method in UNCLIPPED]]
NAMES = ["stage", "method", "updates", "rate", "seed", "reward", "data"]


def best_rates(lines):
    """{(method, updates): its best rate} of those whose rates have all been tried; of equally good ones the lowest."""
    found = {}
    for line in lines:
        if line["stage"] == "rate":
            end = line["curve"]["strict"][-max(1, len(line["curve"]["strict"]) // 4) :]
            found.setdefault((line["method"], line["updates"]), {}).setdefault(line["rate"], []).append(sum(end) / len(end))
    whole = {key: tried for key, tried in found.items() if sum(map(len, tried.values())) == len(RATES[key[1]]) * len(RATE_SEEDS)}
    return {key: max(sorted(tried), key=lambda rate: sum(tried[rate])) for key, tried in whole.items()}


def jobs(lines, kind):
    """Every training, in the order in which they are run; those wait that need a rate, or the difficulty, that no line holds yet.

    `kind`: what tells these trainings from others in the file. A job is a dict that its line begins with.
    """
    rates, measured = best_rates(lines), any(line["stage"] == "difficulty" for line in lines)

    def job(stage, method=PLAIN, updates=1, rate=None, seed=SEED, reward="full", data="any"):
        return dict(zip(NAMES, (stage, method, updates, rate, seed, reward, data))) | kind

    def at_best(stage, seed, methods=(PLAIN,), updates=1, **changes):
        return [job(stage, method, updates, rates[method, updates], seed, **changes) for method in methods if (method, updates) in rates]

    def tried(updates, methods):
        return [job("rate", method, updates, rate, seed) for seed in RATE_SEEDS for method in methods for rate in RATES[updates]]

    planned = [job("base"), job("difficulty")] + tried(1, METHODS)
    for seed in SEEDS:
        planned += at_best("main", seed, METHODS)
        planned += [one for reward in CONTROLS for one in at_best("control", seed, reward=reward) if seed in FEW_SEEDS]
    planned += [one for seed in FEW_SEEDS for data in DATA if measured for one in at_best("data", seed, data=data)]
    planned += [job("check", method, 1, rate, seed) for method, rate, seeds in CHECKS for seed in seeds if rates]
    for methods in (CLOSEST, [method for method in METHODS if method not in CLOSEST]):
        planned += tried(4, methods) + [one for seed in SEEDS for one in at_best("main", seed, methods, 4)]
    alone, unclipped = ([job("later", method, updates, rate, seed) for seed in seeds] for method, updates, rate, seeds in LATER)
    halves = [job("halves", method, 1, rates["GRPO", 1], seed) for seed in SEEDS for method in HALVES if ("GRPO", 1) in rates]
    return planned + alone + halves + unclipped


def next_jobs(lines, kind, running=()):
    """Those of `jobs` that have no line and are not among `running`."""
    return [job for job in jobs(lines, kind) if job not in running and not any(job.items() <= line.items() for line in lines)]


def sweep(file, kind, workers, wait, until=float("inf")):
    """Gives each of `workers` one training after another until none is left, and writes each one's line to `file` at once.

    `workers`: functions of (job, right) that start a training and return a handle; `wait(handles)` gives (a finished one, its
    result). After `until` (time.time) none is begun. Returns how many were written.
    """
    from grpo_kit.data.instructions import write_jsonl
    from grpo_kit.training.resume import read_log  # here, for a worker must import Unsloth before transformers

    write_jsonl(read_log(file), file)  # without the half of a line that a killed command may have left
    idle, running, written = list(workers), {}, 0
    while True:
        lines = read_log(file)
        left = next_jobs(lines, kind, [job for job, _ in running.values()]) if time.time() < until else []
        right = next((line["right"] for line in lines if line["stage"] == "difficulty"), None)
        for job in left[: len(idle)]:
            worker = idle.pop()
            running[worker(job, right if job["stage"] == "data" else None)] = job, worker
        if not running:
            return written
        handle, result = wait(list(running))
        job, worker = running.pop(handle)
        idle.append(worker)
        made = {"machine": bench.machine(), "date": datetime.date.today().isoformat()}
        with open(file, "a", encoding="utf-8") as opened:
            opened.write(json.dumps(job | result | made, ensure_ascii=False) + "\n")  # one write
        written += 1
        print(*(job[name] for name in NAMES), "is done", flush=True)


def start(ray, **options):
    """`ray.init`, tried again where Ray's own parts were not up after the 15 to 30 seconds that it gives them: a machine at work."""
    for attempts_left in (4, 3, 2, 1, 0):
        try:
            return ray.init(log_to_driver=False, logging_level="ERROR", **options)
        except Exception as error:
            ray.shutdown()
            if not attempts_left or "timed out" not in str(error):
                raise
            print("Ray did not come up in time: once more.", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="python -m grpo_kit.workshop.variants", description=__doc__.splitlines()[0])
    parser.add_argument("--address", help="of a running Ray cluster that you trust, as ray.init takes it (default: one is started here)")
    parser.add_argument("--workers", type=int, default=cores(), help="trainings at once, each on a core (default: as many as there are cores)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no training after that many")
    parser.add_argument("--generations", type=int, default=GENERATIONS, help="other than the chapter's: a trial, in outputs/variants/trial.jsonl")
    options = parser.parse_args()
    import ray

    from grpo_kit.training.resume import only_one, read_log

    until = time.time() + 60 * options.minutes
    file = RESULTS if options.generations == GENERATIONS else FOLDER / "trial.jsonl"
    environment = {"PYTHONPATH": str(NOTEBOOKS), "OMP_NUM_THREADS": "1"}
    here = {"num_cpus": options.workers, "include_dashboard": False, "object_store_memory": 100 * 2**20, "_node_ip_address": "127.0.0.1"}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing asks the network
    os.chdir(NOTEBOOKS)
    kind = {"generations": options.generations, "model": fingerprint(choose_profile().model)}
    with only_one(FOLDER):
        start(ray, address=options.address, runtime_env={"env_vars": environment}, **({} if options.address else here))
        try:
            actor = ray.remote(num_cpus=1)(Trainings)
            workers = [actor.remote() for _ in range(options.workers)]
            starts = [worker.train.remote for worker in workers]

            def wait(handles):
                [done], _ = ray.wait(handles, num_returns=1)
                return done, ray.get(done)  # an error of the worker is raised here, with its traceback

            written = sweep(file, kind, starts, wait, until)
        finally:
            ray.shutdown()
    left = len(next_jobs(read_log(file), kind))
    print(f"{written} trainings more in {file.relative_to(ROOT)}; {f'{left} or more are left: the same command goes on' if left else 'none is left'}.")


if __name__ == "__main__":
    main()
