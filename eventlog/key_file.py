"""The signing key's file: one line `ed25519 VERSION SEED`, the format other homeservers use too.

Invariant: the file is readable by its owner alone from the moment it exists, and is never overwritten: whoever loses
the key loses the server's identity.
"""

import os
import secrets
import string
from pathlib import Path

from eventlog.settings import ConfigurationError
from matrix.signatures import SigningKey
from matrix.unpadded_base64 import decode, encode


def read_key(path: Path) -> SigningKey:
    """The key in the file (its first, if there are several). Raises ConfigurationError."""
    try:
        line = path.read_text(encoding="ascii").strip().splitlines()[0]
        algorithm, version, seed = line.split()
        return SigningKey(f"{algorithm}:{version}", decode(seed))
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no signing key {path}: put the backup's there (for a new server, `walden init` makes one)"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"the signing key {path} cannot be read: {error.strerror}") from None
    except (ValueError, IndexError):
        raise ConfigurationError(f"{path} is not a signing key: expected one line `ed25519 VERSION SEED`") from None


def make_key(path: Path) -> SigningKey:
    """Write a new key `ed25519:a_XXXX` to a file that does not exist yet. Raises FileExistsError if it does."""
    alphabet = string.ascii_letters
    key = SigningKey.generate("a_" + "".join(secrets.choice(alphabet) for _ in range(4)))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{key.key_id.replace(':', ' ', 1)} {encode(key.seed)}\n")
        file.flush()
        os.fsync(file.fileno())
    return key
