"""The entry script of the image for Complement, without a container: what it promises to Complement, it does."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from installations import Installation

from bin.ports import free_port

pytestmark = [pytest.mark.processes, pytest.mark.slow]

CHECKOUT = Path(__file__).resolve().parents[2]
ENTRY = CHECKOUT / "tests" / "compliance" / "entry.sh"


class Entered(Installation):
    """An installation that the entry script starts."""

    def __init__(self, data_dir: Path, authority: Path) -> None:
        super().__init__(data_dir)
        self.federation_port = free_port()
        self.environ |= {
            "SERVER_NAME": "hs1",
            "COMPLEMENT_CA": str(authority),
            "WALDEN_FEDERATION_LISTEN": f"127.0.0.1:{self.federation_port}",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        # The command is `walden`, whatever the interpreter is.
        self.python = ("sh", str(ENTRY))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("ca")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=authority",
            "-keyout",
            str(folder / "ca.key"),
            "-out",
            str(folder / "ca.crt"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return folder


def versions(url: str, context: ssl.SSLContext | None = None) -> int:
    with urllib.request.urlopen(url + "/_matrix/client/versions", timeout=10, context=context) as answer:
        return int(answer.status)


def test_the_server_answers_clients_plainly_and_others_with_a_certificate_of_the_authority_and_again_after_a_restart(
    tmp_path: Path, authority: Path
) -> None:
    context = ssl.create_default_context(cafile=str(authority / "ca.crt"))
    # The certificate is for the server's name; the connection goes to an address.
    context.check_hostname = False
    with Entered(tmp_path / "d", authority) as server:
        assert versions(server.url) == 200
        assert versions(f"https://127.0.0.1:{server.federation_port}", context) == 200
        made = (tmp_path / "d" / "hs1.crt").read_bytes()
        server.stop(signal.SIGTERM)
        server.start()
        assert versions(server.url) == 200
        assert (tmp_path / "d" / "hs1.crt").read_bytes() == made
        nonce = urllib.request.urlopen(server.url + "/_synapse/admin/v1/register", timeout=10)
        assert nonce.status == 200
