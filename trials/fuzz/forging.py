"""Files of representations taken apart and put together again with checksums that match what is wrong in them."""

import json
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np

MANIFEST, CHECKSUM = "lgsirens", "lgsirens_crc32"


class Parts(NamedTuple):
    """What a file consists of.

    Attributes:
        header: its table of tensors, without the metadata.
        manifest: the text.
        body: all bytes after the header.
    """

    header: dict[str, Any]
    manifest: str
    body: bytes

    @classmethod
    def of(cls, content: bytes) -> "Parts | None":
        """None if the bytes are too far from such a file."""
        try:
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length])
            return cls(header, str(header.pop("__metadata__")[MANIFEST]), content[8 + length :])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def tensor(self, name: str) -> tuple[int, int]:
        """Where a tensor lies in the body."""
        low, high = self.header[name]["data_offsets"]
        return low, high

    def joined(self) -> bytes:
        """The file, with the checksum of its manifest."""
        checksum = str(zlib.crc32(self.manifest.encode("utf-8", "surrogatepass")))
        header = {"__metadata__": {MANIFEST: self.manifest, CHECKSUM: checksum}, **self.header}
        data = json.dumps(header).encode()
        return struct.pack("<Q", len(data)) + data + self.body

    def repaired(self) -> "Parts":
        """With the checksums of all tensors and rows, as far as header and manifest say where these are."""
        try:
            body, manifest = bytearray(self.body), json.loads(self.manifest)
            first, last = self.tensor("local")
            rows = min(int(self.header["local"]["shape"][0]), len(body))
            width = (last - first) // rows
            checksums = [zlib.crc32(body[first + n * width : first + (n + 1) * width]) for n in range(rows)]
            low, high = self.tensor("row_crc32")
            if high - low == 4 * rows and 0 <= low <= high <= len(body):
                body[low:high] = np.array(checksums, "<u4").tobytes()
            for name in manifest["crc32"]:
                low, high = self.tensor(name)
                manifest["crc32"][name] = zlib.crc32(body[low:high])
            return self._replace(manifest=json.dumps(manifest), body=bytes(body))
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, IndexError, RecursionError):
            return self


def repaired(content: bytes) -> bytes:
    """The file with checksums that match; as it is where it is too far from one."""
    parts = Parts.of(content)
    return content if parts is None else parts.repaired().joined()
