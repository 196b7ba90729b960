"""The pictures and tables a reader looks at; each function gives a Figure or a table to display."""

from .comparing import plot_answers, plot_by_steps, plot_curves, plot_formats, plot_temperatures, plot_trainings
from .moments import film_strip, plot_changes, plot_flip, plot_price, plot_rises
from .prices import plot_lists, plot_price_runs, plot_reward_and_right, price_runs
from .sft import plot_losses, plot_marks, plot_stages
from .style import BLUE, GREY, STYLE
from .tools import plot_pairs, plot_seeds
from .training import completions_table, plot_log, plot_training
from .weights import draw_tokens, plot_bars, plot_levels, plot_parts, plot_shares
