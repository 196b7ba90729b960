"""What the site's page "Talk to both" needs: the two models as GGUF files, by chapter 07's export, and its settings.

    python -m grpo_kit.workshop.website_models FOLDER      # in notebooks/; llama.cpp must be built (`make llama.cpp`)

FOLDER gets base.gguf and trained.gguf, each in float16, 7 MB; it is whole or absent.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

from grpo_kit.data.rows import SYSTEM_PROMPT, jsonl_rows
from grpo_kit.export.llama_build import LLAMA_SOURCE
from grpo_kit.model.whole import whole
from grpo_kit.rewards import end_tokens
from grpo_kit.rewards.answers import gold_answer

ROOT = Path(__file__).resolve().parents[3]
MODELS = {"base": "../data/tiny-model", "trained": "../grpo_saved_lora"}  # seen from notebooks/, as in the chapters
CONTEXT, REPLY = 384, 96  # tokens, as in the profile that the model was trained with
METHOD = "f16"


def key():
    """A name for the files that these weights, this exporter and this module make."""
    digest = hashlib.sha256(f"{LLAMA_SOURCE} {METHOD}".encode())
    for file in (ROOT / "data/tiny-model/model.safetensors", ROOT / "grpo_saved_lora/adapter_model.safetensors", Path(__file__)):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def talk_settings(files):
    """What talk.json holds: prompt, limits, ending tokens, problems with their golds; `files`: {"before": GGUF, "after": GGUF}."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data/tiny-model")
    messages = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": "{question}"}]
    problems = {name: [[row["question"], gold_answer(row["answer"])] for row in jsonl_rows(ROOT / f"data/problems/{split}.jsonl")]
                for name, split in (("problems", "test"), ("held_out", "held_out"))}
    return {"prompt": tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True), "context": CONTEXT,
            "reply": REPLY, "stop": end_tokens(tokenizer), "files": {side: file.name for side, file in files.items()},
            "bytes": sum(file.stat().st_size for file in files.values()), **problems}


def main(target):
    """Write both models into the new folder `target`."""
    from grpo_kit import FastLanguageModel
    from grpo_kit.export.gguf import save_gguf

    with whole(Path(target)) as folder:
        for name, source in MODELS.items():
            model, tokenizer = FastLanguageModel.from_pretrained(model_name=source, max_seq_length=CONTEXT, load_in_4bit=False)
            work = folder / name
            work.mkdir()
            shutil.move(save_gguf(model, tokenizer, work, [METHOD])[METHOD], folder / f"{name}.gguf")
            shutil.rmtree(work)
        settings = talk_settings({"before": folder / "base.gguf", "after": folder / "trained.gguf"})
        (folder / "talk.json").write_text(json.dumps(settings, ensure_ascii=False), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
