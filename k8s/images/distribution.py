"""
Tell an image's Python which distribution its code is, and give it the `healthguard` command.

Images copy folders instead of installing a wheel, since a wheel would hold every service. What an install would have
added is written here: name, version and the commands of the packages that are in this image.
"""

import sys
import tomllib
from pathlib import Path
from typing import Any

GROUP = "healthguard.commands"
COMMAND = """\
#!/opt/healthguard/venv/bin/python
from healthguard.cli import main

main()
"""


def entry_points(project: dict[str, Any], packages: set[str]) -> str:
    """Return entry_points.txt with the commands of *packages*; a command whose code is elsewhere would fail."""
    commands = project["entry-points"][GROUP]
    held = {name: target for name, target in commands.items() if target.partition(".")[0] in packages}
    return "\n".join([f"[{GROUP}]", *(f"{name} = {target}" for name, target in sorted(held.items()))]) + "\n"


def write(project: dict[str, Any], app: Path, programs: Path) -> None:
    """Write the distribution's metadata into *app* and the command into *programs*."""
    info = app / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text(entry_points(project, {folder.name for folder in app.iterdir()}))
    programs.mkdir()
    (programs / "healthguard").write_text(COMMAND)
    (programs / "healthguard").chmod(0o755)


if __name__ == "__main__":
    pyproject, app, programs = map(Path, sys.argv[1:])
    write(tomllib.loads(pyproject.read_text())["project"], app, programs)
