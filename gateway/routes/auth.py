"""People, passwords and tokens: answered by auth."""

from fastapi import APIRouter

from gateway.deps import state_of
from gateway.forwarding import Passed, add_passed

PASSED = (
    # The names that the breast-cancer application's clients use.
    Passed("/auth/register", ("POST",)),
    Passed("/auth/login", ("POST",)),
    Passed("/auth/verify", ("GET",)),
    # Today's names.
    Passed("/v1/auth/register", ("POST",)),
    Passed("/v1/auth/login", ("POST",)),
    Passed("/v1/auth/refresh", ("POST",)),
    Passed("/v1/auth/logout", ("POST",)),
    Passed("/v1/auth/verify", ("GET",)),
    Passed("/v1/auth/me", ("GET",)),
    Passed("/v1/auth/token", ("POST",)),
    Passed("/v1/auth/keys", ("GET", "POST")),
    Passed("/v1/auth/keys/{key_id}", ("DELETE",)),
    Passed("/v1/auth/users", ("GET",)),
    Passed("/v1/auth/users/{user_id}", ("PATCH",)),
)

router = APIRouter()
# Auth checks its callers itself: most of these paths are for people who have no token yet.
add_passed(router, PASSED, lambda request: state_of(request)["auth"])
