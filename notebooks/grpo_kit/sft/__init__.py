"""What chapters 08 and 09 measure in the same way: the loss on a reply's tokens, greedy replies, a table that grows."""

from .measures import answer_all, completion_loss, encode, holds, mentions, until_repeat
from .progress import LossTable, loss_curves
