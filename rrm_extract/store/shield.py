"""A file for HDF5 to write to that never lets it see a failed write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rrm_extract.store.files import write_error


class ShieldedFile:
    """The file object given to h5py's `fileobj` driver.

    HDF5 does not survive a failed write: with its own drivers, a disk that fills up (or a file-size
    limit) makes the flush and the close fail, the file stays open inside the library, and the
    process dies of a segmentation fault when the library shuts down
    (https://github.com/h5py/h5py/issues/914). So here the first failure is noted, that write and
    all later ones are kept in memory, where HDF5 reads them back, and HDF5 closes in peace. The
    owner calls `check` after every step, which raises the error, so that what is kept in memory is
    never more than one step's data; the file itself is then thrown away.
    """

    def __init__(self, path: Path) -> None:
        """Create `path`. Raises OSError."""
        self.path = path
        self.error: OSError | None = None
        self._file = path.open("w+b", buffering=0)
        self._position = 0
        self._unwritten: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raise the StoreWriteError of the first write, or of the closing, that failed, if any."""
        if self.error is not None:
            raise write_error(self.path, self.error) from self.error

    def close(self) -> None:
        """Close the file, or note why not; HDF5 must have closed it before.

        Network disks say only now that there was no room.
        """
        self._unwritten.clear()
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or error

    # What h5py calls.

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; returns the position."""
        if whence == os.SEEK_SET:
            self._position = offset
        elif whence == os.SEEK_CUR:
            self._position += offset
        else:
            self._position = self._end() + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def read(self, size: int) -> bytes:
        """As `readinto`; h5py takes an object for a file by its having this."""
        data = bytearray(size)
        self.readinto(data)
        return bytes(data)

    def readinto(self, buffer: Any) -> int:
        """Fill the whole of `buffer`, with zeros where nothing was written."""
        view = memoryview(buffer).cast("B")
        self._file.seek(self._position)
        done = 0
        while done < len(view):
            count = self._file.readinto(view[done:]) or 0
            if count == 0:
                view[done:] = bytes(len(view) - done)
                break
            done += count
        for offset, data in self._unwritten:
            start = max(offset, self._position)
            stop = min(offset + len(data), self._position + len(view))
            if start < stop:
                piece = data[start - offset : stop - offset]
                view[start - self._position : stop - self._position] = piece
        self._position += len(view)
        return len(view)

    def write(self, buffer: Any) -> int:
        """Write the whole of `buffer`, or note why not and keep it."""
        view = memoryview(buffer).cast("B")
        done = 0
        if self.error is None:
            try:
                self._file.seek(self._position)
                while done < len(view):
                    done += self._file.write(view[done:])
            except OSError as error:
                self.error = error
        if done < len(view):
            self._unwritten.append((self._position + done, bytes(view[done:])))
        self._position += len(view)
        return len(view)

    def truncate(self, size: int) -> int:
        """Set the size, or note why not."""
        if self.error is None:
            try:
                self._file.truncate(size)
            except OSError as error:
                self.error = error
        return size

    def flush(self) -> None:
        """Nothing is held back."""

    def _end(self) -> int:
        size = os.fstat(self._file.fileno()).st_size
        return max([size, *(offset + len(data) for offset, data in self._unwritten)])
