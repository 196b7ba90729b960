"""The problems as parquet files that both `trl grpo` and verl read."""

import os
from pathlib import Path


def write_parquet(dataset, source, split, folder):
    """Writes `folder`/{split}.parquet, and returns its path. `dataset`: what `make_dataset` gives; `source`: the profile's data.

    TRL takes `prompt` (messages) and hands `answer` to the rewards; verl takes `prompt` too, and hands `data_source`,
    `reward_model` (with the gold as `ground_truth`) and `extra_info` to `compute_score`. The file is whole or absent.
    """
    def row(problem, index):
        return {"data_source": str(source), "ability": "math", "reward_model": {"style": "rule", "ground_truth": problem["answer"]},
                "extra_info": {"split": split, "index": index}}

    file = Path(folder, f"{split}.parquet")
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part.{os.getpid()}")
    dataset.select_columns(["prompt", "answer", "question"]).map(row, with_indices=True).to_parquet(part)
    os.replace(part, file)
    return file
