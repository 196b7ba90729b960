// GRPO's arithmetic after sampling, as TRL does it and chapter 05 writes it out: rewards to advantages to pushes on tokens.
// A test compares it with TRL's recorded advantages and with the gradient of the loss.

// Weighted sums: {name: [a reward a completion]} and {name: weight} to [a number a completion]; null does not count.
export function combined(rewards, weights) {
  const names = Object.keys(rewards);
  return rewards[names[0]].map((_, i) => names.reduce((sum, name) => sum + (weights[name] ?? 0) * (rewards[name][i] ?? 0), 0));
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function deviation(values) { // with n - 1, as torch's std
  const centre = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (values.length - 1));
}

// Rewards of a batch to advantages; `group` completions belong to one prompt. `scale`: "none", "group" or "batch".
export function advantages(rewards, group, scale) {
  const whole = scale === "batch" ? deviation(rewards) : 0, found = [];
  for (let first = 0; first < rewards.length; first += group) {
    const own = rewards.slice(first, first + group), centre = mean(own);
    const divisor = scale === "none" ? 1 : (scale === "batch" ? whole : deviation(own)) + 1e-4;
    found.push(...own.map((reward) => (reward - centre) / divisor));
  }
  return found;
}

// Whether the clip stops the push on a token: its ratio has gone far enough in the direction of the advantage.
export function clipped(ratio, advantage, low, high) {
  return advantage > 0 ? ratio > 1 + high : advantage < 0 ? ratio < 1 - low : false;
}

// How hard a token is pushed: minus the derivative of the loss (dapo: a mean over the batch's tokens) by its log-probability.
export function push(ratio, advantage, low, high, tokens) {
  return clipped(ratio, advantage, low, high) ? 0 : (ratio * advantage) / tokens;
}
