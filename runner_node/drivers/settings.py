"""What an operator can say about how containers are run."""

from __future__ import annotations

import dataclasses
import os
import shlex
from urllib.parse import urlsplit

from runner_node.drivers import credentials
from shared_models.env import env, number, one_of, whole, words

_TCP = ("tcp://", "http://", "https://")
_CERTS = "~/.docker"


def _docker_host(text: str) -> str:
    if text.startswith("ssh://"):
        raise ValueError(
            "ssh:// is not spoken: forward the engine's socket with "
            "ssh -N -L /run/engine.sock:/var/run/docker.sock HOST and set unix:///run/engine.sock"
        )
    if not text.startswith(("unix:///", *_TCP)):
        raise ValueError(f"must begin with unix:///, {', '.join(_TCP[:-1])} or {_TCP[-1]}")
    try:
        _ = urlsplit(text).port
    except ValueError:
        raise ValueError("must have a port between 1 and 65535, as in tcp://HOST:2376") from None
    return text


def _set(text: str) -> bool:
    """As docker's own clients read it: whatever it is set to."""
    return bool(text)


def _command(text: str) -> tuple[str, ...]:
    """Words as a shell reads them."""
    return tuple(shlex.split(text))


def _auth(text: str) -> str:
    credentials.parsed(text)
    return text


def _percent(text: str) -> int:
    if (value := whole(text)) > 100:
        raise ValueError("must be a percentage, from 0 to 100")
    return value


def _folder(text: str) -> str:
    """A folder; empty for ``none``."""
    return "" if text == "none" else text


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DriverSettings:
    """Times in seconds. A size or number of 0 means that there is no limit."""

    driver: str = env(
        "FN_DRIVER",
        "docker",
        "how functions are run: docker, or process (for development: functions are not isolated)",
        parse=one_of("docker", "process"),
    )
    docker_host: str = env(
        "DOCKER_HOST",
        "unix:///var/run/docker.sock",
        "address of the Docker-compatible container engine",
        parse=_docker_host,
    )
    docker_tls_verify: bool = env(
        "DOCKER_TLS_VERIFY",
        False,
        "TLS to an engine over TCP; on when it is set, whatever to",
        parse=_set,
    )
    docker_cert_path: str = env(
        "DOCKER_CERT_PATH",
        "",
        "folder with ca.pem, cert.pem and key.pem for that; turns TLS on, too; empty: ~/.docker",
    )
    iofs_path: str = env(
        "FN_IOFS_PATH",
        "",
        "folder for the sockets of functions; empty: a private one under the system's temporary folder",
    )
    iofs_docker_path: str = env(
        "FN_IOFS_DOCKER_PATH", "", "the same folder as the engine sees it; empty: under the same path"
    )
    networks: tuple[str, ...] = env(
        "FN_DOCKER_NETWORKS", (), "networks for containers; the least used one is taken", parse=words
    )
    prefork_pool_size: int = env(
        "FN_PREFORK_POOL_SIZE",
        4,
        "network namespaces kept ready for functions, on each network that has something to set up; "
        "some 12 MB of memory each; 0: none",
    )
    prefork_image: str = env(
        "FN_PREFORK_IMAGE",
        "",
        "image of the containers that hold network namespaces; empty: one that the node makes itself",
    )
    prefork_cmd: tuple[str, ...] = env(
        "FN_PREFORK_CMD",
        (),
        "what those containers run; empty: what their image says",
        parse=_command,
        show=shlex.join,
    )
    writable_rootfs: bool = env(
        "FN_DISABLE_READONLY_ROOTFS", False, "whether functions may write to their root file system"
    )
    max_tmpfs_inodes: int = env("FN_MAX_TMPFS_INODES", 0, "files that fit into a function's /tmp")
    max_fs_size: int = env(
        "FN_MAX_FS_SIZE_MB",
        0,
        "size of a function's root file system (the engine's storage must know quotas)",
        unit="MB",
    )
    label_tag: str = env(
        "FN_CONTAINER_LABEL_TAG", "", "if set, the value of the label fn-agent-classifier of each container"
    )
    engine_timeout: float = env(
        "FN_ENGINE_TIMEOUT", 30.0, "how long one request to the engine may take", parse=number, unit="s"
    )
    pull_timeout: float = env(
        "FN_PULL_TIMEOUT", 600.0, "how long fetching an image may take", parse=number, unit="s"
    )
    docker_auth: str = env(
        "FN_DOCKER_AUTH",
        "",
        'logins at registries: a docker config file, {"auths": {...}}; goes before FN_DOCKER_CONFIG',
        parse=_auth,
        secret=True,
    )
    docker_config: tuple[str, ...] = env(
        "FN_DOCKER_CONFIG",
        (credentials.DEFAULT,),
        "docker config files with logins, or folders of mounted pull secrets; read at each pull",
        parse=words,
        show=" ".join,
    )
    image_clean_max_size: int = env(
        "FN_IMAGE_CLEAN_MAX_SIZE",
        0,
        "above so many bytes of images that this node pulled, the least recently used of them are removed; "
        "0: never",
        unit="bytes",
    )
    image_clean_low: int = env(
        "FN_IMAGE_CLEAN_LOW_PERCENT",
        80,
        "down to how much of that they are removed then",
        parse=_percent,
        unit="%",
    )
    image_clean_exempt: tuple[str, ...] = env(
        "FN_IMAGE_CLEAN_EXEMPT_TAGS",
        (),
        "images that are never removed; a name without a tag means all of its tags",
        parse=words,
        show=" ".join,
    )
    image_record: str = env(
        "FN_IMAGE_RECORD_PATH",
        "data/images",
        "folder where the node keeps which images it pulled, so that it knows them after a restart; "
        "none: memory only",
        parse=_folder,
        show=lambda value: str(value or "none"),
    )
    process_images: str = env(
        "FN_PROCESS_IMAGES", "", "process driver: folder that has one folder per image, with a func.yaml"
    )
    process_venvs: str = env(
        "FN_PROCESS_VENVS",
        "",
        "process driver: where virtual environments are kept; empty: .venvs in FN_PROCESS_IMAGES",
    )

    def engine_certs(self) -> str:
        """The folder with the files of TLS to the engine; empty where TLS is not spoken."""
        wished = self.docker_tls_verify or self.docker_cert_path or self.docker_host.startswith("https://")
        if not wished or self.docker_host.startswith("unix://"):
            return ""
        return self.docker_cert_path or os.path.expanduser(_CERTS)
