"""Schemathesis reads the OpenAPI document and asks everything it tells of, as every role: what is answered is in it."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from tests.integration.gateway.stack import Stack

PROVE = bool(os.environ.get("HEALTHGUARD_PROVE"))
TOOL = Path(sys.executable).with_name("schemathesis")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# Small by default: an example or two of each operation. Whole: also every boundary of every parameter, and the links.
SIZE = (
    ["--phases=examples,coverage,fuzzing,stateful", "--max-examples=50"]
    if PROVE
    else ["--phases=examples,fuzzing", "--max-examples=4"]
)
ROLES = ("nobody", "patient", "doctor", "admin")


def token_of(stack: Stack, role: str, auth_dsn: str) -> list[str]:
    """Return the tool's arguments for a new person of this role; none for nobody."""
    if role == "nobody":
        return []
    credentials = stack.register()

    async def promote() -> None:
        connection = await asyncpg.connect(auth_dsn.replace("postgresql+asyncpg", "postgresql"))
        await connection.execute("UPDATE users SET role = $1 WHERE email = $2", role, credentials["email"])
        await connection.close()

    asyncio.run(promote())
    with stack.client() as client:
        token = client.post("/api/auth/login", json=credentials).json()["access_token"]
    return ["--header", f"Authorization: Bearer {token}"]


@pytest.mark.timeout(3600 if PROVE else 240)
@pytest.mark.parametrize("role", ROLES)
def test_every_answer_is_documented_and_none_is_a_5xx(stack: Stack, auth_dsn: str, role: str, tmp_path: Path) -> None:
    """Status, type and form of each answer; good questions and bad ones."""
    arguments = token_of(stack, role, auth_dsn)
    done = subprocess.run(
        [
            *(str(TOOL), "run", f"{stack.gateway_url}/openapi.json", f"--checks={CHECKS}", *SIZE, *arguments),
            *("--seed=1", "--no-color", "--generation-database=none", "--suppress-health-check=all"),
            *("--continue-on-failure", "--no-shrink", "--warnings=off"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
