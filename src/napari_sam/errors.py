"""Every error and warning this program raises on purpose.

::

    NapariSamError
    ├── PromptError (ValueError)              a prompt that cannot be used: outside the plane, NaN, empty
    ├── SpaceError (ValueError)               a transform that cannot be inverted, axes that do not fit
    ├── VolumeError (ValueError)              an image that cannot be read as a volume
    │   └── AxesError                         axes missing, ambiguous or not matching the array
    ├── CheckpointError (ValueError)          a weight file that is not what it should be
    ├── ModelNotFoundError (LookupError)      neither a registry name nor a file
    ├── DownloadError (OSError)               weights could not be fetched; says which file to put where
    ├── EmbeddingNotFoundError (LookupError)  the store holds no such record
    ├── EmbeddingCorruptError (ValueError)    the record exists and cannot be trusted
    ├── EmbeddingNotKeptError (OSError)       a record that is worth nothing unless kept could not be
    ├── DeviceError (ValueError)              a device or precision that is not there
    ├── DeviceMemoryError (RuntimeError)      out of memory after every smaller step was tried
    ├── ExportError (OSError)                 labels could not be written; what was there before is intact
    ├── SessionError (ValueError)             a session folder that cannot be used
    ├── TrainingError (ValueError)            data that nothing can be learned from
    ├── DependencyError (ImportError)         an optional package is missing, or the wrong one is installed
    └── JobCancelled (Exception)              a job ended because the user asked for it

    NapariSamWarning (UserWarning)
    ├── FallbackWarning                       slower or less precise than asked for, and why
    ├── CacheWarning                          the embedding cache could not be used as usual
    ├── InputWarning                          input was usable after a change that is named
    ├── PromptWarning                         a prompt of a kind that the model was not trained with
    └── SessionWarning                        a session was reopened, but for something that is named
"""


class NapariSamError(Exception):
    """Root of all errors of this program."""


class PromptError(NapariSamError, ValueError):
    """A prompt that cannot be used."""


class SpaceError(NapariSamError, ValueError):
    """A coordinate transform that cannot be used."""


class VolumeError(NapariSamError, ValueError):
    """An image that cannot be read as a volume."""


class AxesError(VolumeError):
    """Axes that are missing, ambiguous or do not match the array."""


class CheckpointError(NapariSamError, ValueError):
    """A weight file that is not what it should be."""


class ModelNotFoundError(NapariSamError, LookupError):
    """Neither a registry name nor an existing file."""


class DownloadError(NapariSamError, OSError):
    """Weights could not be fetched."""


class EmbeddingNotFoundError(NapariSamError, LookupError):
    """The store holds no record for this key."""


class EmbeddingCorruptError(NapariSamError, ValueError):
    """A stored record exists and cannot be trusted."""


class EmbeddingNotKeptError(NapariSamError, OSError):
    """An embedding was made to be kept, and the store cannot keep it."""


class DeviceError(NapariSamError, ValueError):
    """A device or precision that is not available."""


class DeviceMemoryError(NapariSamError, RuntimeError):
    """Out of memory after every smaller step was tried."""


class ExportError(NapariSamError, OSError):
    """Labels could not be written."""


class SessionError(NapariSamError, ValueError):
    """A session folder that cannot be used."""


class TrainingError(NapariSamError, ValueError):
    """Data or settings that nothing can be learned from."""


class DependencyError(NapariSamError, ImportError):
    """An optional package is missing, or the wrong one is installed."""


class JobCancelled(NapariSamError):
    """A job ended because the user asked for it."""


class NapariSamWarning(UserWarning):
    """Root of all warnings of this program."""


class FallbackWarning(NapariSamWarning):
    """Work goes on slower or less precisely than asked for."""


class CacheWarning(NapariSamWarning):
    """The embedding cache could not be used as usual."""


class InputWarning(NapariSamWarning):
    """Input was usable only after a change that the message names."""


class PromptWarning(NapariSamWarning):
    """A prompt of a kind that the model was not trained with."""


class SessionWarning(NapariSamWarning):
    """A session was reopened, but for something that the message names."""
