"""The pictures and tables a reader looks at; each function gives a Figure or a table to display."""

from grpo_kit.plots.comparing import plot_answers, plot_by_steps, plot_curves, plot_formats, plot_temperatures, plot_trainings
from grpo_kit.plots.style import BLUE, GREY, STYLE
from grpo_kit.plots.training import completions_table, plot_training
from grpo_kit.plots.weights import draw_tokens, plot_bars, plot_levels, plot_parts, plot_shares
