"""The site's JavaScript against the kit: rewards text for text, advantages and pushes number for number. Skipped where node is missing."""

import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grpo_kit.measure.score import lenient_accuracy
from grpo_kit.rewards import answers, correctness_reward, format_reward, integer_reward, tag_reward

NOTEBOOKS = Path(__file__).resolve().parents[1]
STATIC = NOTEBOOKS / "site/_static"
RECORD = NOTEBOOKS / "results/glass_box.json"
LOOP = """
import * as rewards from "{static}/rewards.js";
import * as grpo from "{static}/grpo.js";
import {{ createInterface }} from "node:readline";
for await (const line of createInterface({{ input: process.stdin }})) {{
  const [name, ...given] = JSON.parse(line);
  console.log(JSON.stringify({{ ...rewards, ...grpo }}[name](...given)));
}}
"""
pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="node is not here (on Debian: apt install nodejs)")


@pytest.fixture(scope="module")
def js(tmp_path_factory):
    """A function of the scripts by its name: js("advantages", [1, 0], 2, "none")."""
    script = tmp_path_factory.mktemp("js") / "loop.mjs"
    script.write_text(LOOP.format(static=STATIC.as_uri()))
    with subprocess.Popen(["node", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8") as node:
        def call(*given):
            node.stdin.write(json.dumps(given) + "\n")
            node.stdin.flush()
            return json.loads(node.stdout.readline())

        yield call
        node.stdin.close()


def written(number):
    """A number of the kit as the script writes it: exact, and without zeros at the end."""
    if number is None or isinstance(number, int):
        return None if number is None else str(number)
    digits = max(len(f"{number.denominator:b}"), 1)  # a decimal's denominator is 2^a 5^b
    text = f"{abs(number.numerator) * 10**digits // number.denominator:0{digits + 1}d}"
    return ("-" if number < 0 else "") + f"{text[:-digits]}.{text[-digits:]}".rstrip("0").rstrip(".")


NUMBERS = ["72", " 72\n", "+72", "072", "72.00", "72 %", "72apples.", "$-5", "-$72.50", "€72", r"\boxed{ 72 }", "$72$", "** $72 **", "72元", "72 个 苹果",
           "７２．００", "￥72", "72\u3000元", r"\$\$72", r"72\%", r"72\text{ apples}", r"72\,\mathrm{cm}^2", r"72^{\circ}C", "72 km/h", "72 m²", "72 cm^2",
           "72\u00a0€", "72 N·m", "72 kilowatt-hours", "-0", ".5", "-.5", "1,000", "-12,345,678", "9007199254740993", "1{,}200", r"1,\!200", r"1\,200",
           "7 2", "71,72", "3/4", "1e5", "٧٢", "7²", "5k", "5万", "5千克", "5千", "12:30", "2^6", "1,00", "1_000", "nan", "", "  ", "\ufeff72", "72\x1c", "9-4", "m2",
           "CO2", "x_{1}", "so 12 - 3 = 9.", "It is 3 or -4", "(4)-5", "1.5.2", "½", "5½", "-5 degrees", "7" * 65, "7" * 300, "\u221210", "\U00020000 5", "5 \U0001f600"]
PARTS = st.sampled_from([*answers.TAGS, *NUMBERS, "\n", " ", "-", ",", ".", "= ", "The answer is "]) | st.text(max_size=5)
TEXTS = st.lists(PARTS, max_size=9).map("".join).filter(lambda text: not any("\ud800" <= sign <= "\udfff" for sign in text))


def compared(js, text, gold):
    """What the scripts and the kit say of one text."""
    theirs = {"parse": js("parseNumber", text), "last": js("lastNumber", text), "block": js("extractAnswer", text),
              "paid": js("judge", text, gold)["paid"], "lenient": js("judge", text, gold)["lenient"]}
    ours = {"parse": written(answers.parse_number(text)), "last": written(answers.last_number(text)), "block": answers.extract_answer(text),
            "paid": {"correctness": correctness_reward([text], [gold])[0], "format": format_reward([text])[0], "tag": tag_reward([text])[0],
                     "integer": integer_reward([text])[0]},
            "lenient": bool(lenient_accuracy([text], [gold])[0])}
    return theirs, ours


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers_are_read_as_the_kit_reads_them(js, text):
    for whole in (text, f"<reasoning>\n2 + 2 = 4\n</reasoning>\n<answer>\n{text}\n</answer>"):
        theirs, ours = compared(js, whole, "72")
        assert theirs == ours


@given(text=TEXTS, gold=st.sampled_from(["72", "-5", "1000", "0.5"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_earns_what_the_kit_pays(js, text, gold):
    theirs, ours = compared(js, text, gold)
    assert theirs == ours


def test_a_number_is_written_exactly():
    assert [written(number) for number in (None, 0, -7, Fraction(1, 10), Fraction(-4001, 4), Fraction(1, 1024))] == [
        None, "0", "-7", "0.1", "-1000.25", "0.0009765625"]


def test_the_sum_has_the_quickstarts_weights_and_a_cut_off_completion_earns_nothing(js):
    text = "<reasoning>\n2 + 2 = 4\n</reasoning>\n<answer>\n4\n</answer>"
    assert js("judge", text, "4")["total"] == 3.5 and js("judge", text, "5")["total"] == 1.5
    assert js("judge", text, "4", True)["total"] == 0 and js("judge", text, "")["paid"]["correctness"] is None


def trl_advantages(rewards, group, scale):
    """TRL's formula, in torch."""
    rewards = torch.tensor(rewards, dtype=torch.float64).view(-1, group)
    distance = rewards - rewards.mean(dim=1, keepdim=True)
    std = {"none": None, "group": rewards.std(dim=1, keepdim=True), "batch": rewards.std()}[scale]
    return (distance if std is None else distance / (std + 1e-4)).flatten().tolist()


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
def test_advantages_are_trls(js, scale):
    for rewards in ([3, 1, 0, 0, 3.5, 3.5, 3.5, 3.5], [0.0625, 0, 0, 0, 2, 2.5, 0, 1]):
        assert js("advantages", rewards, 4, scale) == pytest.approx(trl_advantages(rewards, 4, scale), abs=1e-9)


@pytest.mark.parametrize("low, high", [(0.2, 0.2), (0.2, 0.28), (0.05, 0.5)])
def test_a_push_is_minus_the_gradient_of_the_clipped_loss(js, low, high):
    torch.manual_seed(0)
    before, advantage = -torch.rand(200, dtype=torch.float64), torch.randn(200, dtype=torch.float64)
    after = (before + 0.5 * torch.randn(200, dtype=torch.float64)).requires_grad_()
    ratio = (after - before).exp()
    loss = -torch.min(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage).sum() / 1000
    wanted, = torch.autograd.grad(-loss, after)
    found = [js("push", r, a, low, high, 1000) for r, a in zip(ratio.tolist(), advantage.tolist())]
    assert found == pytest.approx(wanted.tolist(), abs=1e-12) and 20 < found.count(0) < 120


def test_the_recorded_advantages_are_trls(js):
    record = json.loads(RECORD.read_text("utf-8"))
    weights, group = record["settings"]["weights"], record["settings"]["group"]
    for step in record["steps"]:
        found = js("advantages", js("combined", step["rewards"], weights), group, record["settings"]["scale_rewards"])
        assert found == pytest.approx(step["advantages"], abs=2e-4)
        assert all(len(one["ids"]) == len(one["before"]) == len(one["after"]) for kept in step["groups"] for one in kept["completions"])


def test_the_recorded_rewards_are_those_that_the_scripts_pay(js):
    record = json.loads(RECORD.read_text("utf-8"))
    for step in record["steps"]:
        for number, (gold, one) in enumerate((kept["gold"], one) for kept in step["groups"] for one in kept["completions"]):
            ended, text = record["pieces"][str(one["ids"][-1])] == "<|im_end|>", "".join(record["pieces"][str(token)] for token in one["ids"])
            paid = js("judge", text.removesuffix("<|im_end|>"), gold, not ended)["paid"]
            assert paid == {name: values[number] for name, values in step["rewards"].items()}, text
