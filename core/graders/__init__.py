"""What a model's answer is worth: graders as the fine-tuning API describes them. None of them runs a user's code."""

from core.graders.grader import Grader, Multi, StringCheck, TextSimilarity
from core.graders.grading import Grade, Sample, check_item, grade, names_of_items
from core.graders.templates import LONGEST

__all__ = [
    "LONGEST",
    "Grade",
    "Grader",
    "Multi",
    "Sample",
    "StringCheck",
    "TextSimilarity",
    "check_item",
    "grade",
    "names_of_items",
]
