"""Log-probabilities of preference pairs under steering, and their gradients: the seam of training and evaluation."""

from steering.scoring.scorer import PairScorer

__all__ = ["PairScorer"]
