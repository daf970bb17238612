"""
The problems of the records service.

    Problem
    ├── InvalidCursor       400  the cursor of a page is not one that we gave
    ├── GatewayOnly         403  only the gateway stores what a model answered
    ├── PatientNotAllowed   403  this caller may not say whom a prediction is about
    └── NotTheOwner         403  visible to this caller, but not theirs to change
"""

from healthguard.problems import Problem


class InvalidCursor(Problem):
    """The cursor is not one that this service gave: it was cut, changed, or comes from another installation."""

    status, slug, title = 400, "invalid-cursor", "The cursor is not one that this service gave"


class GatewayOnly(Problem):
    """The request would store a model's answer and does not carry the gateway's secret."""

    status, slug, title = 403, "gateway-only", "Only the gateway stores what a model answered"


class PatientNotAllowed(Problem):
    """Somebody who is no doctor named a patient: only doctors say whom a prediction is about."""

    status, slug, title = 403, "patient-not-allowed", "This caller may not say whom a prediction is about"


class NotTheOwner(Problem):
    """The caller may read this record; to change or remove it is for who made it."""

    status, slug, title = 403, "not-the-owner", "Only who made a record may change or remove it"
