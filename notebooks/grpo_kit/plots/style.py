"""The colours and the manner of every picture."""

# Okabe and Ito's colours: told apart by colour-blind readers, and in grey print.
GREY, BLUE = "#6e6e6e", "#0072b2"
ORANGE, GREEN = "#d55e00", "#009e73"
STYLE = {
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
