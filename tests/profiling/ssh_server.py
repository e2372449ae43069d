"""An SSH server on 127.0.0.1 that runs commands, as a process: prints its port, ends with stdin.

Arguments: the file of its host key, and that of the public keys that may log in.
"""

import asyncio
import sys
from pathlib import Path

import asyncssh


async def run(process: "asyncssh.SSHServerProcess[bytes]") -> None:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_shell(
        process.command or "", stdin=pipe, stdout=pipe, stderr=pipe
    )
    # The end of stdout is not that of stderr, of which asyncssh would lose the rest.
    await process.redirect(child.stdin, child.stdout, child.stderr, send_eof=False)
    code = await child.wait()
    await process.stdout.drain()
    await process.stderr.drain()
    process.exit(code)


async def main(host_key: str, authorized: str) -> None:
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[host_key],
        authorized_client_keys=authorized,
        process_factory=run,
        encoding=None,
    )
    print(server.get_port(), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    assert all(Path(path).exists() for path in sys.argv[1:])
    asyncio.run(main(*sys.argv[1:]))
