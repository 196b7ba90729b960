// The page "Talk to both": llama.cpp, compiled to WebAssembly, answers with the base and with the trained model, in this tab.
// It gives probabilities; the drawing of tokens is here, so that a seed repeats it. Files come from `data-files` alone.

import { judge, WEIGHTS } from "./rewards.js";

const page = document.getElementById("talk");
const files = new URL(page.dataset.files, document.baseURI);
const words = JSON.parse(document.getElementById("words").textContent);
const one = (name) => page.querySelector(`[data-is="${name}"]`);
const say = (text) => { one("status").textContent = text; };
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

// A generator of numbers in [0, 1) from a seed (mulberry32).
export function dice(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// The next token: the likeliest at temperature 0, else drawn from the probabilities at that temperature.
function pick(candidates, temperature, roll) {
  if (temperature === 0) return candidates.reduce((best, other) => (other.p > best.p ? other : best)).token;
  const weights = candidates.map(({ p }) => Math.pow(p, 1 / temperature));
  let rest = roll() * weights.reduce((sum, weight) => sum + weight, 0);
  for (const [i, weight] of weights.entries()) if ((rest -= weight) < 0) return candidates[i].token;
  return candidates[0].token;
}

class Model {
  constructor(Wllama, settings) {
    this.settings = settings;
    const quiet = { debug() {}, log() {}, warn() {}, error: console.error };
    this.llama = new Wllama({ "single-thread/wllama.wasm": new URL("wllama.wasm", files).href }, { logger: quiet, suppressNativeLog: true });
  }

  async load(blob) {
    // Without flash attention, as the kit's GGUFModel: its sums round otherwise, and a near tie goes to another token.
    await this.llama.loadModel([blob], { n_ctx: this.settings.context, n_threads: 1, flash_attn: false });
    this.prompt = await this.llama.tokenize(this.settings.prompt.replace("{question}", "\n"), true);
    await this.llama.decode(this.prompt, {});
    this.past = this.prompt.length;
  }

  // Read a prompt; returns its tokens. Answers start from there.
  async read(question) {
    const { prompt, context, reply } = this.settings;
    const tokens = await this.llama.tokenize(prompt.replace("{question}", () => question), true);
    if (tokens.length + reply > context) throw new Error(fill(words.long, { most: context - reply, tokens: tokens.length }));
    let kept = 0; // tokens read before, the system prompt's at least; the last one is read again, for what follows it
    while (kept < tokens.length - 1 && this.prompt[kept] === tokens[kept]) kept++;
    await this.llama.kvRemove(kept, this.past - kept);
    await this.llama.decode(tokens.slice(kept), {});
    this.past = tokens.length;
    return (this.prompt = tokens);
  }

  // One completion of the prompt that was read: {ids, text, cutOff}; `fresh`: straight after reading.
  async answer(temperature, roll, signal, fresh = true) {
    const { llama, prompt, settings } = this, ids = [], stop = new Set(settings.stop);
    if (!fresh) {
      await llama.kvRemove(prompt.length - 1, this.past - prompt.length + 1);
      await llama.decode(prompt.slice(-1), {});
    }
    this.past = prompt.length;
    while (ids.length < settings.reply && !signal.stopped) {
      ids.push(pick(await llama.getLogits(temperature === 0 ? 1 : -1), temperature, roll));
      if (stop.has(ids.at(-1)) || ids.length === settings.reply) break;
      await llama.decode(ids.slice(-1), {});
      this.past += 1;
    }
    const ended = stop.has(ids.at(-1));
    const text = ids.length ? await llama.detokenize(ended ? ids.slice(0, -1) : ids, true) : "";
    return { ids, text, cutOff: !ended };
  }
}

function rewardTable(judged) {
  const rows = Object.entries(judged.paid).map(([name, paid]) =>
    [words[name], paid === null ? "–" : paid, `× ${WEIGHTS[name]}`, paid === null ? "–" : paid * WEIGHTS[name]]);
  rows.push([words.together, "", "", judged.total]);
  const table = document.createElement("table");
  table.className = "rewards";
  for (const cells of [words.head, ...rows]) {
    const row = table.insertRow();
    for (const cell of cells) {
      const place = document.createElement(cells === words.head ? "th" : "td");
      place.textContent = cell;
      row.append(place);
    }
  }
  return table;
}

const shown = {}; // {before: the samples of the strip, after: …}

function show(side, answer) {
  const panel = one(side), judged = judge(answer.text, one("gold").value, answer.cutOff);
  panel.querySelector(".answer").textContent = answer.text + (answer.cutOff ? ` … [${words.cutOff}]` : "");
  const verdict = judged.lenient === null ? words.noGold : judged.lenient ? words.rightNumber : words.wrongNumber;
  panel.querySelector(".verdict").textContent = verdict;
  panel.querySelector(".paid").replaceChildren(rewardTable(judged));
  return judged;
}

function showStrip(side, answers) {
  shown[side] = answers;
  const strip = one(side).querySelector(".strip");
  strip.replaceChildren(...answers.map((answer, number) => {
    const judged = judge(answer.text, one("gold").value, answer.cutOff), button = document.createElement("button");
    button.type = "button";
    button.textContent = judged.total.toFixed(2);
    button.dataset.kind = judged.lenient === null ? "unknown" : judged.lenient ? "right" : "wrong";
    const verdict = judged.lenient === null ? "" : judged.lenient ? words.rightNumber : words.wrongNumber;
    button.setAttribute("aria-label", fill(words.sample, { number: number + 1, reward: judged.total.toFixed(2), verdict }));
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      for (const other of strip.children) other.setAttribute("aria-pressed", String(other === button));
      show(side, answer);
    });
    return button;
  }));
  const rewards = answers.map((answer) => judge(answer.text, one("gold").value, answer.cutOff));
  const mean = rewards.reduce((sum, { total }) => sum + total, 0) / (rewards.length || 1);
  const right = rewards.filter(({ lenient }) => lenient).length;
  one(side).querySelector(".mean").textContent = answers.length ? fill(words.strip, { count: answers.length, right, mean: mean.toFixed(2) }) : "";
}

async function fetched(name, progress) {
  const response = await fetch(new URL(name, files));
  if (!response.ok) throw new Error(fill(words.missing, { name }));
  const chunks = [];
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return new Blob(chunks);
    chunks.push(value);
    progress(value.length);
  }
}

async function start() {
  const settings = await (await fetch(new URL("talk.json", files))).json();
  const { Wllama } = await import(new URL("wllama.js", files));
  const models = { before: new Model(Wllama, settings), after: new Model(Wllama, settings) };
  let loaded = 0;
  const progress = (bytes) => say(fill(words.loading, { loaded: ((loaded += bytes) / 1e6).toFixed(0), all: (settings.bytes / 1e6).toFixed(0) }));
  await Promise.all(Object.entries(models).map(async ([side, model]) => model.load(await fetched(settings.files[side], progress))));

  let signal = { stopped: true };
  const busy = (is) => {
    for (const name of ["ask", "sixteen"]) one(name).disabled = is;
    one("stop").disabled = !is;
  };
  const run = async (work) => {
    if (!one("question").value.trim()) return say(words.empty);
    signal = { stopped: false };
    busy(true);
    const began = performance.now();
    try {
      const tokens = (await Promise.all(Object.keys(models).map((side) => work(side, models[side])))).reduce((sum, count) => sum + count, 0);
      const seconds = (performance.now() - began) / 1000;
      say(fill(signal.stopped ? words.stopped : words.done, { tokens, seconds: seconds.toFixed(1) }));
    } catch (error) {
      say(error.message);
    }
    busy(false);
  };
  const temperature = () => Number(one("temperature").value), seed = () => Number(one("seed").value) || 0;

  const draw = (problems) => {
    const [question, gold] = problems[Math.floor(Math.random() * problems.length)];
    [one("question").value, one("gold").value] = [question, gold];
    for (const side of Object.keys(models)) {
      showStrip(side, []);
      one(side).querySelector(".answer").textContent = "";
      one(side).querySelector(".verdict").textContent = "";
      one(side).querySelector(".paid").replaceChildren();
    }
  };
  one("draw").addEventListener("click", () => draw(settings.problems));
  one("draw-new").addEventListener("click", () => draw(settings.held_out));
  one("temperature").addEventListener("input", () => {
    one("temperature-now").textContent = temperature() === 0 ? words.greedy : temperature().toFixed(1);
  });
  one("stop").addEventListener("click", () => { signal.stopped = true; });
  one("ask").addEventListener("click", () => run(async (side, model) => {
    const panel = one(side);
    panel.querySelector(".answer").textContent = "…";
    await model.read(one("question").value.trim());
    const answer = await model.answer(temperature(), dice(seed()), signal);
    show(side, answer);
    return answer.ids.length;
  }));
  one("sixteen").addEventListener("click", () => run(async (side, model) => {
    const answers = [];
    await model.read(one("question").value.trim());
    for (let number = 0; number < 16 && !signal.stopped; number++) {
      answers.push(await model.answer(temperature() || 1, dice(seed() * 1000 + number), signal, number === 0));
      showStrip(side, answers);
    }
    if (answers.length) one(side).querySelector(".strip button").click();
    return answers.reduce((sum, { ids }) => sum + ids.length, 0);
  }));
  one("question").addEventListener("input", (event) => { if (event.isTrusted) one("gold").value = ""; });
  for (const name of ["draw", "draw-new"]) one(name).disabled = false;
  draw(settings.problems);
  busy(false);
  say(words.ready);
  page.models = models; // for the tests, which ask them fifty problems
}

start().catch((error) => say(fill(words.failed, { why: error.message })));
