// The page "Glass box": replays a recorded training, and computes rewards, advantages and pushes anew when the reader changes a setting.

import { advantages, clipped, combined, push } from "./grpo.js";

const page = document.getElementById("glassbox");
const words = JSON.parse(document.getElementById("words").textContent);
const one = (name) => page.querySelector(`[data-is="${name}"]`);
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const signed = (value, digits = 2) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);

function element(name, properties = {}, ...inside) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...inside);
  return made;
}

// A colour between transparent and one of two, by the size of a number from -1 to 1; red and blue, which colour-blind readers tell apart.
const shade = (value) => {
  const strength = Math.round(100 * Math.min(1, Math.abs(value)) ** 0.7);
  return strength < 4 ? "transparent" : `color-mix(in srgb, ${value > 0 ? "#2b83d6" : "#e0592a"} ${Math.round(strength * 0.75)}%, transparent)`;
};

function settings() {
  const weights = {};
  for (const input of page.querySelectorAll("[data-weight]")) weights[input.dataset.weight] = Number(input.value);
  return { weights, scale: one("scale").value, low: Number(one("low").value), high: Number(one("high").value), colour: one("colour").value };
}

// Everything that follows from a recorded step and the settings: for each completion of its kept groups the reward, the
// advantage, and for each token {before, after, ratio, clipped, push}; pushes are times the batch's number of tokens.
export function computed(step, group, { weights, scale, low, high }) {
  const rewards = combined(step.rewards, weights), found = advantages(rewards, group, scale);
  const tokens = step.lengths.reduce((sum, length) => sum + length, 0);
  return {
    rewards, advantages: found, tokens, mean: rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length,
    completions: step.groups.flatMap(({ completions }) => completions).map(({ ids, before, after }, i) => ({
      reward: rewards[i], advantage: found[i],
      tokens: ids.map((id, t) => {
        const ratio = Math.exp(after[t] - before[t]), stopped = clipped(ratio, found[i], low, high);
        return { id, before: Math.exp(before[t]), after: Math.exp(after[t]), ratio, stopped, push: push(ratio, found[i], low, high, tokens) * tokens };
      }),
    })),
  };
}

function tokenTable(tokens, pieces) {
  const table = element("table", { className: "rewards" });
  const row = (cells, kind) => table.append(element("tr", {}, ...cells.map((cell) => element(kind, { textContent: cell }))));
  row(words.columns, "th");
  for (const token of tokens)
    row([JSON.stringify(pieces[token.id]), token.before.toFixed(3), token.after.toFixed(3), token.ratio.toFixed(2) + (token.stopped ? ` (${words.clipped})` : ""),
      signed(token.push)], "td");
  return table;
}

function card(record, step, now, number, colour) {
  const one = now.completions[number], stopped = one.tokens.filter((token) => token.stopped).length;
  const paid = Object.entries(step.rewards).map(([name, values]) => `${words[name] ?? name} ${values[number] ?? "–"}`).join(" · ");
  const tokens = element("p", { className: "tokens", lang: "en" }, ...one.tokens.map((token) => {
    const text = record.pieces[token.id].replace("\n", "⏎\n");
    const shown = element("span", { className: token.stopped ? "token clipped" : "token", textContent: text,
      title: fill(words.token, { before: token.before.toFixed(3), after: token.after.toFixed(3), ratio: token.ratio.toFixed(2), push: signed(token.push) }) });
    shown.style.setProperty("--shade", shade(colour === "push" ? token.push / 2 : Math.log(token.ratio)));
    return shown;
  }));
  const bar = element("span", { className: "bar" });
  bar.style.cssText = `width: ${Math.min(6, 2 * Math.abs(one.advantage))}rem; background: ${one.advantage > 0 ? "#2b83d6" : "#e0592a"}`;
  const details = element("details", {}, element("summary", { textContent: words.table }));
  details.addEventListener("toggle", () => { if (details.open && details.children.length === 1) details.append(tokenTable(one.tokens, record.pieces)); });
  return element("article", { className: "completion" },
    element("p", { className: "figures-line" }, fill(words.completion, { number: (number % record.settings.group) + 1, reward: one.reward.toFixed(2) }),
      element("strong", { textContent: fill(words.advantage, { advantage: signed(one.advantage) }) }), " ", bar,
      element("br"), `${paid} · ${fill(words.stopped, { stopped, tokens: one.tokens.length })}`),
    tokens, details);
}

// The mean reward over the recorded steps, at the weights as they are now; the step shown is marked.
function curve(record, at, set) {
  const means = record.steps.map((step) => computed(step, record.settings.group, set).mean), top = Math.max(...means, 1e-9), bottom = Math.min(...means, 0);
  const x = (i) => 20 + (i * 560) / (means.length - 1), y = (value) => 90 - (80 * (value - bottom)) / (top - bottom);
  const points = means.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  one("curve").innerHTML = `<polyline points="${points}" fill="none" stroke="#2b83d6" stroke-width="2.5"/>` +
    means.map((value, i) => `<circle cx="${x(i)}" cy="${y(value)}" r="${i === at ? 7 : 3.5}" fill="${i === at ? "#e0592a" : "#2b83d6"}"/>`).join("");
  one("curve").setAttribute("aria-label", fill(words.curve, { means: means.map((value) => value.toFixed(2)).join(", ") }));
}

function draw(record) {
  const at = Number(one("step").value), step = record.steps[at], which = Number(one("group").value), set = settings();
  const size = record.settings.group, now = computed(step, size, set), group = step.groups[which];
  one("step-now").textContent = step.step + 1;
  for (const name of ["low", "high"]) one(`${name}-now`).textContent = Number(one(name).value).toFixed(2);
  one("question").textContent = `${group.question} ${fill(words.gold, { gold: group.gold })}`;
  const zero = Array.from({ length: now.rewards.length / size }, (_, g) => now.advantages.slice(g * size, (g + 1) * size)).filter((own) => own.every((a) => Math.abs(a) < 1e-6)).length;
  const own = now.completions.slice(which * size, (which + 1) * size);
  one("summary").textContent = fill(words.summary, { mean: now.mean.toFixed(2), agree: zero, groups: now.rewards.length / size, tokens: now.tokens,
    stopped: now.completions.flatMap(({ tokens }) => tokens).filter((token) => token.stopped).length,
    kept: now.completions.flatMap(({ tokens }) => tokens).length });
  one("completions").replaceChildren(...own.map((_, i) => card(record, step, now, which * size + i, set.colour)));
  curve(record, at, set);
}

async function start() {
  const response = await fetch(new URL("glass_box.json", new URL(page.dataset.files, document.baseURI)));
  if (!response.ok) throw new Error(`${response.status}`);
  const record = await response.json(), trained = record.settings;
  one("step").max = record.steps.length - 1;
  one("group").replaceChildren(...record.steps[0].groups.map((_, g) => element("option", { value: g, textContent: g + 1 })));
  const reset = () => {
    for (const input of page.querySelectorAll("[data-weight]")) input.value = trained.weights[input.dataset.weight];
    [one("scale").value, one("low").value, one("high").value] = [trained.scale_rewards, trained.epsilon, trained.epsilon_high];
  };
  reset();
  one("step").value = Math.floor(record.steps.length / 3);
  page.addEventListener("input", () => draw(record));
  one("reset").addEventListener("click", () => { reset(); draw(record); });
  page.addEventListener("change", () => draw(record));
  one("status").textContent = fill(words.recorded, { command: record.command, machine: record.machine, date: record.date, seed: record.seed, steps: trained.steps });
  Object.assign(page, { record, computed });
  draw(record);
  page.dataset.ready = "yes";
}

start().catch((error) => { one("status").textContent = fill(words.failed, { why: error.message }); });
