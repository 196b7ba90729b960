"""The trainings of `make variants`, one after another in a process that loads model and engine once."""

import importlib.metadata as metadata
import os
import tempfile
import time

from grpo_kit.machine.profile import choose_profile
from grpo_kit.measure.ask import evaluate
from grpo_kit.measure.score import lenient_accuracy
from grpo_kit.rewards.ends import end_tokens
from grpo_kit.training.variants import TRIES, change_batches, clipped_share, curve_of, ordered, reset_adapter, variant_settings
from . import bench
from .controls import figures, rewards_for
from .step_cost import PROJECTIONS, ROOT, SEED

QUESTIONS, POOL = 200, 640  # asked of each test set; whose difficulty is measured
PACKAGES = [*bench.PACKAGES, "ray"]


class Trainings:
    """Model and engine, loaded once, which train one adapter after another."""

    def __init__(self):
        from grpo_kit import FastLanguageModel  # before transformers
        from grpo_kit.data.rows import make_dataset

        os.chdir(ROOT / "notebooks")  # the profile names its folders from there
        self.profile = choose_profile()
        model, self.tokenizer = FastLanguageModel.from_pretrained(
            self.profile.model, max_seq_length=self.profile.max_seq_length, load_in_4bit=True, fast_inference=True,
            max_lora_rank=self.profile.lora_rank, gpu_memory_utilization=self.profile.gpu_memory_utilization)
        self.model = FastLanguageModel.get_peft_model(
            model, r=self.profile.lora_rank, lora_alpha=self.profile.lora_rank, target_modules=PROJECTIONS, random_state=SEED)
        self.dataset = make_dataset(self.profile, "train", self.tokenizer)
        self.tests = {split: make_dataset(self.profile, split, self.tokenizer).select(range(QUESTIONS)) for split in self.profile.splits}

    def answers(self, dataset, temperature, lora_request=None):
        """An `Evaluation` of the untrained model, or of an adapter."""
        from vllm import SamplingParams

        sampling_params = SamplingParams(temperature=temperature, max_tokens=self.profile.max_completion_length, seed=SEED)
        return evaluate(self.model, dataset, self.tokenizer, sampling_params, lora_request)

    def ask(self, lora_request):
        """{split: {way: figures}} of an adapter, or with None of the untrained model."""
        results = {}
        for split, test in self.tests.items():
            results[split] = {}
            for way, temperature in {"sampled": 1.0, "greedy": 0.0}.items():
                results[split][way] = figures(self.answers(test, temperature, lora_request))
        return results

    def difficulty(self):
        """Of TRIES completions to each of the first POOL questions, how many the untrained model gets right."""
        asked = self.dataset.select([place for place in range(POOL) for _ in range(TRIES)])
        return self.answers(asked, 1.0).rows["lenient"].to_numpy().reshape(POOL, TRIES).sum(axis=1).tolist()

    def train(self, job, right=None):
        """The rest of the job's line; `right` is the difficulty, where the job's questions are chosen by it."""
        from transformers import PrinterCallback
        from trl import GRPOConfig, GRPOTrainer

        began, cpu = time.perf_counter(), time.process_time()
        if job["stage"] == "base":
            return {"results": self.ask(None), "versions": {name: metadata.version(name) for name in PACKAGES}}
        if job["stage"] == "difficulty":
            return {"right": self.difficulty(), "tries": TRIES}
        reset_adapter(self.model, job["seed"])
        stop_ids = end_tokens(self.tokenizer, self.model.generation_config)
        paid, weights = rewards_for(job["reward"], job["seed"], stop_ids)
        watched = [lenient_accuracy] if job["reward"] == "full" else [rewards_for("full", 1, stop_ids)[0][0], lenient_accuracy]
        settings = variant_settings(job["method"], job["updates"], job["rate"], job["seed"], job["generations"])
        settings["reward_weights"], dataset = weights + [0.0] * len(watched), self.dataset
        if job["stage"] == "data":
            asked = settings["per_device_train_batch_size"] // settings["num_generations"] * job["generations"]
            dataset, settings["shuffle_dataset"] = ordered(self.dataset, right, job["data"], job["seed"], asked), False
        with tempfile.TemporaryDirectory() as folder:
            training_args = GRPOConfig(output_dir=folder, max_completion_length=self.profile.max_completion_length, **settings)
            trainer = GRPOTrainer(model=self.model, processing_class=self.tokenizer, args=training_args,
                                  reward_funcs=paid + watched, train_dataset=dataset)
            trainer.remove_callback(PrinterCallback)
            change_batches(trainer, job["method"])
            trainer.train()
            log = trainer.state.log_history
            found = {"curve": curve_of(log), "clipped": round(clipped_share(log), 4)}
            if job["stage"] != "rate":
                self.model.save_lora(f"{folder}/adapter")
                found["results"] = self.ask(self.model.load_lora(f"{folder}/adapter"))
        return found | {"seconds": round(time.perf_counter() - began), "cpu seconds": round(time.process_time() - cpu)}
