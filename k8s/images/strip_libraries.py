"""
Cut from shared libraries what only a debugger reads: a third of some wheels.

The dynamic loader reads a library's segments; symbol tables, debug information and section headers lie behind the last
of them. `strip` of binutils would do the same, but would have to be fetched into the build.
"""

import struct
import sys
from pathlib import Path

# ELF-64, little-endian: every platform that the locked wheels exist for.
MAGIC = b"\x7fELF\x02\x01"
# Where the program headers begin, how long one is, how many there are; and the fields of the section headers.
PHOFF, PHENTSIZE, PHNUM = 0x20, 0x36, 0x38
SHOFF, SHNUM_AND_SHSTRNDX = 0x28, 0x3C
# In a program header: the segment's place and length in the file.
P_OFFSET, P_FILESZ = 0x08, 0x20


def stripped(library: bytes) -> bytes:
    """Return *library* up to the end of its last segment; what is no ELF-64 file comes back as it was."""
    if not library.startswith(MAGIC):
        return library
    (table,) = struct.unpack_from("<Q", library, PHOFF)
    size, count = struct.unpack_from("<HH", library, PHENTSIZE)
    headers = [table + number * size for number in range(count)]
    ends = [
        sum(struct.unpack_from("<Q", library, header + field)[0] for field in (P_OFFSET, P_FILESZ))
        for header in headers
    ]
    kept = bytearray(library[: max(*ends, table + size * count)])
    struct.pack_into("<Q", kept, SHOFF, 0)
    struct.pack_into("<HH", kept, SHNUM_AND_SHSTRNDX, 0, 0)
    return bytes(kept)


if __name__ == "__main__":
    for path in sorted(Path(sys.argv[1]).rglob("*.so*")):
        if path.is_file() and not path.is_symlink():
            path.write_bytes(stripped(path.read_bytes()))
