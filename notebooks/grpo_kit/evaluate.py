"""pass@1 over a whole set of questions, before and after training, with honest intervals.

Strict counts the answer in the tag, lenient the last number in the text: a model that only learned
the layout gains on the first and not on the second.
"""

import copy
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import comb
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from grpo_kit.answers import last_number, parse_number
from grpo_kit.rewards import completion_text, correctness_reward, format_reward

MEASURES = ["layout", "strict", "lenient", "truncated"]


def lenient_accuracy(completions, answer, **columns):
    """1.0 where the last number in the text is the gold one, else 0.0.

    In TRL's form, so that a training can watch it: give it to the trainer with the weight 0.0.
    """
    scores = []
    for completion, gold in zip(completions, answer, strict=True):
        number = last_number(completion_text(completion))
        scores.append(float(number is not None and number == parse_number(str(gold))))
    return scores


@dataclass
class Evaluation:
    """What one model did with every question of a set; prints as a table.

    `rows` is a DataFrame with one row a question, in the dataset's order: the `prompt` as the model
    saw it, the completion's `text`, its `length` in tokens, and a bool for each of `MEASURES`.
    """

    rows: pd.DataFrame

    def summary(self):
        """DataFrame: share of the questions in % with its Wilson 95 % interval, and the mean length.

        Index: `MEASURES`, then "mean tokens", which has no interval. Columns: value, low, high.
        """
        hits = self.rows[MEASURES]
        low, high = proportion_confint(hits.sum(), len(hits), method="wilson")
        share = hits.mean()  # the clips: rounding would leave 100 % outside its own interval
        table = 100 * pd.DataFrame({"value": share, "low": low.clip(upper=share), "high": high.clip(lower=share)})
        table.loc["mean tokens", "value"] = self.rows["length"].mean()
        return table.rename_axis(f"% of {len(self.rows)} questions")

    def __repr__(self):
        return self.summary().to_string(float_format="{:.1f}".format, na_rep="")

    def save(self, path):
        """Write questions, summary (in %) and rows as JSON; an interrupted save leaves the old file."""
        summary = json.loads(self.summary().to_json(orient="index"))
        report = {"questions": len(self.rows), "summary": summary, "rows": self.rows.to_dict("records")}
        temporary = Path(f"{path}.tmp")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
        temporary.replace(path)


def own_seeds(sampling_params, count):
    """`count` copies of `sampling_params` with the seeds seed, seed + 1, …; without a seed, as they are.

    With one seed for all, one random number would draw the first token of every completion: all of
    them together would blurt or think, and a share over many questions would be worth one question.
    """
    copies = [copy.copy(sampling_params) for _ in range(count)]
    if sampling_params.seed is not None:
        for number, params in enumerate(copies):
            params.seed = sampling_params.seed + number
    return copies


def evaluate(model, dataset, tokenizer, sampling_params, lora_request=None):
    """Ask `model` every question of `dataset` once and score the first sample: an `Evaluation`.

    `dataset` has the columns `prompt` (chat messages) and `answer` (normalised gold). As in
    Unsloth, `lora_request=None` asks the base model, `model.load_lora(dir)` the trained one.
    Raises ValueError for a gold answer that is not a number.
    """
    golds = [str(gold) for gold in dataset["answer"]]
    if not golds or None in map(parse_number, golds):
        raise ValueError("Every question needs a number as its gold: look at dataset['answer'].")
    # vLLM tokenizes these strings itself: right for tokenizers that add no BOS token, as Qwen's.
    template = tokenizer.apply_chat_template
    prompts = [template(row, tokenize=False, add_generation_prompt=True) for row in dataset["prompt"]]
    params = own_seeds(sampling_params, len(prompts))
    requests = model.fast_generate(prompts, sampling_params=params, lora_request=lora_request, use_tqdm=False)
    outputs = [request.outputs[0] for request in requests]
    texts = [output.text for output in outputs]
    rows = {
        "prompt": prompts,
        "text": texts,
        "layout": np.array(format_reward(texts)) > 0,
        "strict": np.array(correctness_reward(texts, golds)) > 0,
        "lenient": np.array(lenient_accuracy(texts, golds)) > 0,
        "truncated": [output.finish_reason == "length" for output in outputs],
        "length": [len(output.token_ids) for output in outputs],
    }
    return Evaluation(pd.DataFrame(rows))


def evaluate_with_generate(model, dataset, tokenizer, max_new_tokens, temperature=1.0, seed=3407, batch_size=100):
    """`evaluate` for a policy that no engine serves, through transformers' own `generate`: an `Evaluation`.

    `model` is asked as it stands, with its adapter if it has one. Greedy with `temperature=0`; else one random stream,
    seeded with `seed`, draws a whole batch of `batch_size` prompts, padded on the left. The caller's random state, the
    model's mode and the tokenizer's padding side are left as they were. Raises ValueError like `evaluate`.
    """
    import torch  # here, so that reading an evaluation stays light

    # Said in full, because a model's own generation_config may ask for less (Qwen's does).
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {"do_sample": False}
    sampling["repetition_penalty"] = 1.0
    end = model.generation_config.eos_token_id
    ends = set(end if isinstance(end, list) else [end])

    def fast_generate(prompts, **ignored):
        outputs = []
        for start in range(0, len(prompts), batch_size):
            batch = tokenizer(prompts[start : start + batch_size], padding=True, add_special_tokens=False, return_tensors="pt")
            tokens = model.generate(**batch.to(model.device), max_new_tokens=max_new_tokens, **sampling)
            for row in tokens[:, batch["input_ids"].shape[1] :].tolist():
                length = next((place for place, token in enumerate(row, start=1) if token in ends), None)
                text = tokenizer.decode(row[:length], skip_special_tokens=True)
                reason = "stop" if length else "length"
                outputs.append(SimpleNamespace(text=text, token_ids=row[:length], finish_reason=reason))
        return [SimpleNamespace(outputs=[output]) for output in outputs]

    mode, side = model.training, tokenizer.padding_side
    model.eval()
    tokenizer.padding_side = "left"
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return evaluate(SimpleNamespace(fast_generate=fast_generate), dataset, tokenizer, SimpleNamespace(seed=None))
    finally:
        model.train(mode)
        tokenizer.padding_side = side


def paired_test(before, after):
    """Count the pairs that changed, and how easily chance does that: (gained, lost, p).

    `before` and `after` are bools, one a question. p is McNemar's exact test (statsmodels).
    """
    before, after = np.asarray(before, bool), np.asarray(after, bool)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return gained, lost, float(mcnemar([[0, gained], [lost, 0]], exact=True).pvalue)


def paired_line(before, after):
    """`paired_test` in words: "gained  59, lost   0, p < 0.001"."""
    gained, lost, p = paired_test(before, after)
    return f"gained {gained:3}, lost {lost:3}, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"


def over_seeds(values):
    """The mean of a measure over seeds, and half the width of its 95 % interval (Student's t): two floats.

    `values` has one number a training. With three it is an honest interval, and wide. ValueError with fewer than two.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} training has no spread: an interval over seeds needs at least two.")
    return float(np.mean(values)), float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))


def compare(before, after):
    """Two `Evaluation`s of the same questions, side by side: a DataFrame ready to read.

    One row a measure: before and after with their 95 % intervals, the difference in points, the
    questions that gained and lost it, and p of the paired test. Raises ValueError if the
    prompts differ.
    """
    if list(before.rows["prompt"]) != list(after.rows["prompt"]):
        raise ValueError("Not the same questions: evaluate both on one dataset, with one tokenizer.")
    old, new = before.summary(), after.summary()
    change = (new["value"] - old["value"]).round(1)
    table = {}
    for name in MEASURES:
        pair = old.loc[name], new.loc[name]
        cells = [f"{value:.1f} % [{low:.1f}, {high:.1f}]" for value, low, high in pair]
        gained, lost, p = paired_test(before.rows[name], after.rows[name])
        table[name] = [*cells, change[name], gained, lost, "<0.001" if p < 0.001 else f"{p:.3f}"]
    cells = [f"{one.loc['mean tokens', 'value']:.1f}" for one in (old, new)]
    table["mean tokens"] = [*cells, change["mean tokens"], "", "", ""]
    columns = ["before", "after", "difference", "gained", "lost", "p"]
    return pd.DataFrame.from_dict(table, orient="index", columns=columns)


def pass_at_k(right, k):
    """Each question's chance that of `k` completions at least one is right: floats in [0, 1], shape (questions,).

    `right`: bools, shape (questions, n), one for each sampled completion; n at most 1,000. With c right ones
    the estimate is 1 - C(n - c, k) / C(n, k), which is unbiased (Chen et al. 2021, arXiv:2107.03374).
    Raises ValueError unless 1 <= k <= n.
    """
    right = np.asarray(right, bool)
    n = right.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs a k from 1 to {n}, the number of completions to each question.")
    wrong = n - right.sum(axis=1)
    return 1 - comb(wrong, k) / comb(n, k)


def majority_vote(answers, golds, k, draws=50, seed=3407):
    """Each question's chance that the commonest of `k` answers is the gold: floats in [0, 1], shape (questions,).

    `answers`: for each question its n sampled numbers, None where a completion holds none: those do not vote.
    The mean over `draws` random choices of k completions. Of answers with equally many votes the one drawn
    first wins, which is a fair lot. Raises ValueError unless 1 <= k <= n.
    """
    rng = np.random.default_rng(seed)
    won = np.zeros(len(answers))
    for question, (given, gold) in enumerate(zip(answers, golds, strict=True)):
        if not 1 <= k <= len(given):
            raise ValueError(f"A vote of {k} needs a k from 1 to {len(given)}, the number of completions to each question.")
        for _ in range(draws):
            drawn = [given[completion] for completion in rng.permutation(len(given))[:k]]
            votes = Counter(number for number in drawn if number is not None).most_common(1)
            won[question] += bool(votes) and votes[0][0] == gold
    return won / draws
