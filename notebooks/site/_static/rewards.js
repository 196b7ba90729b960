// The kit's rewards (grpo_kit/rewards/answers.py and functions.py) in JavaScript, function for function. A test compares them
// with the kit's own, text for text. A number is a text here, its one canonical form ("-12", "7/2" as "3.5"): exact, as there.

export const TAGS = ["<reasoning>", "</reasoning>", "<answer>", "</answer>"];
const WRAPPERS = [["\\boxed{", "}"], ["$", "$"], ["**", "**"]];
const LATEX = [["{,}", ","], [",\\!", ","], ["\\,", "\u2009"], ["\\$", "$"], ["\\%", "%"], ["^{\\circ}", "°"], ["^\\circ", "°"],
  ["\\sqrt", "√"], ["\\pi", "π"]];
const CURRENCY = "$€£¥₹";
const DIGITS = "(?:(?:[0-9]{1,3}(?:[,\u2009][0-9]{3})+(?![0-9])|[0-9]+)(?:\\.[0-9]+)?|\\.[0-9]+)";
const SCALE = "(?:[kK](?![A-Za-z])| ?[十百万亿萬億]| ?千(?![克米瓦卡]))";
const LETTERS = "A-Za-zÀ-ÖØ-öø-ɏµμΩА-яёЁ\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3";
const UNIT = `/?[${LETTERS}${CURRENCY}%°℃℉㎀-㏟](?:[${LETTERS}${CURRENCY}°²³㎀-㏟/· \\-]|\\^\\{?[23]\\}?)*`;
const ONE_NUMBER = new RegExp(
  `^(?:(?<sign>[\\-+]?[${CURRENCY}]?|[${CURRENCY}][\\-+])(?<digits>${DIGITS})(?!${SCALE})(?:[ \u2009]*${UNIT})?[.。]?)$`, "u");
const ANY_NUMBER = new RegExp(
  "(?<word>(?:(?<![A-Za-z])[A-Za-z]{1,2}|[A-Za-z]_\\{?|\\^\\{?)(?=[0-9]))?" +
  `(?:(?<![A-Za-z0-9)\\]}])-)?[${CURRENCY}]?(?:√\\{?)?(?:(?<![A-Za-z0-9.)])\\.)?` +
  "[0-9]+(?:(?:[.,:/_'’\u2009]|\\^\\{?-?|[eE][\\-+]|[A-Za-z]+|\\}\\{|√\\{?)[0-9]+)*" +
  `(?:${SCALE}|[¹²³⁰-₉¼-¾⅐-⅞√π])?`, "gu");
// Python's str.strip: without U+FEFF, which JavaScript's trim takes too, and with four more.
const SPACE = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const EDGES = new RegExp(`^${SPACE}+|${SPACE}+$`, "gu");

const strip = (text) => text.replace(EDGES, "");
const length = (text) => Array.from(text).length; // characters, as Python counts
const count = (text, part) => text.split(part).length - 1;

// Full-width forms as the ASCII they stand for.
function narrow(text) {
  const other = { "￥": "¥", "￡": "£", "\u2212": "-", "\u3000": " ", "\u00a0": " ", "\u202f": "\u2009" };
  return text.replace(/[\uff01-\uff5e]/g, (sign) => String.fromCharCode(sign.charCodeAt(0) - 0xfee0))
    .replace(/[￥￡\u2212\u3000\u00a0\u202f]/g, (sign) => other[sign]);
}

function plainText(text) {
  text = narrow(text).replace(/\\(?:text|math)[a-z]*\{([^{}]*)\}/g, "$1");
  for (const [written, meant] of LATEX) text = text.replaceAll(written, () => meant);
  return strip(text);
}

function plainDigits(text) {
  text = strip(text ?? "");
  text = length(text) <= 200 ? plainText(text) : "";
  for (const [left, right] of WRAPPERS)
    if (text.startsWith(left) && text.endsWith(right)) {
      text = strip(Array.from(text).slice(left.length, -right.length).join(""));
      break;
    }
  const match = length(text) <= 64 ? text.match(ONE_NUMBER) : null;
  return match && (match.groups.sign.includes("-") ? "-" : "") + match.groups.digits.replace(/[,\u2009]/g, "");
}

// The one number in a text in canonical form, or null.
export function parseNumber(text) {
  const digits = plainDigits(text);
  if (digits === null) return null;
  const [whole, part = ""] = digits.replace("-", "").split(".");
  const integer = whole.replace(/^0+(?=\d)/, "") || "0", decimals = part.replace(/0+$/, "");
  const number = decimals ? `${integer}.${decimals}` : integer;
  return digits.startsWith("-") && number !== "0" ? `-${number}` : number;
}

// What stands in the answer block, or null; nothing is guessed.
export function extractAnswer(text) {
  if (TAGS.slice(1).some((tag) => count(text, tag) !== 1)) return null;
  const after = text.split("</reasoning>")[1].split("<answer>")[1] ?? "";
  return after.includes("</answer>") ? strip(after.split("</answer>")[0]) : null;
}

// The last number anywhere in a text, or null: lenient, and never a reward.
export function lastNumber(text) {
  const letters = Array.from(text);
  const end = letters.findLastIndex((letter) => /[0-9０-９]/.test(letter)) + 1;
  const tail = plainText(letters.slice(Math.max(0, end - 200), end + 3).join("")).replace(/\\[A-Za-z]+/g, " ");
  const numbers = [...tail.matchAll(ANY_NUMBER)].filter((match) => !match.groups.word);
  return numbers.length ? parseNumber(numbers.at(-1)[0]) : null;
}

// 2 where the answer block holds the gold number; null without a gold.
export function correctness(text, gold) {
  const wanted = parseNumber(gold);
  return wanted === null ? null : parseNumber(extractAnswer(text)) === wanted ? 2 : 0;
}

// 0.5 where the four tags stand in order, text in both blocks and none outside.
export function format(text) {
  const pieces = text.split(/(<reasoning>|<\/reasoning>|<answer>|<\/answer>)/);
  const filled = pieces.filter((_, i) => i % 2 === 0).map((piece) => strip(piece) !== "");
  const tags = pieces.filter((_, i) => i % 2 === 1);
  return String(tags) === String(TAGS) && String(filled) === "false,true,false,true,false" ? 0.5 : 0;
}

// 0.0625 for each tag that occurs once and in order.
export function tag(text) {
  let reward = 0, end = 0;
  for (const one of TAGS) {
    const start = text.indexOf(one, end);
    if (start >= 0 && count(text, one) === 1) [reward, end] = [reward + 0.0625, start + one.length];
  }
  return reward;
}

// 0.25 where the answer block holds a whole number.
export function integer(text) {
  const number = parseNumber(extractAnswer(text));
  return number !== null && !number.includes(".") ? 0.25 : 0;
}

export const WEIGHTS = { correctness: 1, format: 2, tag: 1, integer: 1 }; // as in the quickstart: the layout counts twice

// All rewards of a text, and their weighted sum; a completion that was cut off earns nothing (zero_truncated).
export function judge(text, gold, cutOff = false) {
  const paid = { correctness: correctness(text, gold), format: format(text), tag: tag(text), integer: integer(text) };
  if (cutOff) for (const name in paid) paid[name] = paid[name] === null ? null : 0;
  const total = Object.entries(WEIGHTS).reduce((sum, [name, weight]) => sum + weight * (paid[name] ?? 0), 0);
  const wanted = parseNumber(gold);
  return { paid, total, lenient: wanted === null ? null : lastNumber(text) === wanted };
}
