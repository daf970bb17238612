"""
What can go wrong at auth, beside what every service has (`healthguard.problems`).

    Problem
    ├── CredentialsRefused  401  the e-mail and password do not belong together; which of the two is not told
    ├── RefreshRefused      401  the refresh token does not hold
    ├── ApiKeyRefused       401  the API key does not hold
    ├── EmailTaken          409  somebody has registered with this e-mail
    ├── TooManyApiKeys      409  the caller has as many keys as anyone may have
    ├── ApiKeyShown         409  the Idempotency-Key made this API key before, and it is shown once
    ├── PasswordRefused     422  the new password is too easy to guess
    └── TooManyAttempts     429  wait before the next attempt
"""

from collections.abc import Mapping
from typing import ClassVar

from healthguard.problems import Problem


class CredentialsRefused(Problem):
    """The e-mail and the password do not belong together; unknown, wrong and disabled all read the same."""

    status, slug, title = 401, "credentials-refused", "The e-mail or the password is not right"

    def __init__(self) -> None:
        super().__init__(headers={"WWW-Authenticate": "Bearer"})


class RefreshRefused(Problem):
    """The refresh token does not hold: expired, revoked or used before. Log in again."""

    status, slug, title = 401, "refresh-refused", "The refresh token does not hold"

    def __init__(self) -> None:
        super().__init__(headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


class ApiKeyRefused(Problem):
    """The API key does not hold: mistyped, unknown, expired or revoked."""

    status, slug, title = 401, "api-key-refused", "The API key does not hold"

    def __init__(self) -> None:
        super().__init__(headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


class EmailTaken(Problem):
    """Somebody has registered with this e-mail. Registration is the one place that tells."""

    status, slug, title = 409, "email-taken", "This e-mail is registered already"


class TooManyApiKeys(Problem):
    """The caller has as many working API keys as anyone may have; revoke one first."""

    status, slug, title = 409, "too-many-api-keys", "Revoke an API key before making another"


class ApiKeyShown(Problem):
    """
    The same request has made an API key already, which that answer showed; `key_id` says which.

    A key is kept as a hash alone, so it cannot be shown again: revoke it if that answer was lost, and make another
    under a new Idempotency-Key.
    """

    status, slug, title = 409, "api-key-shown", "This API key was made and shown already"
    members: ClassVar[Mapping[str, type]] = {"key_id": str}

    def __init__(self, *, key_id: str) -> None:
        super().__init__(key_id=key_id)


class PasswordRefused(Problem):
    """The new password is too short, among the most common ones, or the e-mail itself; the detail says which."""

    status, slug, title = 422, "password-refused", "Choose another password"


class TooManyAttempts(Problem):
    """Too many attempts, or too many at once: wait for as long as Retry-After says."""

    status, slug, title = 429, "too-many-attempts", "Too many attempts; wait before the next"
    members: ClassVar[Mapping[str, type]] = {"retry_after_ms": int}

    def __init__(self, *, retry_after_ms: int) -> None:
        super().__init__(retry_after_ms=retry_after_ms)
