"""The colours and the manner of every picture."""

from functools import wraps

from matplotlib import font_manager
from matplotlib.text import Text

# Okabe and Ito's colours: told apart by colour-blind readers, and in grey print.
GREY, BLUE = "#6e6e6e", "#0072b2"
ORANGE, GREEN, PURPLE = "#d55e00", "#009e73", "#cc79a7"
# matplotlib's own font has no Chinese: the first of these that is installed lends its glyphs.
CHINESE_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Microsoft YaHei", "PingFang SC", "SimHei", "WenQuanYi Micro Hei")
CHINESE = [name for name in CHINESE_FONTS if name in font_manager.get_font_names()][:1]
STYLE = {
    "font.family": ["DejaVu Sans", *CHINESE],
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}


def readable(plot):
    """`plot`, a function that gives a Figure, with a ValueError where a text of it would be drawn as boxes."""

    @wraps(plot)
    def plotted(*arguments, **options):
        figure = plot(*arguments, **options)
        labels = [label for axis in figure.axes for label in axis.get_xticklabels() + axis.get_yticklabels()]
        for text in {text.get_text() for text in [*figure.findobj(Text), *labels]} if not CHINESE else ():
            if any("\u2e80" <= sign <= "\uffef" for sign in text):
                raise ValueError(f"No font here can draw {text!r}: install fonts-noto-cjk and start Python again, or write it in English.")
        return figure

    return plotted
