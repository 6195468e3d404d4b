"""Judges: how much of a behavior a text shows. One file each, behind one protocol."""

from steering.evaluation.judges.judge import Judge, JudgeCard, JudgeRefused, Verdict
from steering.evaluation.judges.registry import judge_named, judges

__all__ = ["Judge", "JudgeCard", "JudgeRefused", "Verdict", "judge_named", "judges"]
