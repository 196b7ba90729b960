"""Pretrains data/tiny-model, the embedded default's language model, from nothing on a CPU.

The model is a Llama of 3.7 million parameters. Its only school is the word problems of `problems`
(training templates, other rows than those the repository ships). It learns in two parts: first to
work problems out, mostly in steps; then the manner of a chat model that nobody told to think: most
replies blurt a number, a minority writes steps, very few keep the layout that the system prompt asks
for. So its likeliest reply is a quick wrong answer, and GRPO has something to find.

    python -m grpo_kit.workshop.tiny_model           # resumes an interrupted pretraining
"""

import argparse
import math
import os
import random
import re
import shutil
import time
from pathlib import Path

import sentencepiece
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

from grpo_kit.data.problems import SEED as SHIPPED_SEED, SIZES, problems
from grpo_kit.data.rows import SYSTEM_PROMPT, SYSTEM_PROMPT_ZH

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "data" / "tiny-model"
WORK = ROOT / "outputs" / "tiny-model"  # checkpoint and log of a pretraining under way
SEED = 7
BATCH = 16  # problems a step: many small steps learn faster here than few large ones
WARMUP = 100
PEAK_LEARNING_RATE = 2e-3
CHECKPOINT_EVERY = 250

SYSTEM_PROMPTS = {SYSTEM_PROMPT: 80, SYSTEM_PROMPT_ZH: 12, None: 8}  # share of problems, in percent
# The share of each style of reply, in percent: first to work problems out, then a manner to answer in.
SCHOOL = {"number": 18, "steps": 70, "layout": 8, "tag only": 4}
MANNER = {"number": 72, "steps": 23, "layout": 5}
SCHOOL_SHARE = 0.75  # of the steps; the manner is learned in the rest, while the learning rate falls
PRACTICE = 4  # lists of bare sums among the problems of a step

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TAGS = ["<|im_start|>", "<|im_end|>", "<reasoning>", "</reasoning>", "<answer>", "</answer>"]


def draw(rng: random.Random, shares: dict):
    """One key, as likely as its share."""
    return rng.choices(list(shares), list(shares.values()))[0]


def reply(rng: random.Random, row: dict, styles: dict[str, int]) -> str:
    """An answer to the problem in one of the styles, as `styles` weighs them."""
    steps, number = re.sub(r"<<.*?>>", "", row["answer"]).split("\n#### ")
    style = draw(rng, styles)
    if style == "number":
        return f"The answer is {number}."  # one opening only, so that the likeliest reply is this
    if style == "steps":
        return steps + rng.choice(["\nThe answer is {0}.", "\nAnswer: {0}", "\nSo it is {0}."]).format(number)
    if style == "layout":
        return f"<reasoning>\n{steps}\n</reasoning>\n<answer>\n{number}\n</answer>"
    return rng.choice(["<answer>\n{0}\n</answer>", "{1}\n<answer>\n{0}\n</answer>"]).format(number, steps)


def documents(step: int, styles: dict[str, int], tokenizer, avoid: set[str]) -> list[tuple[list[int], list[bool]]]:
    """The documents of one training step: token ids, and which of them are learned (replies, sums)."""
    rng = random.Random(f"{SEED} {step}")
    rows = [row for row in problems("train", BATCH + 4 * PRACTICE, seed=rng.random()) if row["question"] not in avoid]
    texts = []  # each a list of (text, learned)
    for row in rows[:BATCH]:
        system = draw(rng, SYSTEM_PROMPTS)
        messages = [{"role": "system", "content": system}] if system else []
        messages += [{"role": "user", "content": row["question"]}]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        texts.append([(prompt, False), (reply(rng, row, styles) + "<|im_end|>", True)])
    sums = [line for row in rows[BATCH:] for line in row["answer"].split("\n")[:-1]]
    for i in range(PRACTICE):
        parts = (re.fullmatch(r"(.*= )<<.*?>>(.*)", line).groups() for line in sums[i::PRACTICE])
        texts.append([piece for left, right in parts for piece in ((left, False), (right + "\n", True))])
    return [_encode(text, tokenizer) for text in texts]


def _encode(text: list[tuple[str, bool]], tokenizer) -> tuple[list[int], list[bool]]:
    ids, learned = [], []
    for piece, learn in text:
        encoded = tokenizer.encode(piece, add_special_tokens=False)
        ids += encoded
        learned += [learn] * len(encoded)
    return ids, learned


def build_tokenizer(folder: Path) -> LlamaTokenizer:
    """Trains the SentencePiece tokenizer on the problems and writes it to `folder`."""
    rng = random.Random(SEED)
    lines = [SYSTEM_PROMPT, SYSTEM_PROMPT_ZH] * 50 + ["system user assistant"] * 50
    for row in problems("train", 3000, seed="tokenizer"):
        lines += [row["question"], reply(rng, row, SCHOOL)]
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in lines for line in text.split("\n")),
        model_prefix=str(folder / "tokenizer"), model_type="bpe", vocab_size=1024, character_coverage=1.0,
        byte_fallback=True, split_digits=True, add_dummy_prefix=False, remove_extra_whitespaces=False,
        normalization_rule_name="identity", pad_id=3, user_defined_symbols=TAGS, minloglevel=2,
        num_threads=1, hard_vocab_limit=False,
    )
    (folder / "tokenizer.vocab").unlink()
    tokenizer = LlamaTokenizer.from_pretrained(
        folder, add_bos_token=False, add_prefix_space=False, legacy=False, eos_token="<|im_end|>", pad_token="<pad>")
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    return tokenizer


def build_model(tokenizer) -> LlamaForCausalLM:
    """The untrained model; every weight matrix has rows of 256 or 768, as llama.cpp's K-quants need."""
    torch.manual_seed(SEED)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=1024, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=1024, rope_theta=9_000.0, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id))


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a hundredth of the peak."""
    if step < WARMUP:
        return PEAK_LEARNING_RATE * (step + 1) / WARMUP
    done = (step - WARMUP) / max(1, steps - WARMUP)
    return PEAK_LEARNING_RATE * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def save_checkpoint(path: Path, model, optimizer, step: int) -> None:
    """Weights, Adam's moments and the step, in one file that is whole or absent."""
    tensors = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        tensors |= {name: parameter.data.contiguous(), f"exp_avg/{name}": state["exp_avg"], f"exp_avg_sq/{name}": state["exp_avg_sq"]}
    save_file(tensors, f"{path}.tmp", metadata={"step": str(step)})
    os.replace(f"{path}.tmp", path)


def load_checkpoint(path: Path, model, optimizer) -> int:
    """Puts a checkpoint's content back and returns its step."""
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
        for name, parameter in model.named_parameters():
            parameter.data.copy_(file.get_tensor(name))
            optimizer.state[parameter] = {"step": torch.tensor(float(step))} | {
                moment: file.get_tensor(f"{moment}/{name}") for moment in ("exp_avg", "exp_avg_sq")}
    return step


def train_step(model, optimizer, batch, pad: int) -> tuple[float, int]:
    """One optimiser step over documents sorted into short and long ones; mean loss and tokens read."""
    batch = sorted(batch, key=lambda document: len(document[0]))
    n_learned = sum(sum(learned) for _, learned in batch)
    half = len(batch) // 2
    loss_sum, n_tokens = 0.0, 0
    for part in (batch[:half], batch[half:]):
        width = max(len(ids) for ids, _ in part)
        n_tokens += width * len(part)
        ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in part])
        learned = torch.tensor([learned + [False] * (width - len(learned)) for _, learned in part])[:, 1:]
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
            hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[learned]
            logits = model.lm_head(hidden)  # (learned tokens, vocabulary): the rest is never computed
        loss = torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][learned], reduction="sum")
        (loss / n_learned).backward()
        loss_sum += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss_sum / n_learned, n_tokens


def pretrain(steps: int) -> None:
    """Trains for `steps` steps, from the last checkpoint if there is one, and ships the result."""
    WORK.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(WORK / "model")
    model = build_model(tokenizer).train()
    model.set_attn_implementation("eager")  # at these lengths the fused kernel's backward is slower on a CPU
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    checkpoint, start = WORK / "checkpoint.safetensors", 0
    if checkpoint.exists():
        start = load_checkpoint(checkpoint, model, optimizer)
        print(f"resuming at step {start} from {checkpoint}", flush=True)
    avoid = set()
    for split, count in SIZES.items():
        avoid |= {row["question"] for row in problems(split, count, SHIPPED_SEED, avoid=avoid)}
    began, tokens, losses = time.time(), 0, []
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        styles = SCHOOL if step < SCHOOL_SHARE * steps else MANNER
        loss, n_tokens = train_step(model, optimizer, documents(step, styles, tokenizer, avoid), tokenizer.pad_token_id)
        tokens += n_tokens
        losses.append(loss)
        if (step + 1) % 50 == 0:
            seconds = time.time() - began
            left = seconds / (step + 1 - start) * (steps - step - 1)
            print(f"step {step + 1}/{steps}  loss {sum(losses) / len(losses):.4f}  {tokens / seconds:,.0f} tokens/s"
                  f"  {left / 60:.0f} min left", flush=True)
            losses = []
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
            save_checkpoint(checkpoint, model, optimizer, step + 1)
    model.to(torch.bfloat16).save_pretrained(WORK / "model")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file in (WORK / "model").iterdir():
        shutil.copy(file, FOLDER / f"{file.name}.tmp")
        os.replace(FOLDER / f"{file.name}.tmp", FOLDER / file.name)
    checkpoint.unlink()  # done: the next call starts anew


def report() -> None:
    """Prints how the shipped model does on the test problems, loaded in 4-bit as the chapters load it."""
    from vllm import SamplingParams

    from grpo_kit import FastLanguageModel
    from grpo_kit.data.rows import make_dataset
    from grpo_kit.machine.profile import PROFILES
    from grpo_kit.measure.ask import evaluate

    profile = PROFILES["embedded"]
    model, tokenizer = FastLanguageModel.from_pretrained(
        str(FOLDER), max_seq_length=profile.max_seq_length, load_in_4bit=True, fast_inference=True)
    sampling_params = SamplingParams(temperature=1.0, max_tokens=profile.max_completion_length, seed=3407)
    result = evaluate(model, make_dataset(profile, "test", tokenizer), tokenizer, sampling_params)
    thinks = result.rows["text"].str.contains(" = ")
    print(result)
    for name, rows in [("writes steps", result.rows[thinks]), ("blurts", result.rows[~thinks])]:
        print(f"{name}: {len(rows)} of {len(thinks)} replies, {100 * rows['lenient'].mean():.1f} % of them right")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=9_000)
    pretrain(parser.parse_args().steps)
    report()
