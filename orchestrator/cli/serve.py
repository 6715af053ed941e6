"""`ratchet review serve`: the page where people label and approve, and the API beside it."""

import ipaddress
import logging

import click

from orchestrator.cli.output import open_ledger, say
from orchestrator.home import Home

DEFAULT_PORT = 8321


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0: all of them.")
@click.option("--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True, help="0: a free one.")
@click.option(
    "--public-url", metavar="URL", help="The address that people use, where a proxy with TLS stands in front."
)
@click.option(
    "--proxy",
    "proxies",
    multiple=True,
    metavar="ADDRESS",
    help="The proxy's address, whose X-Forwarded-For is believed; with --public-url, this machine's unless given.",
)
@click.option("--allowed-host", "allowed_hosts", multiple=True, metavar="NAME", help="A further name to answer to.")
@click.option("--access-log/--no-access-log", default=False, help="Log requests: no queries, cookies or tokens.")
@click.pass_context
def serve(
    ctx: click.Context,
    host: str,
    port: int,
    public_url: str | None,
    proxies: tuple[str, ...],
    allowed_hosts: tuple[str, ...],
    access_log: bool,
) -> None:
    """Serve the page where people label comparisons and approve candidates.

    It listens on this machine alone unless told otherwise; TLS belongs in front of it. Whoever comes needs an
    invitation: `ratchet review invite`.

    \b
    Example:
      ratchet review serve
      ratchet review serve --host 10.0.0.7 --public-url https://review.example.org --proxy 10.0.0.5
    """
    from orchestrator.web.app import create_app
    from orchestrator.web.server import OWN_PROXY, allow_many_files, answer_steadily, listen, make_server

    home: Home = ctx.obj
    if access_log:
        logging.getLogger("orchestrator.web.access").setLevel(logging.INFO)
    with open_ledger(home) as ledger:
        app = create_app(ledger, home.artifacts(), public_url=public_url, allowed_hosts=(*allowed_hosts, _name(host)))
        server = make_server(app, proxies=proxies or (OWN_PROXY if public_url is not None else ()))
        with listen(host, port) as taken:
            port = taken.getsockname()[1]
            url = (public_url or f"http://{_name(host)}:{port}").rstrip("/")
            click.echo(f"review page: {url}")
            say(f"let people in with: ratchet review invite NAME --role labeler|approver|auditor --url {url}")
            if not _is_local(host) and not (public_url or "").startswith("https://"):
                say("anybody on the way can read what goes through here: put a proxy with TLS in front, --public-url")
            allow_many_files()
            answer_steadily()
            server.run(sockets=[taken])


def _name(host: str) -> str:
    """As it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
