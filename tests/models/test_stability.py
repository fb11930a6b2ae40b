"""The remote service, played by a server on this machine: what is sent, what is not, and what every reply becomes."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from emoedit.editors import Editor, list_editors, load_editor, stability_editor
from emoedit.emotions import BASIC, get
from emoedit.faces.align import align
from emoedit.faces.detect import Face
from emoedit.faces.masks import face_masks
from emoedit.io import checkpoints
from emoedit.models.stability import client as remote
from emoedit.models.stability.backbone import StabilityBackbone
from emoedit.models.stability.client import KEY, MAX_SEED, RemoteError, StabilityClient
from emoedit.photo import PhotoEditor
from emoedit.steering.prompts import Prompts
from emoedit.types import CropSpec, Edit, EditError, EmoEditError, ImageError, MissingExtraError, UnknownNameError
from lib.instantiate import instantiate

ROOT = Path(__file__).resolve().parents[2]
SECRET = "sk-s3cr3t-0123456789"
SMALL = CropSpec(64, "ffhq")
Reply = tuple[int, dict[str, str], bytes]


def png(rgb: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    return buffer.getvalue()


def plain(width: int = 64, height: int = 64, level: int = 200) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def refusal(status: int, **more: object) -> Reply:
    told = {"id": "abc", "name": "some_name", "errors": ["first", "second"], **more}
    return status, {"content-type": "application/json"}, json.dumps(told).encode()


class Service:
    """Plays the replies it is given, then the picture that was sent, 40 levels darker. Keeps every request."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.heard: list[dict] = []
        self.pause = 0.0
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                kind = self.headers.get_all("content-type")
                parts = message_from_bytes(f"content-type: {kind[0]}\r\n\r\n".encode() + body).get_payload()
                fields, files = {}, {}
                for part in parts:
                    name = part.get_param("name", header="content-disposition")
                    data = part.get_payload(decode=True)
                    if part.get_filename() is None:
                        assert name not in fields
                        fields[name] = data.decode()
                    else:
                        files[name] = (part.get_filename(), part.get_content_type(), data)
                service.heard.append(
                    {"path": self.path, "headers": self.headers, "kind": kind, "fields": fields, "files": files}
                )
                time.sleep(service.pause)
                if service.replies:
                    status, headers, content = service.replies.pop(0)
                else:
                    sent = np.asarray(Image.open(io.BytesIO(files["image"][2])), int)
                    content = png((sent - 40).clip(0, 255).astype(np.uint8))
                    status, headers = 200, {"content-type": "image/png", "finish-reason": "SUCCESS", "seed": "7"}
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def client(self, **settings: object) -> StabilityClient:
        return StabilityClient(**{"address": self.address, "sleep": pytest.fail, **settings})

    def editor(self, crop: CropSpec = SMALL, **settings: object) -> Editor:
        return stability_editor(self.client(**settings), crop=crop)


@pytest.fixture
def service(monkeypatch) -> Iterator[Service]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv(KEY, SECRET)
    found = Service()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def picture() -> Image.Image:
    rough = np.random.default_rng(0).integers(40, 255, (64, 64, 3))
    return Image.fromarray(rough.astype(np.uint8))


def ask(client: StabilityClient, picture: Image.Image, **more: object) -> Image.Image:
    return client.redraw(picture, **{"prompt": "a face", "strength": 0.5, "seed": 3, **more})


# What is sent


def test_image_to_image_is_asked_for_as_the_service_wants_it(service, picture):
    made = ask(service.client(), picture)
    (heard,) = service.heard
    assert heard["path"] == "/v2beta/stable-image/generate/sd3"
    assert heard["headers"]["authorization"] == f"Bearer {SECRET}" and heard["headers"]["accept"] == "image/*"
    assert len(heard["kind"]) == 1 and heard["kind"][0].startswith("multipart/form-data; boundary=")
    expected = {"mode": "image-to-image", "prompt": "a face", "strength": "0.5", "seed": "3", "output_format": "png"}
    assert heard["fields"] == expected
    ((name, kind, data),) = heard["files"].values()
    assert list(heard["files"]) == ["image"] and (name, kind) == ("crop.png", "image/png")
    sent = Image.open(io.BytesIO(data))
    assert sent.format == "PNG" and np.array_equal(np.asarray(sent), np.asarray(picture))
    assert made.mode == "RGB" and np.array_equal(np.asarray(made), np.asarray(picture) - 40)


def test_structure_holds_as_firmly_as_the_edit_is_weak(service, picture):
    ask(service.client(method="structure"), picture, strength=0.3)
    (heard,) = service.heard
    assert heard["path"] == "/v2beta/stable-image/control/structure"
    assert heard["fields"] == {"prompt": "a face", "control_strength": "0.7", "seed": "3", "output_format": "png"}
    assert list(heard["files"]) == ["image"]


def test_inpainting_draws_the_face_anew_and_sends_where_it_is(service, picture):
    mask = Image.fromarray(np.uint8([[0, 255], [255, 0]])).resize(picture.size, Image.Resampling.NEAREST)
    ask(service.client(method="inpaint", grow_mask=9), picture, strength=1, mask=mask)
    (heard,) = service.heard
    assert heard["path"] == "/v2beta/stable-image/edit/inpaint"
    assert heard["fields"] == {"prompt": "a face", "grow_mask": "9", "seed": "3", "output_format": "png"}
    assert list(heard["files"]) == ["image", "mask"]
    name, kind, data = heard["files"]["mask"]
    sent = Image.open(io.BytesIO(data))
    assert (name, kind, sent.mode) == ("mask.png", "image/png", "L") and np.array_equal(sent, mask)
    for more, error, match in (
        ({"strength": 0.5, "mask": mask}, EditError, "strength 1"),
        ({"strength": 1}, EditError, "needs a mask"),
        ({"strength": 1, "mask": mask.resize((32, 32))}, ImageError, "same"),
    ):
        with pytest.raises(error, match=match):
            ask(service.client(method="inpaint"), picture, **more)
    with pytest.raises(EditError, match="takes no mask"):
        ask(service.client(method="structure"), picture, mask=mask)
    assert len(service.heard) == 1


def test_an_editor_that_inpaints_covers_the_face_alone(service):
    editor, pictures = service.editor(method="inpaint"), crops(1)
    next(editor.edit(editor.invert(pictures), [Edit("happy")]))
    sent = np.asarray(Image.open(io.BytesIO(service.heard[0]["files"]["mask"][2])))
    assert np.array_equal(sent > 0, face_masks(SMALL).face > 0) and set(np.unique(sent)) == {0, 255}


def test_nothing_but_pixels_leaves_the_machine(service, picture):
    about = PngInfo()
    about.add_text("Comment", "where I live")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=about, exif=b"Exif\0\0where I live", icc_profile=b"where I live" * 20)
    ask(service.client(), Image.open(buffer))
    assert not Image.open(io.BytesIO(service.heard[0]["files"]["image"][2])).info


def test_a_password_for_the_host_does_not_take_the_keys_place(service, picture, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    ask(service.client(), picture)
    assert service.heard[0]["headers"].get_all("authorization") == [f"Bearer {SECRET}"]


def test_a_key_can_be_given(service, picture, monkeypatch):
    monkeypatch.delenv(KEY)
    ask(service.client(key=" sk-other\n"), picture)
    assert service.heard[0]["headers"]["authorization"] == "Bearer sk-other"


# What is not sent


@pytest.mark.parametrize(
    ("size", "more", "error", "match"),
    [
        ((63, 200), {}, ImageError, "at least 64"),
        ((4000, 4000), {}, ImageError, "9,437,184"),
        ((64, 64), {"prompt": ""}, EditError, "1 to 10,000 characters"),
        ((64, 64), {"prompt": "x" * 10_001}, EditError, "10,001"),
        ((64, 64), {"strength": 1.01}, EditError, "not 1.01"),
        ((64, 64), {"strength": -0.1}, EditError, "not -0.1"),
        ((64, 64), {"strength": float("nan")}, EditError, "not nan"),
        ((64, 64), {"seed": 2**32 - 1}, EditError, "4294967295"),
        ((64, 64), {"seed": -1}, EditError, "not -1"),
    ],
)
def test_what_the_service_would_not_take_is_not_sent(service, size, more, error, match):
    with pytest.raises(error, match=match):
        ask(service.client(), Image.new("RGB", size), **more)
    assert not service.heard


def test_a_body_that_is_too_large_is_not_sent(service):
    noise = np.random.default_rng(0).integers(0, 256, (1900, 1900, 3)).astype(np.uint8)  # PNG cannot pack it
    with pytest.raises(ImageError, match="10,485,760 bytes.*smaller crop"):
        ask(service.client(), Image.fromarray(noise))
    assert not service.heard


@pytest.mark.parametrize("key", [None, "", "  \n"])
def test_without_a_key_the_variable_is_named(service, picture, monkeypatch, key):
    monkeypatch.delenv(KEY) if key is None else monkeypatch.setenv(KEY, key)
    with pytest.raises(RemoteError, match=KEY) as caught:
        ask(service.client(), picture)
    assert caught.value.status is None and not service.heard


@pytest.mark.parametrize("key", [f"{SECRET}\r\nx-evil: 1", f"{SECRET} two", f"{SECRET}é", f"{SECRET}\x7f"])
def test_what_is_no_key_is_refused_and_not_told(service, picture, key):
    with pytest.raises(RemoteError, match=KEY) as caught:
        ask(service.client(key=key), picture)
    assert SECRET not in "".join(traceback.format_exception(caught.value)) and not service.heard


def test_without_requests_the_extra_is_named(service, picture, monkeypatch):
    monkeypatch.setitem(sys.modules, "requests", None)
    client = service.client()
    with pytest.raises(MissingExtraError, match=r"\[remote\]"):
        ask(client, picture)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "outpaint"},
        {"grow_mask": 101},
        {"grow_mask": 0.5},
        {"address": "http://example.org"},  # the key would be readable on its way
        {"address": "http://localhost@example.org"},
        {"address": "http://127.0.0.1.example.org"},
        {"address": "http://[::1"},
        {"address": "api.stability.ai"},
        {"address": "file:///etc/passwd"},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"retries": -1},
        {"wait": -1.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(EditError):
        StabilityClient("key", **settings)


# What comes back


@pytest.mark.parametrize(
    ("status", "match"),
    [
        (400, "newer emoedit"),
        (401, KEY),
        (402, "no credits"),
        (403, "moderation"),
        (413, "smaller crop"),
        (422, "a value"),
        (500, "failed by itself"),
        (404, "check the address"),
        (503, "check the address"),
    ],
)
@pytest.mark.parametrize("method", ["image-to-image", "structure", "inpaint"])
def test_refusals_say_what_happened_and_are_not_repeated(service, picture, status, match, method):
    service.replies = [refusal(status)]
    more = {"strength": 1, "mask": picture.convert("L")} if method == "inpaint" else {}
    with pytest.raises(RemoteError, match=match) as caught:
        ask(service.client(method=method), picture, **more)
    assert caught.value.status == status and len(service.heard) == 1
    assert f"HTTP {status}" in str(caught.value) and "some_name; first; second; abc" in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>bad gateway</html>",
        b"\xff\xfe\x00",
        b"{",
        b"{}",
        b'{"errors": "one"}',
        b'{"errors": [1, null, {"a": []}], "name": 3}',
        b'{"a":' * 100_000,
        b"[1]",
    ],
)
@pytest.mark.parametrize("status", [200, 500])
def test_any_body_gives_a_typed_error(service, picture, status, body):
    service.replies = [(status, {}, body)]
    with pytest.raises(RemoteError) as caught:
        ask(service.client(), picture)
    assert caught.value.status == status and len(str(caught.value)) < 1000


def test_a_refusal_is_shown_on_one_line_and_without_what_a_terminal_obeys(service, picture):
    service.replies = [refusal(422, errors=["a\n\x1b[31mb" + "x" * 5000])]
    with pytest.raises(RemoteError, match=r"a \[31mbxxx") as caught:
        ask(service.client(), picture)
    assert len(str(caught.value)) < 1000 and str(caught.value).isprintable()


@pytest.mark.parametrize("method", ["image-to-image", "structure", "inpaint"])
@pytest.mark.parametrize("headers", [{"finish-reason": "CONTENT_FILTERED"}, {"Finish-Reason": "CONTENT_FILTERED"}])
def test_a_filtered_picture_is_a_failure_though_http_is_content(service, picture, headers, method):
    service.replies = [(200, {"content-type": "image/png", **headers}, png(plain()))]
    more = {"strength": 1, "mask": picture.convert("L")} if method == "inpaint" else {}
    with pytest.raises(RemoteError, match="CONTENT_FILTERED.*another photograph") as caught:
        ask(service.client(method=method), picture, **more)
    assert caught.value.status == 200 and len(service.heard) == 1


def test_a_filtered_picture_told_in_json_is_one_too(service, picture):
    service.replies = [(200, {}, b'{"image": "", "seed": 1, "finish_reason": "CONTENT_FILTERED"}')]
    with pytest.raises(RemoteError, match="CONTENT_FILTERED"):
        ask(service.client(), picture)


def test_only_what_came_too_early_is_repeated(service, picture):
    slept: list[float] = []
    service.replies = [refusal(429), refusal(429)]
    made = ask(service.client(sleep=slept.append), picture)
    assert slept == [60.0, 60.0] and len(service.heard) == 3 and made.size == picture.size
    assert service.heard[0]["fields"] == service.heard[2]["fields"]
    assert service.heard[0]["files"] == service.heard[2]["files"]


def test_patience_ends(service, picture):
    slept: list[float] = []
    service.replies = [refusal(429)] * 9
    with pytest.raises(RemoteError, match="too many requests") as caught:
        ask(service.client(sleep=slept.append, retries=2, wait=5), picture)
    assert slept == [5, 5] and len(service.heard) == 3 and caught.value.status == 429


def test_a_refusal_after_a_wait_is_not_repeated(service, picture):
    service.replies = [refusal(429), refusal(500)]
    with pytest.raises(RemoteError, match="HTTP 500"):
        ask(service.client(sleep=lambda seconds: None), picture)
    assert len(service.heard) == 2


def test_a_larger_picture_is_brought_to_the_size_that_was_sent(service, picture):
    ramp = np.repeat(np.arange(128, dtype=np.uint8)[:, None], 128, 1)
    service.replies = [(200, {}, png(np.dstack([ramp, ramp, 255 - ramp])))]
    made = np.asarray(ask(service.client(), picture), int)
    assert made.shape == (64, 64, 3)
    expected = np.arange(64)[:, None] * 2 + 0.5
    assert abs(made[..., 0] - expected).max() <= 1 and abs(made[..., 2] - (255 - expected)).max() <= 1


@pytest.mark.parametrize("content", [png(plain(64, 65)), png(plain(4000, 4000))])
def test_a_picture_that_cannot_be_the_same_is_refused(service, picture, content):
    service.replies = [(200, {}, content)]
    with pytest.raises(RemoteError):
        ask(service.client(), picture)


def test_half_a_picture_is_no_picture(service, picture):
    service.replies = [(200, {"content-type": "image/png"}, png(np.asarray(picture))[:-3000])]
    with pytest.raises(RemoteError, match="without a picture"):
        ask(service.client(), picture)


def test_an_answer_without_end_is_cut_off(service, picture, monkeypatch):
    monkeypatch.setattr(remote, "MAX_REPLY", 10_000)
    service.replies = [(200, {}, bytes(200_000))]
    with pytest.raises(RemoteError, match="more than 10,000 bytes"):
        ask(service.client(), picture)


@pytest.mark.parametrize("status", [302, 307, 308])
def test_nothing_is_sent_on_to_another_address(service, picture, status):
    service.replies = [(status, {"location": f"{service.address}/elsewhere"}, b"")]
    with pytest.raises(RemoteError, match=f"HTTP {status}"):
        ask(service.client(), picture)
    assert len(service.heard) == 1


def test_no_server_is_a_typed_error(service, picture):
    service.server.shutdown()
    service.server.server_close()
    with pytest.raises(RemoteError, match="cannot be reached.*refused") as caught:
        ask(service.client(), picture)
    assert caught.value.status is None and SECRET not in "".join(traceback.format_exception(caught.value))


def test_no_answer_is_a_typed_error_and_is_not_asked_for_again(service, picture):
    service.pause = 0.5
    with pytest.raises(RemoteError, match=r"for 0\.1 s.*charged"):
        ask(service.client(timeout=0.1), picture)
    assert len(service.heard) == 1


@pytest.mark.parametrize(
    "reply",
    [
        refusal(401, errors=[f"no such key: {SECRET}"]),
        refusal(401, id="x" * 390 + SECRET),  # cut in the middle
        (401, {}, b"x" * 395 + SECRET.encode()),
        (200, {}, f"{'y' * 35}{SECRET}".encode()),
        (200, {"finish-reason": SECRET}, b""),
    ],
)
def test_the_key_is_in_no_error(service, picture, reply):
    service.replies = [reply]
    with pytest.raises(RemoteError) as caught:
        ask(service.client(), picture)
    text = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert SECRET not in text and SECRET[:5] not in text


def test_the_key_is_in_no_repr(service):
    client = service.client(key=SECRET)
    editor = stability_editor(client)
    shown = [repr(part) for part in (client, editor, editor.backbone, *editor.steerings, PhotoEditor(editor))]
    assert SECRET not in "".join(shown)


# The editor


def crops(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_name_leads_to_it_without_key_or_network(monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    editor = load_editor("stability", device="cpu")
    assert isinstance(editor.backbone, StabilityBackbone) and editor.name == "stability"
    assert editor.backbone.client.address == "https://api.stability.ai"
    assert editor.emotions == BASIC and str(editor.device) == "cpu"
    assert editor.backbone.crop == CropSpec(768, "ffhq") and editor.backbone.compositor == "replace"
    inversion = editor.invert(torch.zeros(1, 3, 768, 768))
    with pytest.raises(RemoteError, match=KEY):
        list(editor.edit(inversion, [Edit("happy", 0.5)]))


def test_it_is_not_listed_among_what_is_embedded():
    assert "stability" not in list_editors() and "stability" not in checkpoints.embedded_names()
    with pytest.raises(UnknownNameError, match="registered editors are .*stability"):
        load_editor("stabilty")
    with pytest.raises(UnknownNameError, match="no folder.*load_editor"):
        checkpoints.locate("stability")  # where a folder is needed


def test_a_request_for_each_edit_of_each_picture_and_no_more(service):
    editor, pictures = service.editor(), crops(2)
    kept = pictures.clone()
    inversion = editor.invert(pictures, generator=torch.Generator().manual_seed(11))
    assert not service.heard
    edits = [Edit("happy", 0.5), Edit("happy", 0), Edit("shame", 1.0), Edit("0.5*joy", 0.5)]
    made = editor.edit(inversion, edits)
    for asked in (2, 2, 4, 6):  # each when its turn comes
        next(made)
        assert len(service.heard) == asked
    assert next(made, None) is None and torch.equal(pictures, kept)
    assert [h["fields"]["strength"] for h in service.heard] == ["0.5"] * 2 + ["1"] * 2 + ["0.25"] * 2
    assert {h["fields"]["seed"] for h in service.heard} == {"11"}
    prompts = [h["fields"]["prompt"] for h in service.heard[::2]]
    for prompt, name in zip(prompts, ("happy", "shame", "happy"), strict=True):  # a nuance has words of its own
        assert prompt.startswith(get(name).prompt) and "same person" in prompt
    sent = [np.asarray(Image.open(io.BytesIO(h["files"]["image"][2])), int) for h in service.heard]
    levels = ((pictures + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    assert all(abs(found - levels[n % 2]).max() <= 0.51 for n, found in enumerate(sent))


def test_what_comes_back_is_the_edit(service):
    editor, pictures = service.editor(), ((crops(2) + 1) * 127.5).round() / 127.5 - 1
    changed, source = editor.edit(editor.invert(pictures), [Edit("sad", 0.5), Edit("sad", 0)])
    assert torch.equal(source, pictures)
    expected = ((pictures + 1) * 127.5 - 40).clamp(0, 255) / 127.5 - 1
    assert (changed - expected).abs().max() < 1e-5
    found = editor(pictures, ["happy"], strength=0.5, output_type="pil")
    assert len(found.images) == 2 and found.images[0].size == (64, 64)


@pytest.mark.parametrize(
    ("seed", "sent"), [(None, str(MAX_SEED)), (0, str(MAX_SEED)), (1, "1"), (MAX_SEED, str(MAX_SEED))]
)
def test_the_same_seed_asks_for_the_same_picture(service, seed, sent):
    editor = service.editor()
    for _ in range(2):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        list(editor.edit(editor.invert(crops(1), generator=generator), [Edit("happy", 0.5)]))
    assert [h["fields"]["seed"] for h in service.heard] == [sent, sent]  # the service takes 0 for "any"


@pytest.mark.parametrize("seed", [MAX_SEED + 1, -1])
def test_seeds_that_the_service_does_not_have_are_refused(service, seed):
    with pytest.raises(EditError, match="seeds of 0 to"):
        service.editor().invert(crops(1), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("edit", "error", "match"),
    [
        (Edit("happy - 0.4*surprised", 0.5), EditError, "one emotion at a time.*happy and surprised"),
        (Edit("happy", 1.2), EditError, "1.2"),
        (Edit("happy", -0.5), EditError, "-0.5"),
        (Edit("-happy", 0.5), EditError, "-0.5"),
        (Edit("3 happy", 0.5), EditError, "1.5"),
        (Edit("hapy", 0.5), UnknownNameError, "happy"),
        (Edit("1e300 happy", 1), EditError, "1e"),
    ],
)
def test_edits_that_cannot_be_asked_for_are_refused_before_any_is_sent(service, edit, error, match):
    editor = service.editor()
    inversion = editor.invert(crops(1))
    with pytest.raises(error, match=match):
        list(editor.edit(inversion, [Edit("sad", 0.5), edit]))
    with pytest.raises(error, match=match):
        editor.control(inversion, [edit])
    assert not service.heard


def test_what_asks_for_nothing_sends_nothing(service):
    editor, pictures = service.editor(), crops(1)
    nothing = [Edit("happy", 0), Edit("happy - 0.4*surprised", 0), Edit("happy - happy", 0.5), Edit("0*sad", 0.5)]
    assert all(torch.equal(found, pictures) for found in editor.edit(editor.invert(pictures), nothing))
    assert not service.heard


def test_every_basic_emotion_has_words_of_its_own():
    words = {Prompts().words(Edit(name, 0.5))[0] for name in BASIC}
    assert len(words) == len(BASIC) and not any("{" in prompt for prompt in words)


def test_an_inversion_says_what_it_is_of(service):
    editor, pictures = service.editor(), crops(1)
    first, again, other = editor.invert(pictures), editor.invert(pictures), editor.invert(-pictures)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    with pytest.raises(EditError, match="one edit a picture"):
        editor.control(first, [])


def test_there_is_nothing_to_save(service, tmp_path):
    with pytest.raises(EditError, match="not registered"):
        service.editor().save_pretrained(tmp_path / "e")
    assert not (tmp_path / "e").exists()
    Prompts().save_pretrained(tmp_path / "p")
    assert Prompts.from_pretrained(tmp_path / "p").emotions == BASIC


# A photograph


class Found:
    """Two faces where the astronaut's is, one turned a little."""

    def choose(self, rgb: np.ndarray, face: str | int = "largest") -> list[Face]:
        points = np.array([[205, 110], [245, 108], [228, 133], [210, 153], [244, 151]], np.float32)
        faces = [Face(np.array([180, 65, 275, 190], np.float32), points, 0.99) for _ in range(2)]
        return faces if face == "all" else faces[:1]


def test_a_photograph_is_edited_where_the_face_is_and_nowhere_else(service, astronaut):
    photos = PhotoEditor(service.editor(CropSpec(256, "ffhq")), detector=Found())
    kept = astronaut.copy()
    opened = photos.open(astronaut, seed=5)
    zero, one = photos.edit(opened, [Edit("happy", 0), Edit("happy", 0.6)], seed=5)
    assert np.array_equal(np.asarray(zero.image), kept) and np.array_equal(astronaut, kept)
    (heard,) = service.heard
    assert (heard["fields"]["strength"], heard["fields"]["seed"]) == ("0.6", "5")
    alignment = align(Found().choose(astronaut)[0].landmarks, CropSpec(256, "ffhq"))
    sent = np.asarray(Image.open(io.BytesIO(heard["files"]["image"][2])))
    assert np.array_equal(sent, alignment.crop(astronaut))
    difference = np.asarray(one.image, int) - kept
    assert difference.max() <= 12  # darker by 40 levels at most, but for what resampling moves
    y, x = np.mgrid[:512, :512]
    where = face_masks(CropSpec(256, "ffhq")).face
    crop = alignment.to_crop(np.stack([x, y], -1).reshape(-1, 2).astype(float)).reshape(512, 512, 2)
    inside = ((crop > -1) & (crop < 256)).all(-1)
    assert not difference[~inside].any()
    nearest = crop.round().astype(int).clip(0, 255)
    whole = inside & (where[nearest[..., 1], nearest[..., 0]] > 0.999)
    assert whole.sum() > 1000 and np.median(difference[whole]) == -40
    assert one.editor == "stability" and one.edit == Edit("happy", 0.6)


def test_each_face_is_a_request(service, astronaut):
    photos = PhotoEditor(service.editor(), detector=Found())
    opened = photos.open(astronaut, "all")
    assert len(list(photos.edit(opened, [Edit("happy", 0.5), Edit("sad", 0.5)]))) == 2
    assert len(service.heard) == 4


def test_a_failure_of_one_edit_leaves_the_others(service, astronaut):
    photos = PhotoEditor(service.editor(), detector=Found())
    edits = [Edit("happy", 0.5), Edit("happy + sad", 0.5), Edit("sad", 2.0), Edit("sad", 0.5)]
    first, mixed, strong, last = photos.attempt(photos.open(astronaut), edits)
    assert isinstance(mixed, EditError) and isinstance(strong, EditError)
    assert not isinstance(first, EmoEditError) and not isinstance(last, EmoEditError)
    assert len(service.heard) == 2


def test_a_request_that_failed_is_not_made_again(service, astronaut):
    photos = PhotoEditor(service.editor(), detector=Found())
    service.replies = [refusal(500)]
    first, second = photos.attempt(photos.open(astronaut), [Edit("happy", 0.5), Edit("sad", 0.5)])
    assert isinstance(first, RemoteError) and not isinstance(second, EmoEditError)
    assert [h["fields"]["prompt"][:20] for h in service.heard] == [get(n).prompt[:20] for n in ("happy", "sad")]


# The seed report's figure


@pytest.fixture
def report(monkeypatch):
    path = ROOT / "experiments" / "reproduce_seed_report.py"
    spec = importlib.util.spec_from_file_location("seed_report_of_test_remote", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def models() -> dict[str, dict]:
    omegaconf = pytest.importorskip("omegaconf")
    files = {name: omegaconf.OmegaConf.load(ROOT / f"configs/models/{name}.yaml") for name in ("embedded", "full_size")}
    return {name: omegaconf.OmegaConf.to_container(config) for name, config in files.items()}


def test_the_figure_is_skipped_without_a_key_and_made_with_one(report, models, monkeypatch):
    (figure,) = (figure for figure in report.FIGURES if figure.editor == "stability")
    monkeypatch.delenv(KEY, raising=False)
    assert figure.number == "3.3" and KEY in report.skipped(figure)
    monkeypatch.setenv(KEY, SECRET)
    assert report.skipped(figure) is None
    for described in models.values():
        assert isinstance(report.open_editor(described["stability"]).backbone, StabilityBackbone)
    for strength in figure.strengths:
        assert all(Prompts().words(Edit(name, strength))[1] == strength for name in figure.emotions)


@pytest.mark.skipif(
    "identity" not in {p.name for p in checkpoints.embedded_root().glob("*")}, reason="no embedded metric networks here"
)
def test_the_figure_is_drawn_and_measured(report, service, astronaut, tmp_path):
    from emoedit.metrics.suite import Suite

    client = {"_target_": "emoedit.models.stability.client.StabilityClient", "address": service.address}
    editor = instantiate({"_target_": "emoedit.editors.stability_editor", "client": client})
    (figure,) = (figure for figure in report.FIGURES if figure.editor == "stability")
    service.replies = [refusal(402)] * 2
    page = report.Page(tmp_path / "page.md", tmp_path / "images", "section")
    suite = Suite(identity="embedded", perceptual="embedded", expression="embedded")
    text = "\n".join(report.reproduce(figure, editor, {"she": astronaut}, [], suite, page))
    assert "no credits" in text and text.count("| she |") == len(figure.strengths)
    assert {h["fields"]["strength"] for h in service.heard} == {f"{s:g}" for s in figure.strengths}
    assert (tmp_path / "images" / "section-3-3.jpg").is_file()
