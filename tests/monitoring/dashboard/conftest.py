"""A headless browser that records forbidden actions of pages."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from support.servers.served_dashboard import SLOW


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium")
    if executable is None:
        pytest.fail("there is no chromium; `make system` installs it")
    expect.set_options(timeout=SLOW)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens an address at a width and colour scheme. At the end of the test no page may have logged an error, run a
    script of the data, or sent a request to another server."""
    complaints: list[str] = []
    with ExitStack() as stack:

        def open_at(address: str, width: int = 1280, scheme: Any = "light") -> Page:
            own = "/".join(address.split("/")[:3])
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            stack.callback(context.close)
            context.set_default_timeout(SLOW)
            page = context.new_page()
            page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
            page.on("request", lambda request: _judge(request.url, own, complaints))
            page.on("response", lambda got: complaints.append(f"{got.status} {got.url}") if got.status >= 400 else None)
            page.goto(address)
            return page

        yield open_at
        for context in browser.contexts:
            for page in context.pages:
                assert page.evaluate("window.hacked") is None
    assert complaints == []


def _judge(url: str, own: str, complaints: list[str]) -> None:
    if not url.startswith((own, "data:", "blob:")):
        complaints.append(f"asked {url}")
