"""A client of Stability AI's image-to-image service (REST API v2beta). Needs ``requests`` (extra ``remote``)."""

from __future__ import annotations

import io
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from emoedit.io.images import load_picture
from emoedit.types import EditError, EmoEditError, ImageError, MissingExtraError

if TYPE_CHECKING:
    from requests import PreparedRequest, Session

KEY = "STABILITY_API_KEY"  # environment variable
ADDRESS = "https://api.stability.ai"
SAFE = re.compile(r"https://[^/]|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/|\Z)")

Method = Literal["image-to-image", "structure", "inpaint"]
PATHS: dict[Method, str] = {
    "image-to-image": "/v2beta/stable-image/generate/sd3",
    "structure": "/v2beta/stable-image/control/structure",
    "inpaint": "/v2beta/stable-image/edit/inpaint",
}
MAX_GROW = 100  # pixels
MIN_SIDE, MIN_PIXELS, MAX_PIXELS = 64, 4_096, 9_437_184
MAX_BODY, MAX_REPLY = 10 * 2**20, 64 * 2**20  # bytes
MAX_PROMPT = 10_000  # characters
MAX_SEED = 2**32 - 2
SHOWN = 400  # characters of the service's message

REFUSALS = {
    400: "it cannot read the request; a newer emoedit may support its current interface",
    401: f"it does not accept the key; compare {KEY} with the key in the account, or make a new one there",
    402: "the account has no credits left; nothing is made before it has",
    403: "its moderation refuses the picture or the prompt; take another photograph or emotion",
    413: "the picture is too large for it; take a smaller crop",
    422: "a value in the request is refused; change what it names",
    429: "too many requests, even after waiting; try again later, or send fewer",
    500: "it failed by itself; ask again later (that is not done here, because every request may be charged)",
}


class RemoteError(EmoEditError):
    """The service could not be reached, refused, or answered with something else than the picture.

    Args:
        message: the answer, and advice.
        status: status of the HTTP answer; None where there was none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class StabilityClient:
    """Asks the service for one picture at a time. Building one needs neither key nor network.

    Args:
        key: default: what the environment variable ``STABILITY_API_KEY`` holds when something is asked for.
        method: ``"image-to-image"`` redraws the picture as far as the strength says; ``"structure"`` draws a new one on
            its contours, the looser the larger the strength; ``"inpaint"`` draws what a mask covers anew and leaves the
            rest, without a strength between 0 and 1.
        grow_mask: pixels by which the service makes a mask larger, softly, 0 to 100.
        address: address of another server with the same interface; ``http`` on this machine only, where the key stays
            local.
        timeout: seconds to wait for a connection, and for each part of an answer.
        retries: how often a request is repeated that came too early (429); others never are, because the service knows
            no two requests for the same and may charge both.
        wait: seconds before each of these.
        sleep: function that waits.

    Raises:
        EditError: a setting that makes no sense.
    """

    def __init__(
        self,
        key: str | None = None,
        *,
        method: Method = "image-to-image",
        grow_mask: int = 5,
        address: str = ADDRESS,
        timeout: float = 120.0,
        retries: int = 3,
        wait: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if method not in PATHS:
            raise EditError(f"method must be one of {', '.join(PATHS)}, not {method!r}")
        if not SAFE.match(address):
            raise EditError(f"{address!r} must be an address with https (http: only of this machine)")
        if not timeout > 0 or retries < 0 or not wait >= 0:
            raise EditError(f"no such patience: timeout {timeout!r}, retries {retries!r}, wait {wait!r}")
        if isinstance(grow_mask, bool) or not isinstance(grow_mask, int) or not 0 <= grow_mask <= MAX_GROW:
            raise EditError(f"grow_mask is a whole number from 0 to {MAX_GROW}, not {grow_mask!r}")
        self._key, self._sleep, self.grow_mask = key, sleep, grow_mask
        self.method, self.address = method, address.rstrip("/")
        self.timeout, self.retries, self.wait = timeout, retries, wait

    def redraw(
        self, picture: Image.Image, prompt: str, *, strength: float, seed: int, mask: Image.Image | None = None
    ) -> Image.Image:
        """What the service makes of a picture; one request.

        Args:
            picture: sides of at least 64, 4,096 to 9,437,184 pixels; sent as an RGB PNG without metadata.
            prompt: up to 10,000 characters.
            strength: 0 the picture, 1 as if there were none. In the method ``"structure"`` sent as 1 minus this, which
                is how strongly the picture's contours hold.
            seed: 1 to 4,294,967,294 of noise that is the same every time, 0 of another each time.
            mask: for the method ``"inpaint"`` only: grey, as large as the picture, white where it is drawn anew.

        Returns:
            RGB of the picture's size.

        Raises:
            ImageError: the service would not take this.
            EditError: nothing was sent.
            MissingExtraError: ``requests`` is not installed; nothing was sent.
            RemoteError: no key (nothing was sent), no answer, a refusal, or no picture of the same proportions.
        """
        try:
            import requests
        except ImportError as error:
            raise MissingExtraError("requests", "remote") from error
        self._check_mask(picture, mask)
        fields, key = self._fields(picture.size, prompt, strength, seed), self._found_key()
        files = {"image": ("crop.png", _png(picture.convert("RGB")), "image/png")}
        if mask is not None:
            files["mask"] = ("mask.png", _png(mask.convert("L")), "image/png")

        def authorise(request: PreparedRequest) -> PreparedRequest:
            request.headers["authorization"] = f"Bearer {key}"
            return request

        request = requests.Request(
            "POST",
            self.address + PATHS[self.method],
            headers={"accept": "image/*"},
            data=fields,
            files=files,
            auth=authorise,  # not among the headers: requests would put a password of ~/.netrc in its place
        )
        try:
            with requests.Session() as session:
                status, headers, body = self._send(session, session.prepare_request(request))
        except requests.Timeout as error:
            raise RemoteError(
                f"{self.address} did not answer for {self.timeout:g} s; it may have made (and charged) the picture all "
                "the same. Ask again later, or with a longer timeout"
            ) from error
        except requests.RequestException as error:
            said = _plain(str(error), key)
            raise RemoteError(
                f"{self.address} cannot be reached, or broke off: is there a network? ({said})"
            ) from error
        return _read(self.address, status, headers, body, picture.size, key)

    def _check_mask(self, picture: Image.Image, mask: Image.Image | None) -> None:
        """Raises EditError for a method with a mask too many or too few, ImageError for one of another size."""
        if (mask is not None) != (self.method == "inpaint"):
            what = "needs a mask" if mask is None else "takes no mask"
            raise EditError(f"the method {self.method!r} {what}")
        if mask is not None and mask.size != picture.size:
            raise ImageError(f"the mask has {mask.size} pixels, the picture {picture.size}; they have to be the same")

    def _fields(self, size: tuple[int, int], prompt: str, strength: float, seed: int) -> dict[str, str]:
        """What is sent beside the picture.

        Raises:
            ImageError: the service would not take it.
            EditError: the service would not take it.
        """
        width, height = size
        if min(size) < MIN_SIDE or not MIN_PIXELS <= width * height <= MAX_PIXELS:
            raise ImageError(
                f"the service takes sides of at least {MIN_SIDE} and {MIN_PIXELS:,} to {MAX_PIXELS:,} pixels, not "
                f"{width} x {height}; take another crop"
            )
        if not 1 <= len(prompt) <= MAX_PROMPT:
            raise EditError(f"the service takes prompts of 1 to {MAX_PROMPT:,} characters, not {len(prompt):,}")
        if not 0 <= strength <= 1:
            raise EditError(f"the service takes strengths of 0 to 1, not {strength:g}")
        if not 0 <= seed <= MAX_SEED:
            raise EditError(f"the service takes seeds of 0 to {MAX_SEED}, not {seed}")
        fields = {"prompt": prompt, "seed": str(seed), "output_format": "png"}
        if self.method == "inpaint":
            if strength != 1:
                raise EditError(
                    f"inpainting draws the face anew, strength 1, or leaves it, strength 0, not {strength:g}; methods "
                    "with a strength are image-to-image and structure"
                )
            return fields | {"grow_mask": str(self.grow_mask)}
        if self.method == "structure":
            return fields | {"control_strength": f"{1 - strength:g}"}
        return fields | {"mode": self.method, "strength": f"{strength:g}"}

    def _send(self, session: Session, request: PreparedRequest) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the answer, after waiting where the service asks for that.

        Raises:
            ImageError: too large; nothing was sent.
            RemoteError: an answer without end.
        """
        if (size := len(request.body or b"")) > MAX_BODY:
            raise ImageError(f"the service takes {MAX_BODY:,} bytes, not {size:,}; take a smaller crop")
        # Proxies and certificates of the environment. Nothing is sent on to where a redirection points.
        how = session.merge_environment_settings(request.url, {}, True, None, None)
        for left in reversed(range(self.retries + 1)):
            body = bytearray()
            with session.send(request, timeout=self.timeout, allow_redirects=False, **how) as response:
                for part in response.iter_content(2**16):
                    body += part
                    if len(body) > MAX_REPLY:
                        raise RemoteError(f"{self.address} sends more than {MAX_REPLY:,} bytes; check the address")
            if response.status_code != 429 or not left:
                break
            self._sleep(self.wait)
        return response.status_code, response.headers, bytes(body)

    def _found_key(self) -> str:
        """The key. What is no key is refused here, because HTTP libraries quote a header that they refuse.

        Raises:
            RemoteError: there is none, or it holds what no header can.
        """
        key = (os.environ.get(KEY, "") if self._key is None else self._key).strip()
        if not key:
            raise RemoteError(f"the service needs a key: set the environment variable {KEY}")
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise RemoteError(f"the key holds blanks, line breaks or letters that no key has: set {KEY} again")
        return key


def _png(picture: Image.Image) -> bytes:
    """The pixels and nothing else."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))).save(buffer, "PNG")
    return buffer.getvalue()


def _plain(text: str, key: str) -> str:
    """A server's text for an error message: one line, shortened, without the key."""
    line = " ".join(text.replace(key, "[key]").split())
    return "".join(c for c in line if c.isprintable())[:SHOWN]


def _read(
    server: str, status: int, headers: Mapping[str, str], body: bytes, size: tuple[int, int], key: str
) -> Image.Image:
    """The picture of an answer, RGB of that size.

    Raises:
        RemoteError: it holds none, or one of other proportions.
    """
    try:
        told = json.loads(body) if body[:1] == b"{" else {}
    except (ValueError, RecursionError):  # not the service's format; its first words are shown below
        told = {}
    text = _plain(body[: 2**12].decode("utf-8", "replace"), key)
    if status != 200:
        errors = told.get("errors")
        said = [told.get("name"), *(errors if isinstance(errors, list) else [errors]), told.get("id")]
        words = _plain("; ".join(str(part) for part in said if part), key) or text or "nothing"
        why = REFUSALS.get(status, "it answers unlike the service this is written for; check the address")
        raise RemoteError(f"{server} refuses (HTTP {status}): {why}. It says: {words}", status)
    finish = str(headers.get("finish-reason") or told.get("finish_reason") or "SUCCESS")
    if finish != "SUCCESS":  # CONTENT_FILTERED, with HTTP 200
        why = f"{server} withholds the picture ({_plain(finish, key)}): take another photograph or emotion"
        raise RemoteError(why, status)
    try:
        found = Image.fromarray(load_picture(body, max_pixels=MAX_PIXELS).rgb)
    except ImageError as error:
        raise RemoteError(f"{server} answers without a picture ({error}): {text[:40]!r}", status) from error
    (width, height), (w, h) = size, found.size
    if w * height != h * width:
        raise RemoteError(f"{server} answers {width} x {height} pixels with {w} x {h}; check the address", status)
    return found if found.size == size else found.resize(size, Image.Resampling.LANCZOS)
