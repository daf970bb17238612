"""The history: answered by records."""

from fastapi import APIRouter, Depends

from gateway.deps import state_of, verify_caller
from gateway.forwarding import Passed, add_passed

PASSED = (
    # The names that the breast-cancer application's clients use.
    Passed("/predictions", ("GET", "POST")),
    Passed("/predictions/stats/summary", ("GET",)),
    Passed("/predictions/{number}", ("GET", "PUT", "DELETE")),
    # Today's names. What a model answered is stored by us alone, so there is no POST.
    Passed("/v1/predictions", ("GET",)),
    Passed("/v1/predictions/stats/summary", ("GET",)),
    Passed("/v1/predictions/search", ("POST",)),
    Passed("/v1/predictions/{record_id}", ("GET", "PUT", "DELETE")),
)

router = APIRouter()
# The token is checked here first, so that nobody without one reaches records; records checks it again for itself.
add_passed(router, PASSED, lambda request: state_of(request)["records"].upstream, dependencies=[Depends(verify_caller)])
