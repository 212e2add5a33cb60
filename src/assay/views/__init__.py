"""What the app and the terminal both show of one picture."""

from assay.views.breaking import AttackChoice, break_picture, find_smallest
from assay.views.looking import look
from assay.views.picture import alter, sample_at
from assay.views.recurring import RecurrenceChoice, measure_recurrence
from assay.views.subject import Subject

__all__ = [
    "AttackChoice",
    "RecurrenceChoice",
    "Subject",
    "alter",
    "break_picture",
    "find_smallest",
    "look",
    "measure_recurrence",
    "sample_at",
]
