"""Run a program of an image as a cluster would: not root, on a read-only root file system, /tmp apart."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

STOP_TIMEOUT_S = 30
RUN_TIMEOUT_S = 60

# What a container runtime does, in mount(8): buildah builds images but has no read-only run. The kernel ends the
# process with the one that started it, however that ends; setpriv comes last, because a change of user takes that back.
ENTER = """
root=$1 uid=$2 gid=$3; shift 3
mount --bind "$root" "$root"
mount -t tmpfs tmpfs "$root/tmp"
chmod 1777 "$root/tmp"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "$root${2%/*}"; : > "$root$2"; fi
  mount --bind "$1" "$root$2"
  shift 2
done
shift
mount -o remount,bind,ro "$root"
exec chroot "$root" /usr/bin/setpriv --reuid="$uid" --regid="$gid" --clear-groups --pdeathsig=KILL \\
  /usr/bin/env --ignore-environment "$@"
"""


@dataclass(frozen=True)
class Container:
    """An image that can run here."""

    builder: str
    reference: str
    rootfs: Path | None
    """The image's files, where the builder is none that runs images."""
    user: str
    environment: Mapping[str, str]
    mounts: Mapping[str, Path] = field(default_factory=dict)
    """Path in the container, below /tmp → folder or socket here."""

    def command(self, arguments: tuple[str, ...], environment: Mapping[str, str]) -> list[str]:
        """Return what runs *arguments* in this image, on this machine's network."""
        if self.rootfs is None:
            limits = ["--read-only", "--tmpfs=/tmp", "--network=host", "--cap-drop=ALL", f"--entrypoint={arguments[0]}"]
            variables = [f"--env={name}={value}" for name, value in environment.items()]
            volumes = [f"--volume={here}:{there}" for there, here in self.mounts.items()]
            return [self.builder, "run", "--rm", *limits, *variables, *volumes, self.reference, *arguments[1:]]
        everything = {**self.environment, **environment}
        variables = [f"{name}={value}" for name, value in everything.items()]
        mounts = [part for there, here in self.mounts.items() for part in (str(here), there)]
        enter = ["unshare", "--mount", "sh", "-euc", ENTER, "enter", str(self.rootfs), *self.user.split(":")]
        return [*enter, *mounts, "--", *variables, *arguments]

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        """Run *arguments* to their end."""
        command = self.command(arguments, environment or {})
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_TIMEOUT_S)

    @contextlib.contextmanager
    def running(
        self, *arguments: str, environment: Mapping[str, str], log: Path
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """Run *arguments* for the block, then stop them as Kubernetes does: SIGTERM, and SIGKILL if they stay."""
        with log.open("wb") as output:
            command = self.command(arguments, environment)
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(ProcessLookupError):
                try:
                    process.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
