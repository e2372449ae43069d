"""Makes a folder in which an ARM Python runs on another processor: ``make_root.py FOLDER``.

Debian's arm64 packages of Python and what it needs, unpacked; aarch64 wheels of numpy and ONNX
Runtime; and ``usr/bin/python3``, a script that runs that Python in qemu. It asks the package
archives that apt and pip are set up with, touches nothing outside the folder, and needs no root.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
# ONNX Runtime's later versions want to read an ARM processor's /proc/cpuinfo.
WHEELS = ("numpy>=2,<3", "onnxruntime>=1.20,<1.27")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
EMULATOR = "qemu-aarch64-static"
READY = ".ready"  # written last


def main(folder: Path) -> None:
    folder = folder.resolve()  # apt takes other paths for its own
    if missing := [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]:
        sys.exit(f"expected Debian's {' and '.join(missing)} to fetch arm64 packages with")
    root, downloads = folder / "root", folder / "downloads"
    shutil.rmtree(folder, ignore_errors=True)
    root.mkdir(parents=True)
    print(f"Fetching arm64 packages into {folder} ...", flush=True)
    for package in apt(downloads / "arm64", "arm64", *PACKAGES):
        run("dpkg", "-x", package, root)
    if not (root / "lib").exists():  # Debian 13 on: the link is in a package of the base system
        (root / "lib").symlink_to("usr/lib")
    emulator = shutil.which(EMULATOR) or fetched_emulator(downloads)
    name = (root / "usr/bin/python3").readlink().name  # such as python3.11
    fetch_wheels(downloads / "wheels", name.removeprefix("python"), root / "site")
    write_python(root, name, emulator)
    shutil.rmtree(downloads)
    run(root / "usr/bin/python3", "-c", "import numpy, onnxruntime")
    (folder / READY).touch()


def apt(folder: Path, architecture: str, *packages: str) -> list[Path]:
    """Fetch packages and all that they need, as for a system that has nothing yet."""
    folder.mkdir(parents=True)
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    (folder / "status").touch()
    options = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "",
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Log": folder,
        "Debug::NoLocking": 1,
    }
    command = ["apt-get", "-qq"]
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    run(*command, "update")
    asked = ("install", "--yes", "--no-install-recommends", "--download-only")
    run(*command, *asked, *packages)
    return sorted((folder / "cache" / "archives").glob("*.deb"))


def fetched_emulator(downloads: Path) -> str:
    """The emulator, unpacked beside the rest where it is not installed."""
    own = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    found = apt(downloads / "own", own, "qemu-user-static")
    folder = downloads.parent / "emulator"
    for package in found:
        if package.name.startswith("qemu-user"):
            run("dpkg", "-x", package, folder)
    return str(folder / "usr/bin" / EMULATOR)


def fetch_wheels(downloads: Path, python: str, site: Path) -> None:
    """Unpack wheels for that Python on ARM."""
    platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
    run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python),
        *(*platforms, "--dest", downloads, *WHEELS),
    )
    for wheel in downloads.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)


def write_python(root: Path, name: str, emulator: str) -> None:
    """A script in place of the link ``python3``: what Python calls itself is what can be started.

    It finds its folder by itself, so that the whole may be moved.
    """
    script = root / "usr/bin/python3"
    script.unlink()
    script.write_text(
        "#!/bin/sh\n"
        'root=$(cd "$(dirname "$0")/../.." && pwd)\n'
        'PYTHONPATH="$root/site" exec \\\n'
        f'  \'{emulator}\' -0 "$root/usr/bin/python3" -L "$root" "$root/usr/bin/{name}" '
        '-S "$@"\n'
    )
    script.chmod(0o755)


def run(*command: str | os.PathLike[str]) -> None:
    """Run a command; its own words are the message where it fails."""
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"{Path(command[0]).name} failed (exit {done.returncode}): see above")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
