"""One training of `make tools` after another, with one model and engine: what chapter 13 shows, its practice, and what is kept of the answers."""

import datetime
import re
import tempfile
import time

from grpo_kit.machine.profile import choose_profile
from .step_cost import PROJECTIONS, SEED

QUESTIONS = 100
FIGURES = ["strict", "lenient", "layout", "truncated", "called", "refused", "copied"]  # in % of the questions; and "tokens", a mean
NUMBER = re.compile(r"\d[\d,]*\d|\d")


def copies(question, text):
    """Whether all numbers of `question` stand in `text`."""
    return set(NUMBER.findall(question)) <= set(NUMBER.findall(text))


def figures(evaluation, questions):
    """What is kept of an `Evaluation` with calls: shares in % and mean tokens, rounded; and which were right, as a text of 0 and 1."""
    rows = evaluation.rows.assign(called=evaluation.rows["calls"] > 0, refused=evaluation.rows["failed"] > 0)
    rows["copied"] = list(map(copies, questions, rows["conversation"]))
    shares = (100 * rows[FIGURES].mean()).round(2).to_dict()
    right = "".join(str(int(one)) for one in rows["strict"])
    return {"questions": len(rows), **shares, "tokens": round(float(rows["length"].mean()), 2), "right": right,
            "ends": rows["end"].value_counts().to_dict()}


def busy_figures(evaluation, questions):
    """`figures`, and for each question, as texts of digits: the columns of `asked_again`, and "stop", the place in STOPS."""
    from grpo_kit.tools import STOPS, asked_again

    columns = asked_again(evaluation.rows).astype(int).assign(stop=evaluation.rows["stop"].map(STOPS.index))
    return figures(evaluation, questions) | {name: "".join(map(str, column)) for name, column in columns.items()}


class Trainings:
    """Model and engine, loaded once, which train one adapter after another."""

    def __init__(self):
        from grpo_kit import FastLanguageModel  # before transformers
        from grpo_kit.data.large_sums import large_sums
        from grpo_kit.data.rows import make_dataset
        from grpo_kit.tools import shown_calls, shown_solutions, to_dataset, with_calls

        self.profile = profile = choose_profile()
        model, self.tokenizer = FastLanguageModel.from_pretrained(
            profile.model, max_seq_length=profile.max_seq_length, load_in_4bit=True, fast_inference=True,
            max_lora_rank=profile.lora_rank, gpu_memory_utilization=profile.gpu_memory_utilization)
        self.model = FastLanguageModel.get_peft_model(
            model, r=profile.lora_rank, lora_alpha=profile.lora_rank, target_modules=PROJECTIONS, random_state=SEED)
        with_calls(self.tokenizer)
        rows = large_sums(200, "shown")
        self.shown = {"calls": shown_calls(rows), "solutions": shown_solutions(to_dataset(rows)),
                      "ordinary": shown_solutions(make_dataset(profile, "train", self.tokenizer).select(range(200)))}
        self.dataset = to_dataset(large_sums(2000, "train"))
        self.tests = {"large sums": to_dataset(large_sums(QUESTIONS, "test")),
                      "ordinary": make_dataset(profile, "test", self.tokenizer).select(range(QUESTIONS))}

    def ask(self, folder):
        """{set: figures} of the adapter as it stands; `folder`: where to keep it meanwhile."""
        from grpo_kit.tools import ask_with_calls, calculate
        from vllm import SamplingParams

        self.model.save_lora(folder)
        lora_request = self.model.load_lora(folder)
        params = SamplingParams(temperature=1.0, max_tokens=self.profile.max_completion_length, seed=SEED)
        return {name: figures(ask_with_calls(self.model, rows, self.tokenizer, params, [calculate], lora_request), rows["question"])
                for name, rows in self.tests.items()}

    def ask_busy(self, folder):
        """The `busy_figures` of the large sums, as the chapter asks them with `Busy`."""
        from grpo_kit.tools import Busy, ask_with_calls
        from grpo_kit.tools.settings import grpo_settings
        from vllm import SamplingParams

        self.model.save_lora(folder)
        lora_request, rows = self.model.load_lora(folder), self.tests["large sums"]
        params = SamplingParams(temperature=1.0, max_tokens=grpo_settings(self.profile, "", SEED)["max_completion_length"], seed=SEED)
        return {"busy": busy_figures(ask_with_calls(self.model, rows, self.tokenizer, params, (), lora_request, environment_factory=Busy), rows["question"])}

    def run(self, trainer, start=None):
        """Trains, from the adapter as it stands, or from these tensors of it: the processor seconds."""
        from grpo_kit.tools.settings import in_float32
        from grpo_kit.training.diagnosis import put_back
        from transformers import PrinterCallback

        trainer.remove_callback(PrinterCallback)
        in_float32(self.model)  # after an SFTTrainer
        if start:
            put_back(self.model, start)
        began = time.process_time()
        trainer.train()
        return round(time.process_time() - began)

    def train(self, job, changes=None):
        """The rest of the job's line: "curve" and "agree" (each step's reward, and share of groups that earned the same), "results"
        ({stage: {set: figures}}), "trained" ({stage: processor seconds}), "seconds", "cpu seconds", "date".

        `changes`: {"SFT": keywords, "GRPO": keywords} that differ from the chapter's settings, for a trial.
        """
        from grpo_kit.rewards.functions import correctness_reward
        from grpo_kit.tools import Busy, answered, calculate
        from grpo_kit.tools.settings import grpo_settings, sft_settings
        from grpo_kit.training.diagnosis import put_back, trained_tensors
        from grpo_kit.training.variants import reset_adapter
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

        logs, shown = [], [row for name, rows in self.shown.items() for row in rows.select(range(job[name]))]
        began, cpu, results, trained = time.perf_counter(), time.process_time(), {}, {}
        changes, seed, common = changes or {}, job["seed"], {"model": self.model, "processing_class": self.tokenizer}
        reset_adapter(self.model, seed)
        with tempfile.TemporaryDirectory() as folder:
            def sft(steps):
                args = SFTConfig(**sft_settings(self.profile, folder, seed) | {"max_steps": steps} | changes.get("SFT", {}))
                return SFTTrainer(args=args, train_dataset=Dataset.from_list(shown), **common)

            def grpo(steps, tools=(), rewards=(correctness_reward,), environment=None, **more):
                args = GRPOConfig(**grpo_settings(self.profile, folder, seed) | {"max_steps": steps} | more | changes.get("GRPO", {}))
                return GRPOTrainer(reward_funcs=list(rewards), args=args, tools=list(tools), environment_factory=environment, train_dataset=self.dataset, **common)

            if not shown and seed == SEED:  # an adapter that is still zero answers as the base model, from every seed
                results["base"] = self.ask(f"{folder}/base")
            if shown:
                trained["SFT"] = self.run(sft(job["SFT"]))
                results["SFT"] = self.ask(f"{folder}/SFT")
            after_sft = trained_tensors(self.model)
            if job["GRPO"]:
                trainer = grpo(job["GRPO"], [calculate])
                trained["GRPO"] = self.run(trainer)
                results["GRPO"] = self.ask(f"{folder}/GRPO")
                logs = [log for log in trainer.state.log_history if "reward" in log]
            if job.get("more SFT"):
                trained["more SFT"] = self.run(sft(job["more SFT"]), after_sft)
                results["more SFT"] = self.ask(f"{folder}/more")
            if job.get("Busy"):
                put_back(self.model, after_sft)
                results["SFT"] |= self.ask_busy(f"{folder}/before")
                trainer = grpo(job["Busy"], rewards=[correctness_reward, answered], environment=Busy, reward_weights=[1.0, 0.0],
                               vllm_importance_sampling_correction=True)
                trained["Busy"] = self.run(trainer)
                results["Busy"] = self.ask(f"{folder}/plain") | self.ask_busy(f"{folder}/Busy")
                logs = [log for log in trainer.state.log_history if "reward" in log]
        return {"curve": [round(log["reward"], 4) for log in logs], "agree": [round(log["frac_reward_zero_std"], 4) for log in logs],
                "results": results, "trained": trained, "seconds": round(time.perf_counter() - began),
                "cpu seconds": round(time.process_time() - cpu), "date": datetime.date.today().isoformat()}
