"""Every error vidcodec raises on purpose.

    VidcodecError
    ├── InputError              the source cannot be used
    │   ├── NoVideoError            no video stream, or no frame in the range asked for
    │   ├── UnsupportedInputError   a size or format beyond what the codec takes
    │   └── FetchError              a test sequence cannot be downloaded, or is not what it should be
    │       └── UnreachableError        its server does not answer
    ├── BitstreamError          a .vdc file cannot be read
    │   ├── NotABitstreamError      not a vidcodec file at all
    │   ├── UnsupportedVersionError written by another version
    │   ├── CorruptBitstreamError   damaged: a checksum or a bound does not hold
    │   └── TruncatedBitstreamError ends too early
    ├── ModelError              a network's weights cannot be used
    │   ├── ModelNotFoundError      no such model, or its weights are not at hand
    │   └── ModelMismatchError      not the weights the file was made with
    ├── OutputError             the result cannot be written
    ├── RateControlError        the asked-for rate or quality cannot be reached
    ├── CodecUnavailableError   a codec to compare with is not on this machine
    └── TrainingError           a training run cannot start or go on

The message says what to do. `exit_code` is what the command line returns.
"""

from __future__ import annotations


class VidcodecError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class InputError(VidcodecError):
    """The source cannot be used."""

    exit_code = 3


class NoVideoError(InputError):
    """There is no video stream, or no frame in the range asked for."""


class UnsupportedInputError(InputError):
    """A size or format beyond what the codec takes."""


class FetchError(InputError):
    """A test sequence cannot be downloaded, or is not what it should be."""


class UnreachableError(FetchError):
    """The server of a test sequence does not answer."""


class BitstreamError(VidcodecError):
    """A .vdc file cannot be read."""

    exit_code = 4


class NotABitstreamError(BitstreamError):
    """Not a vidcodec file at all."""


class UnsupportedVersionError(BitstreamError):
    """Written by a newer version of vidcodec, or by one too old; the message names it."""


class CorruptBitstreamError(BitstreamError):
    """Damaged: a checksum or a bound does not hold."""


class TruncatedBitstreamError(BitstreamError):
    """The file ends too early."""


class ModelError(VidcodecError):
    """A network's weights cannot be used."""

    exit_code = 5


class ModelNotFoundError(ModelError):
    """No such model, or its weights are not at hand."""


class ModelMismatchError(ModelError):
    """Not the weights the file was made with."""


class OutputError(VidcodecError):
    """The result cannot be written."""

    exit_code = 6


class RateControlError(VidcodecError):
    """The asked-for rate or quality cannot be reached."""

    exit_code = 7


class CodecUnavailableError(VidcodecError):
    """A codec to compare with is not on this machine."""


class TrainingError(VidcodecError):
    """A training run cannot start or go on."""

    exit_code = 8


def first_line(error: BaseException) -> str:
    """The first line of what an error says, its type's name where it says nothing: for messages of one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
