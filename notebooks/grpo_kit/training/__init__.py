"""Is it going well (chapters 05 and 11): `progress`, `diagnosis`, `resume` after a kill, `change_point` of a curve.

Each is imported by its own name: `progress` may come before Unsloth, and the others load torch or transformers.
"""
